# SPDX-License-Identifier: Apache-2.0
"""The codecs and detectors, set up once, through which every image goes.

```
  image ──┬───────────────────────────────────────────┐ ("original", the first row)
          └► encode ─► bytes ─► decode ─► resize back ─┴► person detector ─► Matches with persons
                         │                            ├► face detector   ─► Matches with heads
                         └ bits, ms                   └► PSNR, MS-SSIM, whole and by region
```
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import failure_reason
from roi_codec_ros.lab.datasets.annotated_images import read_annotated, resize, resize_annotation
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.average_precision import Matches, average_precision, match
from roi_codec_ros.lab.evaluation.distortion import (
    PERSONS_SHOWN,
    ms_ssim,
    psnr_db,
    region_masks,
    squared_error,
)
from roi_codec_ros.lab.evaluation.methods import (
    Hides,
    Method,
    Prepares,
    row_name,
    synchronise,
)
from roi_codec_ros.lab.evaluation.results import (
    ORIGINAL_ROW,
    EvaluationSettings,
    Failure,
    ImageResult,
    RowName,
)
from roi_codec_ros.perception.detections import Detections, DetectsPersons
from roi_codec_ros.perception.face_detectors import FaceDetector

IOU_THRESHOLD = 0.5
LOWEST_CONFIDENCE = 0.001
HUMAN_MADE = "human"
RAW_BITS_PER_PIXEL = 24.0

Result = TypeVar("Result")


class Bench:
    """Measures images one at a time; row 0 is the original, row 1 the first method, and so on."""

    def __init__(
        self,
        methods: Sequence[Method],
        person_detector: DetectsPersons,
        face_detector: FaceDetector,
        settings: EvaluationSettings | None = None,
    ) -> None:
        self.methods = list(methods)
        self.person_detector = person_detector
        self.face_detector = face_detector
        self.settings = settings or EvaluationSettings()
        self._warm: set[tuple[int, tuple[int, ...]]] = set()

    @property
    def rows(self) -> list[RowName]:
        """Names of the rows: the originals, then each method."""
        return [ORIGINAL_ROW, *(row_name(method) for method in self.methods)]

    def measure(
        self, annotation: Annotation, wanted: Sequence[int] | None = None
    ) -> dict[int, ImageResult] | Failure:
        """The results of the rows `wanted` (all by default), or why the image is left out."""
        # Codecs and detectors are plug-ins: whatever breaks one of them on one image (out of
        # memory, a bug on a tiny image) must cost that image only, and must be seen.
        try:
            scene = self.scene(annotation)
            rows = range(len(self.rows)) if wanted is None else wanted
            return {row: self._measure_row(scene, row) for row in rows}
        except Exception as error:  # noqa: BLE001
            return Failure(annotation.image_id, failure_reason(error))

    def scene(self, annotation: Annotation) -> Scene:
        """The image as the codecs are given it. Raises RoiCodecError where it can't be read."""
        image = read_annotated(annotation)
        if self.settings.resize is not None:
            width, height = self.settings.resize
            image = resize(image, width, height)
            annotation = resize_annotation(annotation, width, height)
        return Scene(annotation, image)

    def _measure_row(self, scene: Scene, row: int) -> ImageResult:
        if row == 0:
            return self._judge(scene, scene.image, RAW_BITS_PER_PIXEL, (), ())
        method = self.methods[row - 1]
        try:
            return self._run(scene, method, (row, scene.image.shape))
        except RoiCodecError as error:
            raise RoiCodecError(f"{method.name} {method.preset}: {error}") from error

    def _run(
        self, scene: Scene, method: Method, warm_key: tuple[int, tuple[int, ...]]
    ) -> ImageResult:
        image = scene.image
        if isinstance(method, Prepares):
            image = method.prepared(image, scene.annotation)
        settings = self.settings
        if settings.timed and warm_key not in self._warm:
            method.decode(method.encode(image))
            self._warm.add(warm_key)
        repeats = settings.repeats if settings.timed else 1
        device = row_name(method).device
        data, encode_ms = _timed(lambda: method.encode(image), repeats, device)
        decoded, decode_ms = _timed(lambda: method.decode(data), repeats, device)
        height, width = image.shape[:2]
        return self._judge(
            scene,
            resize(decoded, width, height),
            8.0 * len(data) / (height * width),
            encode_ms if settings.timed else (),
            decode_ms if settings.timed else (),
            method.hidden(data) if isinstance(method, Hides) else None,
        )

    def _judge(
        self,
        scene: Scene,
        decoded: ImageArray,
        bits_per_pixel: float,
        encode_ms: tuple[float, ...],
        decode_ms: tuple[float, ...],
        hidden: NDArray[np.bool_] | None = None,
    ) -> ImageResult:
        annotation = scene.annotation
        persons = None
        if annotation.person_boxes == HUMAN_MADE:
            seen = self.person_detector.detect(decoded, confidence=LOWEST_CONFIDENCE)
            persons = self._match(seen, annotation.persons)
        return ImageResult(
            bits_per_pixel=bits_per_pixel,
            psnr_db=scene.psnr_db(decoded, hidden),
            ms_ssim=scene.ms_ssim(decoded),
            encode_ms=encode_ms,
            decode_ms=decode_ms,
            persons=persons,
            faces=self._match(self.face_detector.detect(decoded), annotation.heads),
        )

    def _match(self, detections: Detections, truths: NDArray[np.float32]) -> Matches:
        return match(
            detections.xyxy,
            detections.score,
            truths,
            iou_threshold=IOU_THRESHOLD,
            plus_one=self.settings.plus_one,
        )


