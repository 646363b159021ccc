# SPDX-License-Identifier: Apache-2.0
"""The privacy audit: what face detectors, and the bits themselves, still give away.

```
  original ─┬──────────────────────────────────────────────► ceiling
            ├► JPEG at the model's own rate ───────────────► ceiling
            ├► heads filled with their mean colour ────────► floor   ─┐
            └► model ─► decoded ─┬───────────────────────────────────┼► every detector ─► union
                     │           └► negative, gamma, contrast, … ────┘
                     └► code length of the latents that can depend on a head
```
A face is counted wherever a detector reports one, right or wrong; a head is found where a report
overlaps its box. An image counts everywhere or nowhere, as in the evaluation.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.evaluation.bench import failure_reason
from roi_codec_ros.evaluation.inversions import INVERSIONS
from roi_codec_ros.evaluation.leakage import HeadBits, erase, fano_table
from roi_codec_ros.evaluation.matching import BoxArray, pair_up, unite
from roi_codec_ros.evaluation.methods import Method
from roi_codec_ros.evaluation.pictures import read_annotated, resize
from roi_codec_ros.evaluation.results import Failure
from roi_codec_ros.perception.annotations import Annotation
from roi_codec_ros.perception.faces import FaceDetector

ImageArray = NDArray[np.uint8]

SOURCES = ("original", "jpeg", "erased", "decoded")
PLAIN = "plain"
UNION = "union"
AGREED = "agreed"
ANY = "any"
BY_CHANCE = "by_chance"
HEAD_IOU = 0.2
HEAD_SIZE_EDGES_PX = (16, 24, 32, 48, 64, 96)
JPEG_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
JPEG_QUALITIES = range(1, 96)
PICTURES = 4
LEAKED_HEADS = 12

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

    def measure(self, image: ImageArray, heads: BoxArray) -> HeadBits: ...


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


@dataclass(eq=False)
class Audit:
    """What was counted.

    faces[source, inversion][detector], also of the union and of what two detectors agree on;
    found[source, inversion][detector][size of head]; heads[size of head];
    by_chance[source, inversion]: heads of the image before that the union would have found.
    """

    images: int = 0
    heads: Counter[str] = field(default_factory=Counter)
    faces: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    found: dict[tuple[str, str], Counter[tuple[str, str]]] = field(default_factory=dict)
    by_chance: Counter[tuple[str, str]] = field(default_factory=Counter)
    chance_heads: int = 0
    bits: list[HeadBits] = field(default_factory=list)
    bits_per_pixel: dict[str, list[float]] = field(default_factory=dict)
    scenes: list[Scene] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Looked:
    """What was found in one version of one image: boxes by detector and, under `union`, by any.

    agreed: faces that two detectors or more saw; None where detectors are not told apart.
    """

    boxes: dict[str, BoxArray]
    agreed: int | None = None


def audit(
    annotations: Iterable[Annotation],
    method: Method,
    detectors: Sequence[FaceDetector],
    meter: Meter,
    *,
    quick: bool = False,
    on_image: Callable[[Annotation], None] | None = None,
) -> Audit:
    """Audit `method` on images.

    quick: try the inversions on decoded images only, not on what they are held against.
    Raises RoiCodecError where not a single image could be measured.
    """
    result = Audit()
    previous: Annotation | None = None
    for annotation in annotations:
        # As in the evaluation: whatever breaks on one image costs that image, and is seen.
        try:
            measured = _Measured.make(annotation, method, detectors, meter, quick=quick)
        except Exception as error:  # noqa: BLE001
            result.failures.append(Failure(annotation.image_id, failure_reason(error)))
        else:
            _add(result, measured, previous)
            previous = annotation
        if on_image is not None:
            on_image(annotation)
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
        *,
        quick: bool,
    ) -> _Measured:
        image = read_annotated(annotation)
        height, width = image.shape[:2]
        data = method.encode(image)
        jpeg, jpeg_bytes = jpeg_at_rate(image, len(data))
        versions = {
            "original": image,
            "jpeg": jpeg,
            "erased": erase(image, annotation.heads),
            "decoded": resize(method.decode(data), width, height),
        }
        looked = {}
        for source, picture in versions.items():
            looked[source, PLAIN] = _look(picture, detectors, (height, width))
            if source == "decoded" or not quick:
                for name, inversion in INVERSIONS.items():
                    looked[source, name] = _look(inversion(picture), detectors, (height, width))
                every = [
                    seen.boxes[UNION] for (where, _), seen in looked.items() if where == source
                ]
                looked[source, ANY] = _Looked({UNION: unite(every).xyxy})
        pixels = height * width
        return cls(
            annotation=annotation,
            versions=versions,
            looked=looked,
            bits=meter.measure(image, annotation.heads),
            bits_per_pixel={
                "decoded": 8.0 * len(data) / pixels,
                "jpeg": 8.0 * jpeg_bytes / pixels,
            },
        )


def _look(image: ImageArray, detectors: Sequence[FaceDetector], size: tuple[int, int]) -> _Looked:
    boxes = {detector.name: detector.detect(image).scale_to(size).xyxy for detector in detectors}
    union = unite(list(boxes.values()))
    return _Looked({**boxes, UNION: union.xyxy}, int((union.votes > 1).sum()))


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
            for head in _heads_found(annotation.heads, boxes):
                found[name, sizes[head]] += 1
        if looked.agreed is not None:
            faces[AGREED] += looked.agreed
        result.by_chance[key] += len(_heads_found(chance, looked.boxes[UNION]))
    _keep_scene(result.scenes, measured)


def _heads_found(heads: BoxArray, faces: BoxArray) -> list[int]:
    return [head for head, _ in pair_up(heads, faces, iou_threshold=HEAD_IOU)]


def _keep_scene(scenes: list[Scene], measured: _Measured) -> None:
    """Keep the scenes that look worst for the codec: most heads found, then most faces before."""
    faces = {
        "original": measured.looked["original", PLAIN].boxes[UNION],
        "jpeg": measured.looked["jpeg", PLAIN].boxes[UNION],
        "decoded": measured.looked["decoded", PLAIN].boxes[UNION],
        "negated": measured.looked["decoded", "negated"].boxes[UNION],
    }
    heads = measured.annotation.heads
    leaked = heads[_heads_found(heads, faces["decoded"])]
    versions = {
        **{name: measured.versions[name] for name in ("original", "jpeg", "decoded")},
        "negated": INVERSIONS["negated"](measured.versions["decoded"]),
    }
    scenes.append(Scene(measured.annotation.image_id, versions, faces, heads, leaked))
    scenes.sort(key=lambda scene: (-len(scene.leaked), -len(scene.faces["original"])))
    del scenes[PICTURES:]


def head_size_bin(head: NDArray[np.float32]) -> str:
    """The name of the bin of a head's size in px, which is the root of its box's area."""
    size = math.sqrt(max(0.0, float((head[2] - head[0]) * (head[3] - head[1]))))
    for low, high in pairwise((0, *HEAD_SIZE_EDGES_PX)):
        if size < high:
            return f"{low}-{high}"
    return f"{HEAD_SIZE_EDGES_PX[-1]}+"


def head_size_bins() -> list[str]:
    """All names of bins, smallest heads first."""
    edges = (0, *HEAD_SIZE_EDGES_PX)
    return [f"{low}-{high}" for low, high in pairwise(edges)] + [f"{edges[-1]}+"]


def jpeg_at_rate(image: ImageArray, limit_bytes: int) -> tuple[ImageArray, int]:
    """The best that JPEG makes of an image in `limit_bytes`, and the bytes it took.

    At such rates that is seldom the full size: of some sizes, each at its highest quality that
    fits, the one of the least squared error. Where none fits, the smallest file there is.
    """
    height, width = image.shape[:2]
    best: tuple[float, ImageArray, int] | None = None
    smallest: tuple[ImageArray, int] | None = None
    for scale in JPEG_SCALES:
        shrunk = resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
        low, high = 0, len(JPEG_QUALITIES)  # qualities before `low` fit, from `high` on none does
        fitting = b""
        while low < high:
            middle = (low + high) // 2
            data = _jpeg(shrunk, JPEG_QUALITIES[middle])
            if len(data) <= limit_bytes:
                low, fitting = middle + 1, data
            else:
                high = middle
        if not fitting:
            data = _jpeg(shrunk, JPEG_QUALITIES[0])
            smallest = (_from_jpeg(data, width, height), len(data))
            continue
        decoded = _from_jpeg(fitting, width, height)
        error = float(np.square(decoded.astype(np.float32) - image).mean())
        if best is None or error < best[0]:
            best = (error, decoded, len(fitting))
    if best is not None:
        return best[1], best[2]
    assert smallest is not None
    return smallest


def _jpeg(image: ImageArray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0", optimize=True
    )
    return buffer.getvalue()


def _from_jpeg(data: bytes, width: int, height: int) -> ImageArray:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return resize(np.array(picture.convert("RGB")), width, height)


def audit_report(result: Audit, detectors: Sequence[str], **about: Any) -> dict[str, Any]:
    """The audit as JSON. `about`: what was audited on what, first in the report."""
    names = [*detectors, UNION]
    columns = _columns(result)
    counts = {
        name: {
            column: result.faces[key][name]
            for column, key in columns.items()
            if name in result.faces[key]
        }
        for name in [*names, AGREED]
    }
    return {
        **about,
        "images": result.images,
        "failures": [{"image": f.image, "reason": f.reason} for f in result.failures],
        "bits_per_pixel": {
            name: float(np.mean(rates)) for name, rates in result.bits_per_pixel.items()
        },
        "detectors": {name: counts[name] for name in detectors},
        "union": counts[UNION],
        "agreed_by_two": counts[AGREED],
        "heads": _heads_report(result, names, columns),
        "same_inversions_on": {
            source: {
                inversion: {name: result.faces[key][name] for name in names if name in faces}
                for key, faces in result.faces.items()
                for where, inversion in [key]
                if where == source and inversion != PLAIN
            }
            for source in SOURCES
            if source != "decoded" and (source, ANY) in result.faces
        },
        "bits_per_head": _bits_report(result.bits),
        "not_protected": list(NOT_PROTECTED),
    }


def _columns(result: Audit) -> dict[str, tuple[str, str]]:
    """What is counted in the main table: the sources, then the inversions of decoded images."""
    sources = {source: (source, PLAIN) for source in SOURCES}
    inversions = {name: ("decoded", name) for name in (*INVERSIONS, ANY)}
    return {name: key for name, key in (sources | inversions).items() if key in result.faces}


def _heads_report(
    result: Audit, names: Sequence[str], columns: dict[str, tuple[str, str]]
) -> dict[str, Any]:
    sizes = head_size_bins()
    return {
        "annotated": sum(result.heads.values()),
        "annotated_by_size_px": {size: result.heads[size] for size in sizes},
        "found": {
            name: {
                column: sum(result.found[key][name, size] for size in sizes)
                for column, key in columns.items()
                if name in result.faces[key]
            }
            for name in names
        },
        "found_by_size_px": {
            name: {
                column: {size: result.found[key][name, size] for size in sizes}
                for column, key in columns.items()
                if name in result.faces[key]
            }
            for name in names
        },
        BY_CHANCE: {
            "heads": result.chance_heads,
            **{column: result.by_chance[key] for column, key in columns.items()},
        },
    }


def _bits_report(measured: Sequence[HeadBits]) -> dict[str, Any]:
    touching = [bits for image in measured for bits in image.touching]
    if not touching:
        return {"heads": 0, "median": None, "p95": None}
    own = [bits for image in measured for bits in image.own]
    changed = [bits for image in measured for bits in image.changed]
    mean = float(np.mean(touching))
    return {
        **_spread(touching),
        "mean": mean,
        "heads": len(touching),
        "own_blocks": _spread(own),
        "changed": {**_spread(changed), "heads": len(changed)},
        "fano": fano_table(mean),
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "p95": None}
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}
