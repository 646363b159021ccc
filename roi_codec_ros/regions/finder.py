# SPDX-License-Identifier: Apache-2.0
"""Heads, faces and persons of a frame, and the model that finds them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import ModelFileError, RoiCodecError
from roi_codec_ros.common.graph_runtime import find_graph, open_graph, read_graph
from roi_codec_ros.regions.blocks import grid_size
from roi_codec_ros.regions.graph import (
    FACE_STRIDES,
    FACES_KEY,
    HEADS,
    MULTIPLE,
    PERSONS,
    faces_name,
)

METADATA_KEY = "roi_codec_regions"
DEFAULT_REGIONS, INT8_REGIONS = "regions", "regions-int8"

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Thresholds:
    """Minimum scores, 0 to 1, chosen on photographs that were held out of training.

    Attributes:
        face: a face whose head is hidden.
        head: a head block, which is hidden.
        doubtful_face, doubtful_head: a possible head that is not hidden, but coded more coarsely
            than a person.
        trace_of_head: a block that was hidden a moment ago stays hidden.
        person: a block of a person.
    """

    face: float = 0.2
    head: float = 0.9
    doubtful_face: float = 0.1
    doubtful_head: float = 0.85
    trace_of_head: float = 0.1
    person: float = 0.3

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            good = isinstance(value, (int, float)) and math.isfinite(value) and 0 < value <= 1
            if not good:
                raise ModelFileError(
                    f"expected a threshold {item.name} above 0 and at most 1, found {value!r}"
                )
        if self.doubtful_face > self.face or self.doubtful_head > self.head:
            raise ModelFileError(
                "expected thresholds of doubt no higher than those of certainty, found "
                f"{asdict(self)}"
            )


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces in pixels of the frame. xyxy: float32 [N, 4]; score: float32 [N], 0 to 1."""

    xyxy: FloatArray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    score: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class Regions:
    """Heads, persons and faces in one frame.

    Attributes:
        heads: float32 [⌈H / 16⌉, ⌈W / 16⌉], probability that a block is part of a head, or of the
            place where a head should be.
        persons: the same for persons.
        faces: every face above the doubtful threshold; boxes may overlap.
    """

    heads: FloatArray
    persons: FloatArray
    faces: Faces


class RegionGraph(Protocol):
    """The interface of a graph that a finder needs; see `common.graph_runtime.GraphRuntime`."""

    name: str
    where: str
    metadata: Mapping[str, str]

    def run(self, image: NDArray[np.uint8]) -> dict[str, np.ndarray]:
        """All outputs by name for a frame, uint8 [H, W, 3]. Raises RoiCodecError."""
        ...


class RegionFinder:
    """Runs a regions model on one frame at a time."""

    def __init__(
        self, maps: RegionGraph, faces: RegionGraph, *, small_faces: bool = False
    ) -> None:
        """maps, faces: the graphs of a regions file.

        Raises ModelFileError for any other. small_faces: `find` searches for faces at full
        resolution instead of half, which takes four times as long.
        """
        self._maps, self._of_faces = maps, faces
        self._small_faces = small_faces
        self.name = maps.name
        self.card = _read_card(maps.metadata.get(METADATA_KEY, ""), maps.where)
        self.thresholds = _read_thresholds(self.card, maps.where)

    def find(self, image: NDArray[np.uint8]) -> Regions:
        """Regions of a frame, uint8 [H, W, 3], RGB.

        Raises RoiCodecError if the networks return non-finite numbers: such a frame must not be
        sent.
        """
        half = halved(image)
        found = _finite(self._maps.run(half), self._maps.where)
        size = grid_size(image.shape[0], image.shape[1])
        maps = [found[name][: size[0], : size[1]] for name in (HEADS, PERSONS)]
        for name, plane in zip((HEADS, PERSONS), maps, strict=True):
            if plane.shape != size:
                raise RoiCodecError(
                    f"expected {name} of {size[0]}×{size[1]} blocks from {self._maps.where}, "
                    f"found {list(plane.shape)}"
                )
        if not self._small_faces:
            return Regions(*maps, self._faces(half))
        height, width = image.shape[:2]
        faces = self._faces(_bordered(image, -height % MULTIPLE, -width % MULTIPLE))
        return Regions(*maps, Faces(faces.xyxy / 2, faces.score))

    def find_faces(self, image: NDArray[np.uint8]) -> Regions:
        """A faster `find` for larger faces only; heads and persons are 0 everywhere."""
        nothing = np.zeros(grid_size(image.shape[0], image.shape[1]), np.float32)
        return Regions(nothing, nothing, self._faces(halved(image)))

    def _faces(self, seen: NDArray[np.uint8]) -> Faces:
        """Faces in an image at half the frame's size, in pixels of the frame."""
        found = _finite(self._of_faces.run(seen), self._of_faces.where)
        return _faces(found, self.thresholds.doubtful_face)


