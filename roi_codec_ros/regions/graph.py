# SPDX-License-Identifier: Apache-2.0
"""The regions networks as ONNX graphs, built from their weights.

    image uint8 [h, w, 3] ─┬─► trunk, pyramid ─► heads, persons
                           └─► YuNet ──────────► faces_16, faces_32, faces_64

Both take the frame at half its size, padded to multiples of 32 (`finder.halved`).
``heads`` and ``persons`` are float32 [h / 8, w / 8], probabilities of blocks of 16 pixels of the
frame; ``faces_s`` float32 [5, ., .] at stride s of the frame: the score (0 to 1) and YuNet's four
numbers of the box (`finder.face_boxes`). There are two graphs, since streams run the trunk less
often; the file is the trunk's graph, and its metadata hold the other. They are built by name from
NumPy arrays, which requires onnx but not torch. Weights may be stored in 16 bits; computation is
in 32.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.common.onnx_builder import GraphBuilder, Value, make_model, require_onnx

if TYPE_CHECKING:
    import onnx

IMAGE, HEADS, PERSONS = "image", "heads", "persons"
FACES_KEY = "roi_codec_faces"  # metadata key of the graph of faces
FACE_STRIDES = (16, 32, 64)  # in pixels of the frame
MULTIPLE = 32  # padding multiple of the halved frame
LEAK = 0.1  # slope of the trunk's activations below zero

# For BGR pixels, 0 to 255, as in NanoDet's training. Both networks expect that order; the graphs
# take RGB and have the weights of their first layers reversed instead of the pixels.
MEAN = (103.53, 116.28, 123.675)
DEVIATION = (57.375, 57.12, 58.395)
GREY = 114  # padding value beyond the border: near the mean, and a byte

Weights = Mapping[str, np.ndarray]


def faces_name(stride: int) -> str:
    """Name of the output with the faces of a stride."""
    return f"faces_{stride}"


def build_graph(
    weights: Weights, metadata: Mapping[str, str], *, half: bool = True
) -> onnx.ModelProto:
    """Build the float32 graph of heads and persons, with that of faces in its metadata.

    Args:
        weights: float arrays by name: ``map.…`` of `network.RegionNetwork`, ``face.…`` of YuNet
            as `yunet_weights` reads them.
        metadata: texts for the file's metadata.
        half: store weights in 16 bits; those of faces always are.

    Raises:
        RoiCodecError: onnx is not installed. KeyError: a weight is missing.
    """
    stored = stored_weights(weights)
    faces = base64.b64encode(_faces_graph(stored).SerializeToString()).decode("ascii")
    graph = GraphBuilder(stored, half=half)
    _block_maps(graph, _pixels(graph))
    return make_model(
        graph,
        "regions",
        inputs=[_FRAME],
        outputs=[(name, np.float32, ["rows", "columns"]) for name in (HEADS, PERSONS)],
        metadata={**metadata, FACES_KEY: faces},
    )


def _faces_graph(stored: Weights) -> onnx.ModelProto:
    graph = GraphBuilder(stored, half=True)
    _faces(graph, _pixels(graph))
    return make_model(
        graph,
        "faces",
        inputs=[_FRAME],
        outputs=[
            (faces_name(s), np.float32, [5, f"rows_{s}", f"columns_{s}"]) for s in FACE_STRIDES
        ],
        metadata={},
    )


_FRAME: Value = (IMAGE, np.uint8, ["height", "width", 3])


def stored_weights(weights: Weights) -> dict[str, np.ndarray]:
    """The weights as stored in graphs: first layers take RGB, not BGR, and are named for it.

    The trunk's also takes bytes minus `GREY` instead of normalised pixels.
    """
    stored = dict(weights)
    for name in ("map.stem", "face.stem"):
        part = name.split(".")[0]
        kernel = np.flip(stored.pop(f"{name}.weight"), 1)
        bias = stored.pop(f"{name}.bias")
        if part == "map":
            kernel = kernel / _DEVIATION
            bias = bias + (kernel * _OFFSET).sum(axis=(1, 2, 3))
        stored[f"{part}.byte_stem.weight"] = np.ascontiguousarray(kernel, np.float32)
        stored[f"{part}.byte_stem.bias"] = bias.astype(np.float32)
    return stored


def trained_weights(stored: Weights) -> dict[str, np.ndarray]:
    """The inverse of `stored_weights`. Raises KeyError for other weights."""
    weights = dict(stored)
    for part in ("map", "face"):
        kernel = weights.pop(f"{part}.byte_stem.weight")
        bias = weights.pop(f"{part}.byte_stem.bias")
        if part == "map":
            bias = bias - (kernel * _OFFSET).sum(axis=(1, 2, 3))
            kernel = kernel * _DEVIATION
        weights[f"{part}.stem.weight"] = np.ascontiguousarray(np.flip(kernel, 1), np.float32)
        weights[f"{part}.stem.bias"] = bias.astype(np.float32)
    return weights


_DEVIATION = np.array(DEVIATION[::-1], np.float32)[:, None, None]
_OFFSET = GREY - np.array(MEAN[::-1], np.float32)[:, None, None]


def _pixels(graph: GraphBuilder) -> str:
    """The frame as float32 [1, 3, h, w], RGB, 0 to 255."""
    planes = graph.node("Transpose", IMAGE, perm=[2, 0, 1])  # pad bytes: faster than floats
    return graph.node("Unsqueeze", graph.node("Cast", planes, to=1), graph.constant([0]))


def _block_maps(graph: GraphBuilder, rgb: str) -> None:
    x = graph.node("Sub", rgb, graph.constant(np.float32(GREY)))
    x = graph.layer(x, "map.byte_stem", stride=2, padding=1)
    x = graph.node("LeakyRelu", x, alpha=LEAK)

    def layer(x: str, name: str, stride: int = 1, active: bool = True) -> str:
        padding = graph.weight(f"{name}.weight").shape[-1] // 2
        y = graph.layer(x, name, stride=stride, padding=padding)
        return graph.node("LeakyRelu", y, alpha=LEAK) if active else y

    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    scales: list[str] = []
    for stage in range(4):
        x = _stage(graph, layer, x, f"map.stages.{stage}", stride=1 if stage == 0 else 2)
        scales.append(x)
    top = None
    for level in (2, 1, 0):
        lateral = layer(scales[level + 1], f"map.laterals.{level}", active=False)
        top = (
            lateral if top is None else graph.node("Add", lateral, _enlarged(graph, top, lateral))
        )
    assert top is not None
    logits = layer(layer(top, "map.neck"), "map.output", active=False)
    both = graph.node("Sigmoid", logits)
    for index, name in enumerate((HEADS, PERSONS)):
        plane = graph.node("Gather", both, graph.constant(np.array(index)), axis=1)
        graph.node("Squeeze", plane, graph.constant([0]), output=name)


def _stage(graph: GraphBuilder, layer, x: str, name: str, stride: int) -> str:  # type: ignore[no-untyped-def]
    first = layer(x, f"{name}.first", stride=stride)
    y, pair = first, 0
    while graph.has(f"{name}.pairs.{pair}.0.weight"):
        inner = layer(y, f"{name}.pairs.{pair}.0")
        y = graph.node("Concat", layer(inner, f"{name}.pairs.{pair}.1"), inner, axis=1)
        pair += 1
    return graph.node("Concat", layer(y, f"{name}.last"), first, axis=1)


def _enlarged(graph: GraphBuilder, x: str, like: str) -> str:
    """``x`` resized to the size of ``like``, bilinear."""
    batch = graph.node("Slice", graph.node("Shape", x), graph.constant([0]), graph.constant([2]))
    size = graph.node("Slice", graph.node("Shape", like), graph.constant([2]), graph.constant([4]))
    target = graph.node("Concat", batch, size, axis=0)
    return graph.node(
        "Resize",
        x,
        "",
        "",
        target,
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


# ------------------------------------------------------------------------------------------ YuNet


def _faces(graph: GraphBuilder, rgb: str) -> None:
    """YuNet (Wu et al., A tiny millisecond-level face detector, 2023), without its landmarks."""

    def unit(x: str, name: str, active: bool = True) -> str:
        """A 1×1 convolution and a depthwise 3×3 one."""
        x = graph.layer(x, f"{name}.point")
        depth = graph.weight(f"{name}.depth.weight")
        x = graph.layer(x, f"{name}.depth", padding=1, group=len(depth))
        return graph.node("Relu", x) if active else x

    x = graph.node("Relu", graph.layer(rgb, "face.byte_stem", stride=2, padding=1))
    x = unit(x, "face.stem_unit")

    def halved(x: str) -> str:
        return graph.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    scales: list[str] = []
    x = halved(x)
    for stage in range(1, 6):
        for part in range(2):
            x = unit(x, f"face.stages.{stage}.{part}")
        if stage >= 3:
            scales.append(x)
        if 2 <= stage <= 4:
            x = halved(x)
    twice = graph.constant(np.array([1, 1, 2, 2], np.float32))
    seen: dict[int, str] = {}
    top = None
    for level in (2, 1, 0):
        given = scales[level]
        if top is not None:
            doubled = graph.node(
                "Resize",
                top,
                "",
                twice,
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
            given = graph.node("Add", given, doubled)
        top = unit(given, f"face.laterals.{level}")
        seen[level] = top
    for level, stride in enumerate(FACE_STRIDES):
        x = unit(seen[level], f"face.shared.{level}")
        score = graph.node(
            "Mul",
            graph.node("Sigmoid", unit(x, f"face.class.{level}", active=False)),
            graph.node("Sigmoid", unit(x, f"face.object.{level}", active=False)),
        )
        box = unit(x, f"face.box.{level}", active=False)
        both = graph.node("Concat", graph.node("Sqrt", score), box, axis=1)
        graph.node("Squeeze", both, graph.constant([0]), output=faces_name(stride))


def yunet_weights(content: bytes) -> dict[str, np.ndarray]:
    """The weights of a published YuNet ONNX file under our names: ``face.….weight`` and ``.bias``.

    Its convolutions are in the order of execution: stem, stages, laterals from coarse to fine,
    then heads. Raises ValueError for a graph with another structure.
    """
    onnx = require_onnx()
    graph = onnx.load_from_string(content).graph
    arrays = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    layers = [node for node in graph.node if node.op_type == "Conv"]
    names = ["face.stem", *_unit_names("face.stem_unit")]
    for stage in range(1, 6):
        for part in range(2):
            names += _unit_names(f"face.stages.{stage}.{part}")
    for level in (2, 1, 0):
        names += _unit_names(f"face.laterals.{level}")
    for kind in ("shared", "class", "box", "object"):
        for level in range(3):
            names += _unit_names(f"face.{kind}.{level}")
    if len(layers) < len(names):
        raise ValueError(f"expected {len(names)} convolutions, found {len(layers)}")
    weights: dict[str, np.ndarray] = {}
    for name, node in zip(names, layers, strict=False):
        weights[f"{name}.weight"] = arrays[node.input[1]]
        weights[f"{name}.bias"] = arrays[node.input[2]]
    return weights


def _unit_names(name: str) -> list[str]:
    return [f"{name}.point", f"{name}.depth"]
