# SPDX-License-Identifier: Apache-2.0
"""Every method on every image, through one path, into one row of figures a method.

```
  image ──┬───────────────────────────────────────────┐ ("original", the first row)
          └► encode ─► bytes ─► decode ─► resize back ─┴► person detector ─► Matches with persons
                         │                            ├► face detector   ─► Matches with heads
                         └ bits, ms                   └► PSNR, whole and by region
```
An image counts in every row or in none: one that can't be read, or that breaks a codec or a
detector, is reported and left out of all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.errors import RoiCodecError, UsageError
from roi_codec_ros.evaluation.average_precision import Matches, average_precision, match
from roi_codec_ros.evaluation.faces import FaceDetector
from roi_codec_ros.evaluation.methods import Method
from roi_codec_ros.evaluation.pictures import read_annotated, resize, resize_annotation
from roi_codec_ros.evaluation.quality import REGIONS, psnr_db, region_masks, squared_error
from roi_codec_ros.perception.annotations import Annotation
from roi_codec_ros.perception.detections import Detections

ImageArray = NDArray[np.uint8]

IOU_THRESHOLD = 0.5
LOWEST_CONFIDENCE = 0.001
PAPER_CONFIDENCE = 0.25
HUMAN_MADE = "human"
ORIGINAL = "original"
RAW_BITS_PER_PIXEL = 24.0
PSNR_KEYS = ("image", *REGIONS)

Result = TypeVar("Result")


class PersonFinder(Protocol):
    """Finds persons in an RGB uint8 image [H, W, 3] down to a confidence; boxes in its pixels."""

    def detect(self, image: ImageArray, *, confidence: float) -> Detections: ...


@dataclass(frozen=True)
class EvaluationSettings:
    """How it is measured.

    repeats: timed runs of each codec on each image, besides an untimed one for each new size.
    plus_one: boxes inclusive of their last pixel, for parity with the paper's tool.
    resize: width and height in px that every image is stretched to first (the paper: 512 × 512),
    None to leave them as they are.
    """

    repeats: int = 1
    plus_one: bool = False
    resize: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError(f"expected at least one repeat, found {self.repeats}")
        if self.resize is not None and min(self.resize) < 1:
            raise UsageError(f"expected a size of at least 1 × 1 px, found {self.resize}")


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What one method made of one image.

    bits_per_pixel: of all bytes coded, by the pixels of the image given.
    psnr_db: by PSNR_KEYS; infinite where nothing was lost, None where there is no such region.
    encode_ms, decode_ms: one figure a repeat.
    persons: None where the image's person boxes are not human-made.
    """

    bits_per_pixel: float
    psnr_db: dict[str, float | None]
    encode_ms: tuple[float, ...]
    decode_ms: tuple[float, ...]
    persons: Matches | None
    faces: Matches


@dataclass(frozen=True)
class Failure:
    """An image that was left out, and why."""

    image: str
    reason: str

    def __str__(self) -> str:
        return f"{self.image}: {self.reason}"


@dataclass(frozen=True)
class Evaluation:
    """rows: the figures of the original images first, then of each method; JSON types only.

    images: how many were measured. person_images: those of them with human-made person boxes.
    """

    rows: list[dict[str, Any]]
    images: int
    person_images: int
    failures: list[Failure] = field(default_factory=list)