def _finite(found: Mapping[str, np.ndarray], where: str) -> Mapping[str, np.ndarray]:
    if not all(np.isfinite(output).all() for output in found.values()):
        raise RoiCodecError(
            f"expected finite numbers from {where}, found others: the frame cannot be judged"
        )
    return found


def halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The networks' input for a frame [H, W, 3]: half its size, with the border repeated.

    uint8 [h, w, 3], half of the sides rounded up to multiples of 32.
    """
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = _bordered(image, height % 2, width % 2)
    down, right = -(-height // 2), -(-width // 2)
    half = cv2.resize(image, (right, down), interpolation=cv2.INTER_AREA)
    return _bordered(np.asarray(half, np.uint8), -down % MULTIPLE, -right % MULTIPLE)


def _bordered(image: NDArray[np.uint8], below: int, right: int) -> NDArray[np.uint8]:
    if not (below or right):
        return image
    bordered = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(bordered, np.uint8)


def load_regions(
    model: str | Path = DEFAULT_REGIONS,
    *,
    backend: str = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
) -> RegionFinder:
    """Open a finder by the name or path of its file (`.onnx`).

    Args:
        backend: "onnxruntime" or "openvino".
        device, threads: as `common.graph_runtime.open_graph`.

    Raises:
        ModelFileError: there is no such file, or it is not a regions model.
        RoiCodecError: the backend or the device is not available.
    """
    path = find_graph(model)
    return open_regions(
        read_graph(path), where=str(path), backend=backend, device=device, threads=threads
    )


def open_regions(
    content: bytes,
    *,
    where: str,
    backend: str = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
    small_faces: bool = False,
) -> RegionFinder:
    """Open a finder from the content of its file; arguments and errors as for `load_regions`.

    small_faces: as for `RegionFinder`.
    """
    options: dict[str, Any] = {"backend": backend, "device": device, "threads": threads}
    maps = open_graph(content, where=where, metadata_keys=[METADATA_KEY, FACES_KEY], **options)
    try:
        faces = base64.b64decode(maps.metadata.get(FACES_KEY, ""), validate=True)
    except ValueError:
        faces = b""
    if not faces:
        raise ModelFileError(
            f"expected {where} to be a regions model with metadata {METADATA_KEY!r} and "
            f"{FACES_KEY!r}, found none"
        )
    of_faces = open_graph(faces, where=f"{where} ({FACES_KEY})", **options)
    return RegionFinder(maps, of_faces, small_faces=small_faces)


def _faces(found: Mapping[str, np.ndarray], least: float) -> Faces:
    boxes, scores = [], []
    for stride in FACE_STRIDES:
        plane = found[faces_name(stride)]
        rows, columns = np.nonzero(plane[0] >= least)
        scores.append(plane[0, rows, columns])
        boxes.append(face_boxes(plane[1:, rows, columns], rows, columns, stride))
    return Faces(np.concatenate(boxes), np.concatenate(scores))


def face_boxes(
    values: FloatArray, rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int
) -> FloatArray:
    """Boxes [N, 4] in pixels from YuNet's outputs [4, N] at the positions of a stride."""
    centre_x = (columns + values[0]) * stride
    centre_y = (rows + values[1]) * stride
    half_width, half_height = (np.exp(np.minimum(v, 20.0)) * stride / 2 for v in values[2:4])
    return np.stack(
        [
            centre_x - half_width,
            centre_y - half_height,
            centre_x + half_width,
            centre_y + half_height,
        ],
        axis=1,
    ).astype(np.float32)


def _read_card(text: str, where: str) -> Mapping[str, Any]:
    try:
        card = json.loads(text)
    except ValueError:
        card = None
    if not isinstance(card, dict):
        raise ModelFileError(
            f"expected {where} to be a regions model with metadata {METADATA_KEY!r}, found none"
        )
    return card


def _read_thresholds(card: Mapping[str, Any], where: str) -> Thresholds:
    given = card.get("thresholds")
    known = {item.name for item in fields(Thresholds)}
    if not isinstance(given, dict) or set(given) != known:
        raise ModelFileError(
            f"expected {where} to hold thresholds {', '.join(sorted(known))}; found {given!r}"
        )
    return Thresholds(**given)
