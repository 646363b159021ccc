# SPDX-License-Identifier: Apache-2.0
"""Person detection with YOLOv8. The only module that imports ultralytics (AGPL-3.0, an optional
extra).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.graph_choice import TORCH
from roi_codec_ros.common.graph_store import cache_folder
from roi_codec_ros.common.images import Picture, as_image
from roi_codec_ros.perception.letterbox import Letterbox
from roi_codec_ros.perception.person_finder import Found, PersonFinder

WEIGHTS_PATTERN, GRAPH_PATTERN = "person-*.pt", "person-*.onnx"
FETCHED_WEIGHTS = "yolov8n.pt"
PERSON_CLASS = "person"
APOSTROPHE = "'"  # ultralytics removes it from paths of weights


class PersonDetector(PersonFinder):
    """Detects persons in RGB images with any ultralytics detection weights with a class "person".

    weights: path of a weights file (`find_weights` looks for one). device: torch device.
    threads: CPU threads of the whole process; None lets torch choose.
    Raises RoiCodecError if ultralytics is not installed or the weights cannot be used.
    """

    name = TORCH

    def __init__(
        self,
        weights: str | os.PathLike[str],
        *,
        device: str = "cpu",
        threads: int | None = None,
        image_size: int = 640,
    ) -> None:
        super().__init__(weights, image_size)
        self.device = device
        self._network = load_network(self.weights)
        torch_device(device)
        if threads:
            import torch

            torch.set_num_threads(threads)
        self._person_classes = _person_classes(self._network.names, self.weights)
        self._lock = threading.Lock()
        # The first image takes seconds of set-up: do it now rather than while a frame waits.
        self.detect(np.zeros((64, 64, 3), np.uint8))

    def _search(
        self, given: Sequence[tuple[Picture, Letterbox]], confidence: float, iou: float
    ) -> list[Found]:
        # ultralytics takes NumPy images as BGR, as OpenCV reads them.
        inputs = [
            np.ascontiguousarray(box.apply(as_image(picture))[:, :, ::-1])
            for picture, box in given
        ]
        results = self._predict(inputs, confidence, iou, max(given[0][1].outer_size))
        return [
            (result.boxes.xyxy.cpu().numpy(), result.boxes.conf.cpu().numpy())
            for result in results
        ]

    def _predict(
        self, inputs: list[NDArray[np.uint8]], confidence: float, iou: float, longest: int
    ) -> Any:
        with self._lock:  # its predictor keeps per-call state
            return self._network.predict(
                inputs,
                conf=confidence,
                iou=iou,
                imgsz=longest,
                classes=self._person_classes,
                device=self.device,
                verbose=False,
            )


def feature_pyramid(weights: str | os.PathLike[str], layers: Sequence[int]) -> Any:
    """A `torch.nn.Module` from images [B, 3, H, W] to the outputs of some layers of a YOLOv8.

    For losses on detector features; layers after the last of `layers` are left out.
    Raises RoiCodecError if ultralytics is not installed, or the weights cannot be used or have
    no such layers.
    """
    from torch import Tensor, nn

    yolo = load_network(Path(weights))
    detector: Any = yolo.model
    network = list(detector.model.children())
    last = max(layers)
    if last >= len(network):
        raise RoiCodecError(f"expected more than {last} layers in {weights}, found {len(network)}")
    persons = _person_classes(yolo.names, Path(weights))

    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.ModuleList(network[: last + 1])
            self.detect = network[-1]
            self.whole = [detector]  # the same modules and those left out; none of this one

        def forward(self, x: Tensor) -> list[Tensor]:
            outputs: list[Tensor] = []
            for layer in self.network:
                came_from: Any = layer.f  # an index, or several; -1 is the layer before
                several = isinstance(came_from, list)
                given = [
                    x if index == -1 else outputs[index]
                    for index in (came_from if several else [came_from])
                ]
                x = layer(given if several else given[0])
                outputs.append(x)
            return [outputs[index] for index in layers]

        def predictions(self, features: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
            """Outputs of the detection head for the last layers in `layers`, one pair per stride:
            logits of a person [B, 1, h, w], and logits of the box side distances [B, 4 * bins, h,
            w].


            """
            head: Any = self.detect
            given = features[-len(head.cv3) :]
            return [
                (classes(f)[:, persons].amax(dim=1, keepdim=True), sides(f))
                for f, sides, classes in zip(given, head.cv2, head.cv3, strict=True)
            ]

    return Pyramid()


def box_assigner(places: int) -> Any:
    """A `torch.nn.Module` that chooses which places learn a box, for losses.

    ultralytics' task-aligned assigner for one class; places: at most so many for each box. Raises
    RoiCodecError if ultralytics is not installed.
    """
    tal = _ultralytics().utils.tal
    return tal.TaskAlignedAssigner(topk=places, num_classes=1, alpha=0.5, beta=6.0)


def detector_weights(weights: Path) -> tuple[dict[str, np.ndarray], list[int]]:
    """Input of `detector_graph`: arrays by name, normalisation folded, and the person classes.

    Raises RoiCodecError if ultralytics is not installed or the weights cannot be used.
    """
    yolo = load_network(weights)
    persons = _person_classes(yolo.names, weights)
    network: Any = yolo.model
    fused = network.float().eval().fuse(verbose=False)
    return {name: values.numpy() for name, values in fused.state_dict().items()}, persons


def find_weights(weights: str = "", model_dirs: Sequence[Path] = ()) -> Path:
    """The weights file to use: an explicit path, else a model directory's, else ultralytics' own.

    weights: explicit path; empty to search. model_dirs: folders searched for "person-*.pt",
    else "person-*.onnx".
    Raises RoiCodecError, with instructions, if there is none.
    """
    if weights:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise RoiCodecError(f"expected YOLO weights at {path}, found no such file")
        return path
    for folder in model_dirs:
        found = sorted(folder.glob(WEIGHTS_PATTERN))
        found = found or sorted(folder.glob(GRAPH_PATTERN))
        if found:
            return found[0]
    return _fetch()


def _fetch() -> Path:
    """Have ultralytics download its small general weights into the user's cache, once."""
    path = cache_folder() / FETCHED_WEIGHTS
    if path.is_file():
        return path
    attempt_download_asset = _ultralytics().utils.downloads.attempt_download_asset
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetched = Path(attempt_download_asset(str(path)))
    except Exception as error:  # any error of its network stack means the same to the user
        raise RoiCodecError(_how_to_get_weights(reason_of(error, most=160))) from error
    if not fetched.is_file():
        raise RoiCodecError(_how_to_get_weights("nothing was fetched"))
    return fetched


