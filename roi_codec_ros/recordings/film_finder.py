# SPDX-License-Identifier: Apache-2.0
"""Regions of films: their faces in every frame, and all else a few times a second.

    frame ─┬─► faces of the model ────────────────────────────────► every frame
           └─► its heads and persons, or those of its 8-bit form ──► frames some time apart

Faces, which people are known by, are looked for with the model's own numbers. The other half of
the graph, which finds heads from behind and persons, takes as long again; its form in 8-bit
integers, where there is one beside the model and this processor runs it faster, takes half.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.graph_runtime import (
    GRAPH_SUFFIX,
    GraphRuntime,
    find_graph,
    open_graph,
    read_graph,
)
from roi_codec_ros.common.onnx_builder import require_onnx
from roi_codec_ros.regions import RegionFinder, Regions
from roi_codec_ros.regions.blocks import grid_size
from roi_codec_ros.regions.finder import METADATA_KEY
from roi_codec_ros.regions.graph import FACE_STRIDES, HEADS, PERSONS, faces_name

FACES = tuple(faces_name(stride) for stride in FACE_STRIDES)
MAPS = (HEADS, PERSONS)
INT8 = "-int8"  # ends the name of a model's 8-bit form
TIMED_SIZE = (720, 1280)
TIMED_RUNS = 3
MOST_APART = 0.1  # mean difference of a probability: a processor whose integers overflow has more

Outputs = dict[str, np.ndarray]


class FilmFinder(RegionFinder):
    """A finder that finds faces alone in half of its time."""

    def __init__(self, faces: GraphRuntime, maps: GraphRuntime | None) -> None:
        """faces, maps: the two parts of a model; maps: None where faces is the whole of it.

        Raises ModelFileError for any other.
        """
        super().__init__(_Both(faces, maps))
        self._faces_alone = RegionFinder(_FacesAlone(faces)) if maps is not None else None

    def find_faces(self, image: NDArray[np.uint8]) -> Regions:
        """As `find`, but heads and persons are 0 everywhere; all, where the model has no parts."""
        finder = self._faces_alone
        return finder.find(image) if finder is not None else self.find(image)


@dataclass(frozen=True)
class _Parts:
    faces: bytes
    maps: bytes | None


def film_finders(
    model: str | Path, *, backend: str = "onnxruntime", integers: bool = True
) -> Callable[[], FilmFinder]:
    """What makes a worker its own finder, which computes on one thread.

    integers: use the model's 8-bit form for heads and persons, where that is faster. Raises
    ModelFileError: there is no such file, or it is no regions model. RoiCodecError: the backend
    is not there.
    """
    path = find_graph(model)

    def opened(content: bytes) -> GraphRuntime:
        return open_graph(
            content, where=str(path), backend=backend, threads=1, metadata_keys=[METADATA_KEY]
        )

    content = read_graph(path)
    RegionFinder(opened(content))  # what is wrong with it is said at once
    parts = _parts(content)
    small = path.with_name(path.stem + INT8 + GRAPH_SUFFIX)
    if parts.maps is not None and integers and small.is_file():
        parts = _Parts(parts.faces, _faster(parts.maps, _part(read_graph(small), MAPS), opened))

    def finder() -> FilmFinder:
        return FilmFinder(opened(parts.faces), opened(parts.maps) if parts.maps else None)

    finder()
    return finder


class _Both:
    """The outputs of both parts, as of one graph."""

    def __init__(self, faces: GraphRuntime, maps: GraphRuntime | None) -> None:
        self.name, self.where, self.metadata = faces.name, faces.where, faces.metadata
        self._parts = [faces] if maps is None else [faces, maps]

    def run(self, image: NDArray[np.uint8]) -> Outputs:
        """All outputs by name. Raises RoiCodecError."""
        found: Outputs = {}
        for part in self._parts:
            found |= part.run(image)
        return found


class _FacesAlone:
    """The faces, and maps where nothing is."""

    def __init__(self, faces: GraphRuntime) -> None:
        self.name, self.where, self.metadata = faces.name, faces.where, faces.metadata
        self._faces = faces

    def run(self, image: NDArray[np.uint8]) -> Outputs:
        """All outputs by name. Raises RoiCodecError."""
        nothing = np.zeros(grid_size(*image.shape[:2]), np.float32)
        return self._faces.run(image) | dict.fromkeys(MAPS, nothing)


def _parts(content: bytes) -> _Parts:
    """A graph's two parts; the whole where the package that takes graphs apart is missing."""
    try:
        return _Parts(_part(content, FACES), _part(content, MAPS))
    except RoiCodecError:
        return _Parts(content, None)


def _part(content: bytes, outputs: Collection[str]) -> bytes:
    """The graph of some of the outputs, and of what they need. Raises RoiCodecError."""
    onnx = require_onnx()
    model = onnx.load_from_string(content)
    graph = model.graph
    needed, nodes = set(outputs), []
    for node in reversed(graph.node):  # a node stands behind those that it needs
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    kept = {
        "node": nodes[::-1],
        "initializer": [item for item in graph.initializer if item.name in needed],
        "output": [item for item in graph.output if item.name in outputs],
        "value_info": [],
    }
    for name, items in kept.items():
        held = [type(item).FromString(item.SerializeToString()) for item in items]
        graph.ClearField(name)
        getattr(graph, name).extend(held)
    return bytes(model.SerializeToString())


def _faster(exact: bytes, small: bytes, opened: Callable[[bytes], GraphRuntime]) -> bytes:
    """The one that takes less time here; the exact one where the other computes something else."""
    rows, columns = (np.arange(side, dtype=np.uint32) for side in TIMED_SIZE)
    ramps = [
        7 * rows[:, None] + 3 * columns,
        rows[:, None] * columns // 64,
        rows[:, None] + 0 * columns,
    ]
    image = np.stack(ramps, axis=-1).astype(np.uint8)
    seconds, found = [], []
    for content in (exact, small):
        graph = opened(content)
        found.append(graph.run(image))
        taken = []
        for _ in range(TIMED_RUNS):
            started = time.perf_counter()
            graph.run(image)
            taken.append(time.perf_counter() - started)
        seconds.append(min(taken))
    apart = max(float(np.abs(found[0][name] - found[1][name]).mean()) for name in MAPS)
    return small if seconds[1] < seconds[0] and apart <= MOST_APART else exact
