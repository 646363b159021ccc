# SPDX-License-Identifier: Apache-2.0
"""Codecs compared on films: bits, persons, faces, time, and what a gap in the packets does.

```
  frames ─┬► person detector ─► persons of the raw film ──────────────┐ truth
          └► codec ─► packets ─► frames ─┬► person detector ──────────┴► AP at an IoU of 0.5
                        │                └► face detector ─► faces, and those of the raw film
                        └► kbit/s · delay · late joiner · lost packet
```
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.tables import number, text_table
from roi_codec_ros.lab.evaluation.average_precision import (
    Matches,
    average_precision,
    intersection_over_union,
    match,
)
from roi_codec_ros.lab.evaluation.film_frames import Clip
from roi_codec_ros.lab.evaluation.film_protocols import FilmCodec, FilmDecoder, FilmEncoder
from roi_codec_ros.lab.evaluation.measurement import (
    IOU_THRESHOLD,
    LOWEST_CONFIDENCE,
    RAW_BITS_PER_PIXEL,
)
from roi_codec_ros.lab.evaluation.results import ORIGINAL
from roi_codec_ros.perception.detections import Detections, DetectsPersons
from roi_codec_ros.perception.face_detectors import FaceDetector

TRUTH_CONFIDENCE = 0.35  # of a person in the raw film
SAME_FACE_IOU = 0.2
BLOCK_PX = 16
SAME_WITHIN = 8.0  # of 255, the mean of every block: as if there had been no gap

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Coded:
    """A film in packets. encode_ms: of each frame; delay_frames: how long packets are held."""

    packets: list[bytes]
    encode_ms: list[float]
    delay_frames: int


@dataclass(eq=False)
class FilmBench:
    """Detectors, and what they find in the raw frames. every: judge each N-th frame."""

    person_detector: DetectsPersons
    face_detector: FaceDetector
    every: int = 1
    on_frame: Callable[[], None] = lambda: None
    _persons: dict[int, np.ndarray] = field(default_factory=dict)
    _faces: dict[int, np.ndarray] = field(default_factory=dict)

    def rows(self, clip: Clip, codecs: Sequence[FilmCodec]) -> list[Row]:
        """The raw film's row, then one of each codec; JSON types only."""
        self._persons.clear()
        self._faces.clear()
        rows = [self._original(clip)]
        for codec in codecs:
            try:
                rows.append(self._row(clip, codec))
            except RoiCodecError as error:
                raise RoiCodecError(f"{codec.name} {codec.preset}: {error}") from error
        return rows

    def _original(self, clip: Clip) -> Row:
        judged = _Judged(self)
        for index in range(0, len(clip.images), self.every):
            seen = self.person_detector.detect(clip.images[index], confidence=LOWEST_CONFIDENCE)
            self._persons[index] = seen.above(TRUTH_CONFIDENCE).xyxy
            self._faces[index] = self.face_detector.detect(clip.images[index]).xyxy
            judged.add(index, seen, self._faces[index])
            self.on_frame()
        height, width = clip.size
        bits = RAW_BITS_PER_PIXEL * height * width
        row: Row = {"method": ORIGINAL, "preset": ""}
        row |= {"kbit_s": bits * clip.rate_hz / 1e3, "bpp": RAW_BITS_PER_PIXEL}
        row |= judged.figures()
        return row | dict.fromkeys(
            ("encode_ms", "delay_frames", "late_joiner_s", "lost_packet_s"), None
        )

    def _row(self, clip: Clip, codec: FilmCodec) -> Row:
        coded = encode_film(codec.encoder(clip.size, clip.rate_hz), clip)
        period = max(1, round(codec.heal_s * clip.rate_hz))
        gap = _gap(clip, period)
        watched = range(gap, min(len(clip.images), gap + 1 + 2 * period))
        whole: dict[int, ImageArray] = {}
        judged, held = _Judged(self), 0
        decoder = codec.decoder(clip.size)
        for index, image, at in _decoded(decoder, list(enumerate(coded.packets))):
            held = max(held, at - index)
            if index in watched:
                whole[index] = image
            if index in self._persons:
                seen = self.person_detector.detect(image, confidence=LOWEST_CONFIDENCE)
                judged.add(index, seen, self.face_detector.detect(image).xyxy)
                self.on_frame()
        late = [(index, coded.packets[index]) for index in watched]
        before = list(enumerate(coded.packets))[max(0, gap - 2 * period) : gap]
        bits = 8.0 * sum(map(len, coded.packets))
        height, width = clip.size
        row: Row = {"method": codec.name, "preset": codec.preset}
        row |= {"model_id": codec.model_id} if codec.model_id else {}
        row |= {
            "kbit_s": bits / clip.duration_s / 1e3,
            "bpp": bits / (len(coded.packets) * height * width),
            **judged.figures(),
            "encode_ms": float(np.mean(coded.encode_ms)),
            "delay_frames": coded.delay_frames + held,
        }
        for key, packets in (("late_joiner_s", late), ("lost_packet_s", [*before, *late[1:]])):
            shown = {
                index: image for index, image, _ in _decoded(codec.decoder(clip.size), packets)
            }
            row[key] = _wrong_frames(whole, shown) / clip.rate_hz
        return row


