# SPDX-License-Identifier: Apache-2.0
"""The privacy audit: what face detectors, and the bits themselves, still give away.

```
  original ─┬──────────────────────────────────────────────► ceiling
            ├► JPEG at the model's own rate ───────────────► ceiling
            ├► heads filled with their mean colour ────────► floor   ─┐
            └► model ─► decoded ─┬───────────────────────────────────┼► every detector ─► union
                     │           ├► negative, gamma, contrast, … ────┤
                     ├───────────┴► trained attackers ───────────────┘
                     └► code length of the latents that can depend on a head
```
A face is counted wherever a detector reports one, right or wrong; a head is found where a report
overlaps its box. An image counts everywhere or nowhere, as in the evaluation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import failure_reason
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.methods import Method
from roi_codec_ros.lab.evaluation.results import Failure
from roi_codec_ros.lab.privacy.leakage import HeadBits, erase
from roi_codec_ros.lab.privacy.matching import BoxArray, found_by_any, unite
from roi_codec_ros.lab.privacy.region_recall import RegionJudge, RegionRecall
from roi_codec_ros.lab.privacy.versions import INVERSIONS, Attacker, Inversion, make_versions
from roi_codec_ros.perception.face_detectors import FaceDetector

SOURCES = ("original", "jpeg", "erased", "decoded")
PLAIN = "plain"
UNION = "union"
AGREED = "agreed"
ANY = "any"
BY_CHANCE = "by_chance"
HEAD_IOU = 0.2
HEAD_SIZE_EDGES_PX = (16, 24, 32, 48, 64, 96)
PICTURES = 4
LEAKED_HEADS = 12
SHOWN_HEADS = 10
SHOWN_HEAD_MARGIN = 0.35

NOT_PROTECTED = (
    "Who a person is by clothing, hair colour, gait, body shape or size, company or place.",
    "That a person is there, where, and what they do: that is what the pictures are for.",
    "Text, number plates, screens, badges, faces on posters: only heads of people are hidden.",
    "Heads as such: a detector of heads or persons still finds them.",
    "A head over many frames: this audit looks at single frames, and what each of them gives away "
    "adds up.",
    "Against attackers better than those tried here: a low count says what these detectors saw, "
    "not what is there to be seen.",
)


class Meter(Protocol):
    """Measures the bits that a codec spends on heads, boxes [N, 4] in px of the image."""

    def measure(self, image: ImageArray, heads: BoxArray) -> HeadBits:
        """The bits that can depend on each head of an image."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One image in all its versions, for the report's pictures.

    versions: by source; leaked: heads that some detector still finds in the decoded image.
    """

    image_id: str
    versions: dict[str, ImageArray]
    faces: dict[str, BoxArray]
    heads: BoxArray
    leaked: BoxArray


@dataclass(frozen=True, eq=False)
class ShownHead:
    """One head and its surroundings, cut out of the original and what became of it, by source."""

    size_px: float
    crops: dict[str, ImageArray]


@dataclass(eq=False)
class Audit:
    """What was counted.

    faces[source, inversion][detector], also of the union and of what two detectors agree on;
    found[source, inversion][detector][size of head]; heads[size of head];
    by_chance[source, inversion]: heads of the image before that the union would have found.
    head_errors[source]: mean squared error over each head, colours in [0, 1].
    shown_heads: the largest heads, for the attackers' pictures; none without attackers.
    regions: what a regions model hides; None for a codec without one.
    """

    images: int = 0
    heads: Counter[str] = field(default_factory=Counter)
    faces: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    found: dict[tuple[str, str], Counter[tuple[str, str]]] = field(default_factory=dict)
    by_chance: Counter[tuple[str, str]] = field(default_factory=Counter)
    chance_heads: int = 0
    bits: list[HeadBits] = field(default_factory=list)
    bits_per_pixel: dict[str, list[float]] = field(default_factory=dict)
    head_errors: dict[str, list[float]] = field(default_factory=dict)
    scenes: list[Scene] = field(default_factory=list)
    shown_heads: list[ShownHead] = field(default_factory=list)
    regions: RegionRecall | None = None
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Looked:
    """What was found in one version of one image: boxes by detector and, under `union`, by any.

    every: the boxes of each detector, in each version that counts.
    agreed: faces that two detectors or more saw; None if detectors are not counted separately.
    """

    boxes: dict[str, BoxArray]
    every: list[BoxArray]
    agreed: int | None = None

    def heads_found(self, name: str, heads: BoxArray) -> list[int]:
        """Which of the heads a detector found, or any for `union`."""
        seen = self.every if name == UNION else [self.boxes[name]]
        return found_by_any(heads, seen, iou_threshold=HEAD_IOU)


def audit(
    annotations: Iterable[Annotation],
    method: Method,
    detectors: Sequence[FaceDetector],
    meter: Meter,
    *,
    attackers: Sequence[Attacker] = (),
    regions: RegionJudge | None = None,
    inversions: Mapping[str, Inversion] | None = None,
    quick: bool = False,
    on_image: Callable[[Annotation], None] | None = None,
) -> Audit:
    """Audit `method` on images.

    attackers: whose restored images are searched too. regions: holds what is hidden against what
    is annotated. inversions: those to try, by name, with the negative; None: all.
    quick: try the inversions on decoded images only, not on the references.
    Raises RoiCodecError where not a single image could be measured.
    """
    result = Audit()
    previous: Annotation | None = None
    for annotation in annotations:
        # As in the evaluation: whatever breaks on one image costs that image, and is seen.
        try:
            measured = _Measured.make(
                annotation,
                method,
                detectors,
                meter,
                attackers,
                inversions=INVERSIONS if inversions is None else inversions,
                quick=quick,
            )
            if regions is not None:
                faces = measured.looked["original", PLAIN].boxes[UNION]
                regions.add(measured.versions["original"], annotation, faces)
        except Exception as error:  # noqa: BLE001
            result.failures.append(Failure(annotation.image_id, failure_reason(error)))
        else:
            _add(result, measured, previous)
            previous = annotation
        if on_image is not None:
            on_image(annotation)
    result.regions = regions.result if regions is not None else None
    if not result.images:
        found = "none"
        if result.failures:
            found = f"{len(result.failures)} that failed; the first is {result.failures[0]}"
        raise RoiCodecError(f"expected images to audit, found {found}")
    return result


@dataclass(frozen=True, eq=False)
class _Measured:
    annotation: Annotation
    versions: dict[str, ImageArray]
    looked: dict[tuple[str, str], _Looked]
    bits: HeadBits
    bits_per_pixel: dict[str, float]

    @classmethod
    def make(
        cls,
        annotation: Annotation,
        method: Method,
        detectors: Sequence[FaceDetector],
        meter: Meter,
        attackers: Sequence[Attacker],
        *,
        inversions: Mapping[str, Inversion],
        quick: bool,
    ) -> _Measured:
        image = read_annotated(annotation)
        height, width = image.shape[:2]
        made = make_versions(image, method, attackers)
        versions = {**made.pictures, "erased": erase(image, annotation.heads)}
        looked = {}
        for source, picture in versions.items():
            looked[source, PLAIN] = _look(picture, detectors, (height, width))
            if source == "decoded" or (source in SOURCES and not quick):
                for name, inversion in inversions.items():
                    looked[source, name] = _look(inversion(picture), detectors, (height, width))
                parts = [seen for (where, _), seen in looked.items() if where == source]
                union = unite([seen.boxes[UNION] for seen in parts]).xyxy
                every = [boxes for seen in parts for boxes in seen.every]
                looked[source, ANY] = _Looked({UNION: union}, every)
        pixels = height * width
        return cls(
            annotation=annotation,
            versions=versions,
            looked=looked,
            bits=meter.measure(image, annotation.heads),
            bits_per_pixel={
                "decoded": 8.0 * made.coded_bytes / pixels,
                "jpeg": 8.0 * made.jpeg_bytes / pixels,
            },
        )


def _look(image: ImageArray, detectors: Sequence[FaceDetector], size: tuple[int, int]) -> _Looked:
    boxes = {detector.name: detector.detect(image).scale_to(size).xyxy for detector in detectors}
    union = unite(list(boxes.values()))
    agreed = int((union.votes > 1).sum())
    return _Looked({**boxes, UNION: union.xyxy}, list(boxes.values()), agreed)


def _add(result: Audit, measured: _Measured, previous: Annotation | None) -> None:
    annotation = measured.annotation
    sizes = [head_size_bin(head) for head in annotation.heads]
    result.images += 1
    result.heads.update(sizes)
    result.bits.append(measured.bits)
    for name, rate in measured.bits_per_pixel.items():
        result.bits_per_pixel.setdefault(name, []).append(rate)
    chance = np.zeros((0, 4), np.float32)
    if previous is not None:
        scale = [annotation.width / previous.width, annotation.height / previous.height] * 2
        chance = (previous.heads * np.array(scale)).astype(np.float32)
    result.chance_heads += len(chance)
    for key, looked in measured.looked.items():
        faces = result.faces.setdefault(key, Counter())
        found = result.found.setdefault(key, Counter())
        for name, boxes in looked.boxes.items():
            faces[name] += len(boxes)
            for head in looked.heads_found(name, annotation.heads):
                found[name, sizes[head]] += 1
        if looked.agreed is not None:
            faces[AGREED] += looked.agreed
        result.by_chance[key] += len(looked.heads_found(UNION, chance))
    for source, picture in measured.versions.items():
        errors = result.head_errors.setdefault(source, [])
        errors += _head_errors(measured.versions["original"], picture, annotation.heads)
    _keep_scene(result.scenes, measured)
    _keep_heads(result.shown_heads, measured)


def _head_errors(original: ImageArray, picture: ImageArray, heads: BoxArray) -> list[float]:
    errors = []
    for x0, y0, x1, y1 in heads:
        inside = np.s_[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
        difference = (original[inside].astype(np.float32) - picture[inside]) / 255.0
        if difference.size:
            errors.append(float(np.square(difference).mean()))
    return errors


def _keep_scene(scenes: list[Scene], measured: _Measured) -> None:
    """Keep the scenes that look worst for the codec: most heads found, then most faces before."""
    faces = {
        "original": measured.looked["original", PLAIN].boxes[UNION],
        "jpeg": measured.looked["jpeg", PLAIN].boxes[UNION],
        "decoded": measured.looked["decoded", PLAIN].boxes[UNION],
        "negated": measured.looked["decoded", "negated"].boxes[UNION],
    }
    heads = measured.annotation.heads
    leaked = heads[measured.looked["decoded", PLAIN].heads_found(UNION, heads)]
    versions = {
        **{name: measured.versions[name] for name in ("original", "jpeg", "decoded")},
        "negated": INVERSIONS["negated"](measured.versions["decoded"]),
    }
    scenes.append(Scene(measured.annotation.image_id, versions, faces, heads, leaked))
    scenes.sort(key=lambda scene: (-len(scene.leaked), -len(scene.faces["original"])))
    del scenes[PICTURES:]


def _keep_heads(shown: list[ShownHead], measured: _Measured) -> None:
    restored = [source for source in measured.versions if source not in SOURCES]
    if not restored:
        return
    height, width = measured.versions["original"].shape[:2]
    for head in measured.annotation.heads:
        centre, half = (head[:2] + head[2:]) / 2, float((head[2:] - head[:2]).max())
        half *= 0.5 + SHOWN_HEAD_MARGIN
        left, top = (max(0, math.floor(value - half)) for value in centre)
        right, bottom = (
            min(side, math.ceil(value + half))
            for side, value in zip((width, height), centre, strict=True)
        )
        crops = {
            source: measured.versions[source][top:bottom, left:right].copy()
            for source in ("original", "decoded", *restored)
        }
        shown.append(ShownHead(_head_size(head), crops))
    shown.sort(key=lambda one: -one.size_px)
    del shown[SHOWN_HEADS:]


def _head_size(head: NDArray[np.float32]) -> float:
    return math.sqrt(max(0.0, float((head[2] - head[0]) * (head[3] - head[1]))))


def head_size_bin(head: NDArray[np.float32]) -> str:
    """The name of the bin of a head's size in px, which is the root of its box's area."""
    size = _head_size(head)
    for low, high in pairwise((0, *HEAD_SIZE_EDGES_PX)):
        if size < high:
            return f"{low}-{high}"
    return f"{HEAD_SIZE_EDGES_PX[-1]}+"


def head_size_bins() -> list[str]:
    """All names of bins, smallest heads first."""
    edges = (0, *HEAD_SIZE_EDGES_PX)
    return [f"{low}-{high}" for low, high in pairwise(edges)] + [f"{edges[-1]}+"]