def evaluate(
    annotations: Iterable[Annotation],
    methods: Sequence[Method],
    person_detector: PersonFinder,
    face_detector: FaceDetector,
    settings: EvaluationSettings | None = None,
    *,
    on_image: Callable[[Annotation], None] | None = None,
) -> Evaluation:
    """Measure the original images and every method on them.

    on_image is called after each image, measured or not. Raises RoiCodecError where not a single
    image could be measured.
    """
    bench = _Bench(methods, person_detector, face_detector, settings or EvaluationSettings())
    results: list[list[ImageResult]] = [[] for _ in range(1 + len(methods))]
    failures: list[Failure] = []
    for annotation in annotations:
        # Codecs and detectors are plug-ins: whatever breaks one of them on one image (out of
        # memory, a bug on a tiny image) must cost that image only, and must be seen.
        try:
            measured = bench.measure(annotation)
        except Exception as error:  # noqa: BLE001
            failures.append(Failure(annotation.image_id, failure_reason(error)))
        else:
            for method_results, result in zip(results, measured, strict=True):
                method_results.append(result)
        if on_image is not None:
            on_image(annotation)
    originals = results[0]
    if not originals:
        found = "none"
        if failures:
            found = f"{len(failures)} that failed; the first is {failures[0]}"
        raise RoiCodecError(f"expected images to measure, found {found}")
    names: list[tuple[str, str, str | None]] = [(ORIGINAL, "", None)]
    names += [(method.name, method.preset, method.model_id) for method in methods]
    rows = [
        _row(name, preset, model_id, method_results)
        for (name, preset, model_id), method_results in zip(names, results, strict=True)
    ]
    for row in rows:
        _add_ratios(row, rows[0])
    return Evaluation(
        rows=rows,
        images=len(originals),
        person_images=sum(result.persons is not None for result in originals),
        failures=failures,
    )