class Scene:
    """An image with its boxes, and what is computed of it once for all methods."""

    def __init__(self, annotation: Annotation, image: ImageArray) -> None:
        self.annotation = annotation
        self.image = image
        self._masks = region_masks(annotation)

    def psnr_db(
        self, decoded: ImageArray, hidden: NDArray[np.bool_] | None = None
    ) -> dict[str, float | None]:
        """PSNR in dB of the whole image and of each region; None where it has no pixel.

        hidden: which pixels of the decoded image are hidden, before it was brought to this size;
        `PERSONS_SHOWN` are those of persons without heads that are not.
        """
        error = squared_error(decoded, self.image)
        regions = {name: psnr_db(error, mask) for name, mask in self._masks.items()}
        shown = self._masks["persons"]
        if hidden is not None:
            height, width = shown.shape
            shown = shown & ~cv2.resize(
                hidden.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
            ).astype(np.bool_)
        return {"image": psnr_db(error), **regions, PERSONS_SHOWN: psnr_db(error, shown)}

    def ms_ssim(self, decoded: ImageArray) -> dict[str, float | None]:
        """MS-SSIM of the whole image and of each region; None where it has no pixel."""
        return ms_ssim(decoded, self.image, self._masks)


def _timed(
    work: Callable[[], Result], repeats: int, device: str | None
) -> tuple[Result, tuple[float, ...]]:
    times_ms = []
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        result = work()
        synchronise(device)
        times_ms.append(1e3 * (time.perf_counter() - started))
    return result, tuple(times_ms)


def person_ap50(detector: DetectsPersons, images: Iterable[Annotation]) -> float:
    """AP at an IoU of 0.5, 0 to 1; NaN where there are no persons.

    Raises RoiCodecError for an image that can't be read or is not of the annotated size.
    """
    return average_precision(_matches(detector, annotation) for annotation in images).ap


def _matches(detector: DetectsPersons, annotation: Annotation) -> Matches:
    seen = detector.detect(read_annotated(annotation), confidence=LOWEST_CONFIDENCE)
    return match(seen.xyxy, seen.score, annotation.persons, iou_threshold=IOU_THRESHOLD)