@dataclass(eq=False)
class _Judged:
    bench: FilmBench
    persons: list[Matches] = field(default_factory=list)
    faces: int = 0
    again: int = 0

    def add(self, index: int, seen: Detections, faces: np.ndarray) -> None:
        truth, known = self.bench._persons[index], self.bench._faces[index]
        self.persons.append(match(seen.xyxy, seen.score, truth, iou_threshold=IOU_THRESHOLD))
        self.faces += len(faces)
        if len(known) and len(faces):
            best = intersection_over_union(known, faces).max(axis=1)
            self.again += int((best >= SAME_FACE_IOU).sum())

    def figures(self) -> Row:
        score = average_precision(self.persons).ap
        return {
            "person_ap50": None if math.isnan(score) else score,
            "faces": self.faces,
            "faces_of_original": self.again,
        }


def encode_film(encoder: FilmEncoder, clip: Clip) -> Coded:
    """Code a film as it is filmed. Raises RoiCodecError where not every frame becomes a packet."""
    packets: list[bytes] = []
    times_ms: list[float] = []
    held = 0
    for index, image in enumerate(clip.images):
        started = time.perf_counter()
        ready = encoder.put(image, index / clip.rate_hz)
        times_ms.append(1e3 * (time.perf_counter() - started))
        packets += ready
        if ready:
            held = max(held, index - (len(packets) - len(ready)))
    rest = encoder.flush()
    if rest:
        held = max(held, len(clip.images) - len(packets))
    packets += rest
    if len(packets) != len(clip.images):
        raise RoiCodecError(
            f"expected a packet for each of {len(clip.images)} frames, found {len(packets)}"
        )
    return Coded(packets, times_ms, held)


def _decoded(
    decoder: FilmDecoder, packets: Sequence[tuple[int, bytes]]
) -> list[tuple[int, ImageArray, int]]:
    """Number of a frame, its picture, and the number of the packet that it was ready after."""
    shown = [
        (index, image, number)
        for number, data in packets
        for index, image in decoder.put(data, number)
    ]
    last = packets[-1][0] + 1 if packets else 0
    return shown + [(index, image, last) for index, image in decoder.flush()]


def _gap(clip: Clip, period: int) -> int:
    """Where packets go missing: about the middle of the film, halfway between two keyframes."""
    return min(len(clip.images) - 1, len(clip.images) // 2 // period * period + period // 2)


def _wrong_frames(whole: Mapping[int, ImageArray], shown: Mapping[int, ImageArray]) -> int:
    """Until when frames are missing or differ from those without a gap, in frames."""
    wrong = [
        place
        for place, index in enumerate(sorted(whole))
        if index not in shown or not _same(whole[index], shown[index])
    ]
    return wrong[-1] + 1 if wrong else 0


def _same(first: ImageArray, second: ImageArray) -> bool:
    height, width = (side // BLOCK_PX * BLOCK_PX for side in first.shape[:2])
    difference = np.abs(first.astype(np.int16) - second)[:height, :width].mean(axis=-1)
    blocks = difference.reshape(height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX)
    return bool((blocks.mean(axis=(1, 3)) <= SAME_WITHIN).all())


def format_film(rows: Sequence[Row]) -> str:
    """Plain text, one line a row."""
    header = ["", "kbit/s", "bpp", "persons AP50", "faces", "of the original's", "encode ms"]
    header += ["delay", "late joiner s", "lost packet s"]
    forms = {"kbit_s": ".1f", "bpp": ".4f", "person_ap50": ".3f", "faces": "d"}
    forms |= {"faces_of_original": "d", "encode_ms": ".1f", "delay_frames": "d"}
    forms |= {"late_joiner_s": ".1f", "lost_packet_s": ".1f"}
    return text_table(
        header,
        [[_name(row), *(number(row[key], form) for key, form in forms.items())] for row in rows],
    )


def _name(row: Row) -> str:
    return f"{row['method']} {row['preset'].removeprefix(row['method']).strip()}".strip()
