# SPDX-License-Identifier: Apache-2.0
"""Person detection with a detector graph, and the choice of the fastest backend.

weights (.pt) ─┬─► torch: ultralytics
               └─► float32 graph, built on first use, or shipped beside the weights
                   int8 graph, shipped beside the weights (`roi-codec export --detector`)
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.graph_choice import (
    AUTO,
    GRAPH_CHOICES,
    INT8,
    SELF_TEST_KEY,
    TORCH,
    check_server_backend,
    fastest,
)
from roi_codec_ros.common.graph_runtime import GRAPH_SUFFIX, read_graph
from roi_codec_ros.common.graph_sessions import GraphSession, open_session
from roi_codec_ros.common.graph_store import in_folders, open_cached, open_of
from roi_codec_ros.common.images import Picture
from roi_codec_ros.perception.boxes import persons_in
from roi_codec_ros.perception.detector_graph import (
    DETECTOR_KEY,
    GRAPH_VERSION,
    PLANES,
    build_detector_graph,
)
from roi_codec_ros.perception.letterbox import Letterbox
from roi_codec_ros.perception.person_detector import PersonDetector, detector_weights
from roi_codec_ros.perception.person_finder import Found, PersonFinder

if TYPE_CHECKING:
    import onnx

TIMED_SIZE = (384, 640)  # of 640×360, letterboxed


class GraphDetector(PersonFinder):
    """A detector graph in one of the runtimes."""

    def __init__(
        self,
        weights: str | os.PathLike[str],
        name: str,
        session: GraphSession,
        *,
        image_size: int = 640,
    ) -> None:
        """name: of `graph_choice.GRAPH_CHOICES`. session: of a `detector_graph`."""
        super().__init__(weights, image_size)
        self.name = name
        self._session = session
        self._lock = threading.Lock()
        self._input = np.zeros((0, 3, 0, 0), np.float32)

    def _search(
        self, given: Sequence[tuple[Picture, Letterbox]], confidence: float, iou: float
    ) -> list[Found]:
        with self._lock:  # the input buffer is reused by every call
            shape = (len(given), 3, *given[0][1].outer_size)
            if self._input.shape != shape:
                self._input = np.zeros(shape, np.float32)
            for planes, (picture, box) in zip(self._input, given, strict=True):
                box.fill(planes, picture)
            outputs = self._session.run({PLANES: self._input})
        return [persons_in(outputs, index, confidence, iou) for index in range(len(given))]


def open_detector(
    weights: str | os.PathLike[str],
    backend: str = AUTO,
    *,
    device: str = "cpu",
    threads: int | None = None,
    image_size: int = 640,
) -> PersonFinder:
    """Open a person detector by its weights (see `find_weights`).

    Args:
        weights: YOLO weights (`.pt`), or a graph exported from them by `roi-codec export`
            (`.onnx`).
        backend: one of SERVER_BACKENDS; "auto": the fastest available one that passes a self-test,
            else torch.
        device: "cpu", "cuda", "cuda:1", or another device name of the backend.
        threads: CPU threads; None lets the runtime choose.

    Raises:
        UsageError: unknown backend. RoiCodecError: the backend or the device is not available, or
            the weights cannot be used. ModelFileError: the weights have no graph.
    """
    check_server_backend(backend)
    path = Path(weights)
    if path.suffix == GRAPH_SUFFIX:
        int8 = path.stem.endswith(INT8)
        names = [name for name in GRAPH_CHOICES if name.endswith(INT8) == int8]
        if backend not in (AUTO, *names):
            raise UsageError(
                f"expected a backend among {AUTO}, {', '.join(names)} for {path}, "
                f"found {backend!r}"
            )
        opener = partial(_open_file, path, device, threads)
    else:
        # int8 is for CPUs; on a GPU it would fall back to the CPU
        names = [n for n in GRAPH_CHOICES if device == "cpu" or not n.endswith(INT8)]
        opener = partial(_open_made, path, device, threads)
    if backend == AUTO:
        openers: dict[str, Callable[[], GraphSession]] = {n: partial(opener, n) for n in names}
        timed = {PLANES: [1, 3, *TIMED_SIZE]}
        if chosen := fastest(openers, timed, what=f"persons by {path.name}"):
            return GraphDetector(path, *chosen, image_size=image_size)
        backend = names[0] if path.suffix == GRAPH_SUFFIX else TORCH  # which raises the error
    if backend == TORCH:
        return PersonDetector(path, device=device, threads=threads, image_size=image_size)
    return GraphDetector(path, backend, opener(backend), image_size=image_size)


def make_detector_graph(weights: Path, *, bounded: bool = False) -> onnx.ModelProto:
    """The float32 graph of YOLOv8 weights, `bounded` as of `build_detector_graph`.

    Raises RoiCodecError without ultralytics and onnx.
    """
    arrays, persons = detector_weights(weights)
    metadata = {DETECTOR_KEY: weights_identity(weights)}
    return build_detector_graph(arrays, persons, metadata, bounded=bounded)


def weights_identity(weights: Path) -> str:
    """SHA-256 of a file of weights, in hexadecimal."""
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _open_file(path: Path, device: str, threads: int | None, backend: str) -> GraphSession:
    return open_session(
        read_graph(path),
        where=str(path),
        backend=backend.removesuffix(INT8),
        device=device,
        threads=threads,
        metadata_keys=[DETECTOR_KEY, SELF_TEST_KEY],
    )


def _open_made(weights: Path, device: str, threads: int | None, backend: str) -> GraphSession:
    """A session of the graph beside the weights, else of one built from them."""
    identity = weights_identity(weights)

    def opened(content: bytes, where: str = f"the graph of {weights}") -> GraphSession:
        return open_of(
            content,
            where,
            DETECTOR_KEY,
            identity,
            backend=backend.removesuffix(INT8),
            device=device,
            threads=threads,
        )

    if backend.endswith(INT8):
        path = in_folders(f"{weights.stem}{INT8}", [weights.parent])
        return opened(read_graph(path), str(path))
    name = f"detector-{identity[:32]}-{GRAPH_VERSION}"
    return open_cached(name, lambda: make_detector_graph(weights).SerializeToString(), opened)