def report(
    evaluation: Evaluation,
    *,
    dataset: str,
    split: str,
    machine: dict[str, Any],
    detector: str,
    face_detector: str,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """The evaluation as JSON: what was measured, on what, with what, and its rows."""
    return {
        "dataset": dataset,
        "split": split,
        "images": evaluation.images,
        "person_images": evaluation.person_images,
        "failures": [asdict(failure) for failure in evaluation.failures],
        "machine": machine,
        "detector": detector,
        "face_detector": face_detector,
        "settings": asdict(settings),
        "rows": evaluation.rows,
    }


class _Bench:
    """The codecs and detectors, set up once, and what they were warmed up for."""

    def __init__(
        self,
        methods: Sequence[Method],
        person_detector: PersonFinder,
        face_detector: FaceDetector,
        settings: EvaluationSettings,
    ) -> None:
        self._methods = methods
        self._persons = person_detector
        self._faces = face_detector
        self._settings = settings
        self._warm_shapes: set[tuple[int, ...]] = set()

    def measure(self, annotation: Annotation) -> list[ImageResult]:
        """The original's result, then each method's."""
        image = read_annotated(annotation)
        if self._settings.resize is not None:
            width, height = self._settings.resize
            image = resize(image, width, height)
            annotation = resize_annotation(annotation, width, height)
        scene = _Scene(annotation, image)
        results = [self._judge(scene, image, RAW_BITS_PER_PIXEL, (), ())]
        for method in self._methods:
            try:
                results.append(self._run(scene, method))
            except RoiCodecError as error:
                raise RoiCodecError(f"{method.name} {method.preset}: {error}") from error
        self._warm_shapes.add(image.shape)
        return results

    def _run(self, scene: _Scene, method: Method) -> ImageResult:
        image = scene.image
        if image.shape not in self._warm_shapes:
            method.decode(method.encode(image))
        repeats = self._settings.repeats
        data, encode_ms = _timed(lambda: method.encode(image), repeats)
        decoded, decode_ms = _timed(lambda: method.decode(data), repeats)
        height, width = image.shape[:2]
        bits_per_pixel = 8.0 * len(data) / (height * width)
        return self._judge(
            scene, resize(decoded, width, height), bits_per_pixel, encode_ms, decode_ms
        )

    def _judge(
        self,
        scene: _Scene,
        decoded: ImageArray,
        bits_per_pixel: float,
        encode_ms: tuple[float, ...],
        decode_ms: tuple[float, ...],
    ) -> ImageResult:
        annotation = scene.annotation
        persons = None
        if annotation.person_boxes == HUMAN_MADE:
            seen = self._persons.detect(decoded, confidence=LOWEST_CONFIDENCE)
            persons = self._match(seen, annotation.persons)
        return ImageResult(
            bits_per_pixel=bits_per_pixel,
            psnr_db=scene.psnr_db(decoded),
            encode_ms=encode_ms,
            decode_ms=decode_ms,
            persons=persons,
            faces=self._match(self._faces.detect(decoded), annotation.heads),
        )

    def _match(self, detections: Detections, truths: NDArray[np.float32]) -> Matches:
        return match(
            detections.xyxy,
            detections.score,
            truths,
            iou_threshold=IOU_THRESHOLD,
            plus_one=self._settings.plus_one,
        )


class _Scene:
    """An image with its boxes, and what is computed of it once for all methods."""

    def __init__(self, annotation: Annotation, image: ImageArray) -> None:
        self.annotation = annotation
        self.image = image
        self._masks = region_masks(annotation)

    def psnr_db(self, decoded: ImageArray) -> dict[str, float | None]:
        error = squared_error(decoded, self.image)
        regions = {name: psnr_db(error, mask) for name, mask in self._masks.items()}
        return {"image": psnr_db(error), **regions}


def _timed(work: Callable[[], Result], repeats: int) -> tuple[Result, tuple[float, ...]]:
    times_ms = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        times_ms.append(1e3 * (time.perf_counter() - started))
    return result, tuple(times_ms)


def _row(
    method: str, preset: str, model_id: str | None, results: Sequence[ImageResult]
) -> dict[str, Any]:
    bits = [result.bits_per_pixel for result in results]
    row: dict[str, Any] = {"method": method, "preset": preset}
    if model_id is not None:
        row["model_id"] = model_id
    row["bpp_mean"] = _mean(bits)
    row["bpp_std"] = _sample_std(bits)
    psnr = {key: _mean_psnr(results, key) for key in PSNR_KEYS}
    row["psnr_mean"] = psnr.pop("image")
    row["psnr_regions"] = psnr
    persons = [result.persons for result in results if result.persons is not None]
    faces = [result.faces for result in results]
    row |= _scores("person", persons, LOWEST_CONFIDENCE, "")
    row |= _scores("person", persons, PAPER_CONFIDENCE, "_conf025")
    row |= _scores("face", faces, LOWEST_CONFIDENCE, "")
    row |= _scores("face", faces, PAPER_CONFIDENCE, "_conf025")
    row["faces_found"] = sum(len(found.scores) for found in faces)
    row["encode_ms"] = _latency([ms for result in results for ms in result.encode_ms])
    row["decode_ms"] = _latency([ms for result in results for ms in result.decode_ms])
    return row


def _scores(
    kind: str, matches: Sequence[Matches], confidence: float, suffix: str
) -> dict[str, float | int | None]:
    score = average_precision(image.at_confidence(confidence) for image in matches)
    return {
        f"{kind}_ap50{suffix}": None if math.isnan(score.ap) else score.ap,
        f"{kind}_tp{suffix}": score.true_positives,
        f"{kind}_fp{suffix}": score.false_positives,
    }


def _add_ratios(row: dict[str, Any], original: dict[str, Any]) -> None:
    for ratio, key in (("person_ap50_ratio", "person_ap50"), ("faces_ratio", "faces_found")):
        row[ratio] = row[key] / original[key] if original[key] else None


def _latency(times_ms: Sequence[float]) -> dict[str, float | None]:
    """Pooled over images and repeats, as in the paper; std is the sample standard deviation."""
    return {
        "min": min(times_ms) if times_ms else None,
        "mean": _mean(times_ms),
        "std": _sample_std(times_ms),
    }


def _mean_psnr(results: Sequence[ImageResult], key: str) -> float | None:
    """Mean of the images' PSNR in dB.

    Leaves out images without the region, and lossless ones, which would make it infinite.
    """
    values = [value for result in results if (value := result.psnr_db[key]) is not None]
    return _mean([value for value in values if math.isfinite(value)])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _sample_std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def failure_reason(error: Exception) -> str:
    """One line; names the kind of errors that are not ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, RoiCodecError) else f"{type(error).__name__}: {text}"
