# SPDX-License-Identifier: Apache-2.0
"""Face detectors behind one small interface, made from specifications such as `yunet=PATH`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.errors import RoiCodecError, UsageError
from roi_codec_ros.evaluation.packages import optional
from roi_codec_ros.perception.detections import Detections

ImageArray = NDArray[np.uint8]

YUNET_SCORE_THRESHOLD = 0.6


class FaceDetector(Protocol):
    """Finds faces in an RGB uint8 image [H, W, 3]; boxes in its pixels, at its own threshold."""

    @property
    def name(self) -> str: ...

    def detect(self, image: ImageArray) -> Detections: ...


FaceDetectorFactory = Callable[["str | None", str], FaceDetector]
FACE_DETECTORS: dict[str, FaceDetectorFactory] = {}


def register_face_detector(name: str) -> Callable[[FaceDetectorFactory], FaceDetectorFactory]:
    """Offer a factory of (what stands after `=` or None, device) under `name`."""

    def register(factory: FaceDetectorFactory) -> FaceDetectorFactory:
        FACE_DETECTORS[name] = factory
        return factory

    return register


def make_face_detector(specification: str, *, device: str = "cpu") -> FaceDetector:
    """The detector that `name` or `name=argument` asks for.

    Raises UsageError for an unknown name or a missing argument, RoiCodecError where a package or a
    file is missing.
    """
    name, equals, argument = specification.partition("=")
    if name not in FACE_DETECTORS:
        known = ", ".join(FACE_DETECTORS)
        raise UsageError(f"expected a face detector of {known}, found {name!r}")
    return FACE_DETECTORS[name](argument if equals else None, device)


@register_face_detector("mtcnn")
class Mtcnn:
    """MTCNN of `facenet-pytorch` with its default thresholds: the paper's judge of anonymity."""

    name = "mtcnn"

    def __init__(self, argument: str | None = None, device: str = "cpu") -> None:
        if argument is not None:
            raise UsageError(f"expected mtcnn without an argument, found mtcnn={argument}")
        package = optional(
            "facenet_pytorch",
            needed_for="the face detector mtcnn",
            install="pip install --no-deps facenet-pytorch",
        )
        self._network: Any = package.MTCNN(keep_all=True, device=device)

    def detect(self, image: ImageArray) -> Detections:
        # Its image pyramid is empty, which it does not expect, where no face could fit.
        if min(image.shape[:2]) < self._network.min_face_size:
            return Detections.from_arrays([], [], image.shape[:2])
        boxes, scores = self._network.detect(image)
        if boxes is None:
            return Detections.from_arrays([], [], image.shape[:2])
        return Detections.from_arrays(boxes, scores, image.shape[:2])


@register_face_detector("yunet")
class YuNet:
    """YuNet by OpenCV (`cv2.FaceDetectorYN`).

    From a score of 0.6 on: OpenCV's own 0.9 overlooks most small faces, which would flatter a
    codec that is meant to hide them.
    """

    name = "yunet"

    def __init__(self, argument: str | None = None, device: str = "cpu") -> None:
        if not argument:
            raise UsageError("expected yunet=PATH with the path of its ONNX file, found no path")
        if not Path(argument).is_file():
            raise RoiCodecError(f"expected YuNet's ONNX file, found no file at {argument}")
        cv2 = optional(
            "cv2", needed_for="the face detector yunet", install="pip install opencv-python"
        )
        try:
            self._network: Any = cv2.FaceDetectorYN.create(
                argument, "", (32, 32), YUNET_SCORE_THRESHOLD
            )
        except cv2.error as error:
            reason = str(error).strip().splitlines()[-1]
            raise RoiCodecError(
                f"expected YuNet's network in {argument}, found: {reason}"
            ) from error

    def detect(self, image: ImageArray) -> Detections:
        height, width = image.shape[:2]
        self._network.setInputSize((width, height))
        _, faces = self._network.detect(np.ascontiguousarray(image[..., ::-1]))
        if faces is None:
            return Detections.from_arrays([], [], image.shape[:2])
        left_top, extent = faces[:, :2], faces[:, 2:4]
        corners = np.hstack([left_top, left_top + extent])
        return Detections.from_arrays(corners, faces[:, -1], (height, width))
