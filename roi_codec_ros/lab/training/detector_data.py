# SPDX-License-Identifier: Apache-2.0
"""Photographs and what a codec makes of them, side by side, as a detector learns from them.

    photograph ─► encode ─► decode ─► decoded-<codec>/*.png, once
        └─────────────┬────────────────┘
                      ▼
              crops of the same place

What the file of an image is called says what it was made of, so that what is there is used again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import read_photograph
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation, BoxArray
from roi_codec_ros.lab.training.box_loss import CropBoxes
from roi_codec_ros.lab.training.settings import number

HUMAN_MADE = "human"
UNKNOWN = "none"  # without person annotations: usable for training, not for evaluation
PADDING_GREY = 114  # what YOLO pads its images with
LEAST_SHARE = 0.35  # of a person's box in a crop, for the person to be looked for there
HELD_OUT_SHARE = 0.06
MOST_HELD_OUT = 100
_RECIPE = b"as shown"  # how files become pixels; what was made otherwise is made again


@dataclass(frozen=True, eq=False)
class Division:
    """The photographs to train on, and those held out to judge the training."""

    train: tuple[Annotation, ...]
    held_out: tuple[Annotation, ...]


@dataclass
class Written:
    """Images on disk, in the order given: (annotation, file).

    made: how many had to be made; the rest were there. failures: image id and reason of those that
    could not be made.
    """

    images: list[tuple[Annotation, Path]] = field(default_factory=list)
    made: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


def divide(annotations: Sequence[Annotation], limit: int | None = None) -> Division:
    """Hold a part of the photographs out: 6 % of them, at least one and no more than 100.

    Human-made boxes are held out before machine-made ones, and those whose persons nobody has
    marked never. Which ones depends on their names alone. limit: only so many photographs, spread
    evenly. Raises RoiCodecError for fewer than two photographs, or none to judge by.
    """
    items = list(annotations)
    if limit is not None and limit < len(items):
        chosen = np.linspace(0, len(items) - 1, limit).round().astype(int)
        items = [items[index] for index in chosen]
    known = [item for item in items if item.person_boxes != UNKNOWN]
    if len(items) < 2 or not known:
        raise RoiCodecError(
            "expected at least two photographs, one of them with person boxes to judge by; found "
            f"{len(items)}, {len(known)} of them with boxes"
        )
    ranked = sorted(known, key=lambda item: (item.person_boxes != HUMAN_MADE, _name_digest(item)))
    count = min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(items))), len(items) - 1)
    human = sum(item.person_boxes == HUMAN_MADE for item in known)
    held_out = ranked[: min(count, human) if human else count]
    names = {id(item) for item in held_out}
    return Division(tuple(item for item in items if id(item) not in names), tuple(held_out))


def by_turns(
    annotations: Sequence[Annotation], values: Sequence[float]
) -> dict[float, list[Annotation]]:
    """Photographs by one of the values each, chosen by their names."""
    chosen: dict[float, list[Annotation]] = {}
    for item in annotations:
        index = int.from_bytes(_name_digest(item)[:4], "big") % len(values)
        chosen.setdefault(values[index], []).append(item)
    return chosen


def write_images(
    annotations: Iterable[Annotation],
    folder: Path,
    make: Callable[[Annotation], ImageArray],
    *,
    on_image: Callable[[], None] = lambda: None,
) -> Written:
    """Each photograph as ``make`` gives it, RGB [H, W, 3], in ``folder``.

    A photograph that is there already, with the same content, is not made again. One for which
    ``make`` raises RoiCodecError is left out. Raises RoiCodecError where nothing can be written.
    on_image is called after each.
    """
    written = Written()
    for annotation in annotations:
        try:
            name = annotation.image_id.replace("/", "__")
            path = folder / f"{name}-{_content_digest(annotation)}.png"
            if not path.is_file():
                _write(path, _png(make(annotation)))
                written.made += 1
        except _NotWrittenError as error:
            raise RoiCodecError(str(error)) from error
        except RoiCodecError as error:
            written.failures.append((annotation.image_id, str(error)))
        else:
            written.images.append((annotation, path))
        on_image()
    return written


# --------------------------------------------------------------------------------------- batches


@dataclass(frozen=True)
class PairCrops:
    """How crops are drawn.

    Attributes:
        size: of a crop in px, a multiple of 32.
        longest_px: of a photograph's longer side at zoom 1, as a detector is given it.
        min_zoom, max_zoom: within which a photograph is scaled, evenly drawn.
        originals: share of crops that the student is given undecoded, so that it does not forget
            what a clear picture looks like.
    """

    size: int = number(416, 32, 4096)
    longest_px: int = number(640, 32, 4096)
    min_zoom: float = number(0.75, 0.1, 4.0)
    max_zoom: float = number(1.35, 0.1, 4.0)
    originals: float = number(0.15, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class PairBatch:
    """One step's crops.

    originals, decoded: uint8 [B, S, S, 3], of photographs, and of what was made of them. boxes:
    what is annotated in each.
    """

    originals: ImageArray
    decoded: ImageArray
    boxes: tuple[CropBoxes, ...]


class PairBatches:
    """Draws batches; the same seed and number give the same batch."""

    def __init__(self, pairs: Sequence[tuple[Annotation, Path]], crops: PairCrops) -> None:
        self._pairs, self._crops = list(pairs), crops

    def __len__(self) -> int:
        return len(self._pairs)

    def batch(self, size: int, rng: np.random.Generator) -> PairBatch:
        """``size`` crops, drawn with ``rng``. Raises RoiCodecError for files that are gone."""
        drawn = [self._one(rng) for _ in range(size)]
        originals, decoded, boxes = zip(*drawn, strict=True)
        return PairBatch(np.stack(originals), np.stack(decoded), boxes)

    def _one(self, rng: np.random.Generator) -> tuple[ImageArray, ImageArray, CropBoxes]:
        annotation, path = self._pairs[rng.integers(len(self._pairs))]
        crops = self._crops
        original = read_annotated(annotation)
        clear = rng.random() < crops.originals
        decoded = original if clear else read_photograph(path)
        zoom = rng.uniform(crops.min_zoom, crops.max_zoom)
        scale = zoom * crops.longest_px / max(original.shape[:2])
        height, width = (max(1, round(side * scale)) for side in original.shape[:2])
        top = int(rng.integers(max(1, height - crops.size + 1)))
        left = int(rng.integers(max(1, width - crops.size + 1)))
        mirrored = rng.random() < 0.5

        def cut(image: ImageArray) -> ImageArray:
            scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            part = scaled[top : top + crops.size, left : left + crops.size]
            whole = np.full((crops.size, crops.size, 3), PADDING_GREY, np.uint8)
            whole[: part.shape[0], : part.shape[1]] = part
            return whole[:, ::-1] if mirrored else whole

        def moved(boxes: BoxArray) -> BoxArray:
            share = [width / annotation.width, height / annotation.height] * 2
            there = boxes * share - np.array([left, top] * 2)
            if mirrored:
                there = there[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + np.array([size, 0] * 2)
            return np.asarray(there, np.float32)

        size = crops.size
        boxes = _in_crop(
            moved(annotation.persons) if annotation.person_boxes == HUMAN_MADE else None,
            moved(annotation.ignored),
            size,
        )
        return cut(original), cut(decoded), boxes


def _in_crop(persons: BoxArray | None, ignored: BoxArray, size: int) -> CropBoxes:
    """What of boxes lies in a crop; persons of whom little does count as ignored."""

    def clipped(boxes: BoxArray) -> tuple[BoxArray, NDArray[np.float32]]:
        inside = boxes.clip(0, size)
        areas = [np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (inside, boxes)]
        return inside, areas[0] / np.maximum(areas[1], 1e-6)

    rest = clipped(ignored)[0]
    if persons is None:
        return CropBoxes(None, rest)
    inside, share = clipped(persons)
    kept = share >= LEAST_SHARE
    partly = inside[(share > 0) & ~kept]
    return CropBoxes(inside[kept], np.concatenate([rest, partly]))


class _NotWrittenError(RoiCodecError):
    """The disk, not the image, is at fault."""


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise _NotWrittenError(f"cannot write {path}: {reason_of(error)}") from error


def _png(image: ImageArray) -> bytes:
    # Without loss: what the detector learns from is what it will be given. Little effort is spent
    # on size, since the files are read far more often than they are carried.
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def _name_digest(annotation: Annotation) -> bytes:
    return hashlib.sha256(annotation.image_id.encode()).digest()


def _content_digest(annotation: Annotation) -> str:
    """Of all that the made image depends on besides the codec and its quality."""
    try:
        digest = hashlib.sha256(_RECIPE + annotation.image_path.read_bytes())
    except OSError as error:
        raise RoiCodecError(f"expected an image, found: {reason_of(error)}") from error
    return digest.hexdigest()[:16]