def _how_to_get_weights(reason: str) -> str:
    return (
        f"no person weights: {FETCHED_WEIGHTS} could not be fetched ({reason}); put YOLO weights "
        f"with a class named {PERSON_CLASS} into models/{WEIGHTS_PATTERN.replace('*', 'NAME')}, "
        "or name a file by the weights parameter (roi-codec demo: --detector FILE)"
    )


def _ultralytics() -> Any:
    # It must neither install packages by itself nor write its banner into the log.
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    try:
        import ultralytics
        import ultralytics.utils.downloads
        import ultralytics.utils.tal
    except ImportError as error:
        raise RoiCodecError(
            f"finding persons needs ultralytics ({reason_of(error, most=160)}): "
            "pip install ultralytics"
        ) from error
    return ultralytics


def load_network(weights: Path) -> Any:
    """The ultralytics YOLO of a weights file; RoiCodecError if it cannot be loaded."""
    ultralytics = _ultralytics()
    if not weights.is_file():
        raise RoiCodecError(f"expected YOLO weights at {weights}, found no such file")
    try:
        with _path_that_is_found(weights) as path:
            return ultralytics.YOLO(str(path), task="detect")
    except Exception as error:  # torch and pickle raise a dozen kinds for a damaged file
        raise RoiCodecError(
            f"expected YOLO weights in {weights}, found {reason_of(error, most=160)}"
        ) from error


@contextlib.contextmanager
def _path_that_is_found(weights: Path) -> Iterator[Path]:
    """A path to the same file without apostrophes."""
    if APOSTROPHE not in str(weights):
        yield weights
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"weights{weights.suffix}"
        link.symlink_to(weights.resolve())
        yield link


def _person_classes(names: dict[int, str], weights: Path) -> list[int]:
    classes = [index for index, name in names.items() if name.strip().lower() == PERSON_CLASS]
    if not classes:
        known = ", ".join(list(names.values())[:5])
        raise RoiCodecError(
            f"expected a class named {PERSON_CLASS} in {weights}, found {known or 'no classes'}"
        )
    return classes
