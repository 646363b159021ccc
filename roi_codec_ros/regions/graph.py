# SPDX-License-Identifier: Apache-2.0
"""The regions networks as one ONNX graph, from their weights.

    image uint8 [H, W, 3] ─► pad to 32 ─┬─► YuNet ──────────────────► faces_8, faces_16, faces_32
                                        └─► mean of 2×2 ─► trunk, pyramid ─► heads, persons

``heads`` and ``persons`` are float32 [⌈H / 16⌉, ⌈W / 16⌉], probabilities; ``faces_s`` float32
[5, h, w] at stride s: the score (0 to 1) and YuNet's four numbers of the box
(`finder.face_boxes`). Built by name from NumPy arrays, it needs onnx and no torch. Weights may
be stored in 16 bits, and are computed with in 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.common.onnx_builder import GraphBuilder, make_model, require_onnx

if TYPE_CHECKING:
    import onnx

IMAGE, HEADS, PERSONS = "image", "heads", "persons"
FACE_STRIDES = (8, 16, 32)
MULTIPLE = 32  # of which the padded sides are
LEAK = 0.1  # slope of the trunk's activations below zero

# Of BGR pixels, 0 to 255, as NanoDet was trained. Both networks know colours in that order; the
# graph takes RGB and turns the weights of their first layers round instead of the pixels.
MEAN = (103.53, 116.28, 123.675)
DEVIATION = (57.375, 57.12, 58.395)

Weights = Mapping[str, np.ndarray]


def faces_name(stride: int) -> str:
    """The output that holds the faces of a stride."""
    return f"faces_{stride}"


def build_graph(
    weights: Weights, metadata: Mapping[str, str], *, half: bool = True
) -> onnx.ModelProto:
    """The float32 graph.

    Args:
        weights: float arrays by name: ``map.…`` of `network.RegionNetwork`, ``face.…`` of YuNet
            as `yunet_weights` reads them.
        metadata: texts that the file carries.
        half: store weights in 16 bits.

    Raises:
        RoiCodecError: onnx is not installed. KeyError: a weight is missing.
    """
    graph = GraphBuilder(with_turned_stems(weights), half=half)
    pixels = graph.node("Cast", _padded(graph), to=1)
    rgb = graph.node(
        "Unsqueeze", graph.node("Transpose", pixels, perm=[2, 0, 1]), graph.constant([0])
    )
    _block_maps(graph, rgb)
    _faces(graph, rgb)
    outputs: list[tuple[str, list[int | str]]] = [
        (HEADS, ["rows", "columns"]),
        (PERSONS, ["rows", "columns"]),
        *((faces_name(s), [5, f"rows_{s}", f"columns_{s}"]) for s in FACE_STRIDES),
    ]
    return make_model(
        graph,
        "regions",
        inputs=[(IMAGE, np.uint8, ["height", "width", 3])],
        outputs=[(name, np.float32, shape) for name, shape in outputs],
        metadata=metadata,
    )


def with_turned_stems(weights: Weights) -> dict[str, np.ndarray]:
    """The weights with first layers that take colours in the other order, and are named for it.

    ``….stem`` takes BGR, ``….rgb_stem`` RGB; each becomes the other.
    """
    turned = {}
    for name, value in weights.items():
        part, _, rest = name.partition(".")
        layer, _, kind = rest.partition(".")
        if layer in ("stem", "rgb_stem"):
            layer = "rgb_stem" if layer == "stem" else "stem"
            value = np.ascontiguousarray(np.flip(value, 1)) if kind == "weight" else value
            turned[f"{part}.{layer}.{kind}"] = value
        else:
            turned[name] = value
    return turned


def _padded(graph: GraphBuilder) -> str:
    sides = graph.node(
        "Slice", graph.node("Shape", IMAGE), graph.constant([0]), graph.constant([2])
    )
    rest = graph.node("Mod", graph.node("Neg", sides), graph.constant([MULTIPLE]))
    pads = graph.node("Concat", graph.constant([0, 0, 0]), rest, graph.constant([0]), axis=0)
    return graph.node("Pad", IMAGE, pads, mode="edge")


def _block_maps(graph: GraphBuilder, rgb: str) -> None:
    half = graph.node("AveragePool", rgb, kernel_shape=[2, 2], strides=[2, 2])
    mean = graph.constant(np.array(MEAN[::-1], np.float32).reshape(1, 3, 1, 1))
    scale = graph.constant((1 / np.array(DEVIATION[::-1], np.float32)).reshape(1, 3, 1, 1))
    x = graph.node("Mul", graph.node("Sub", half, mean), scale)

    def layer(x: str, name: str, stride: int = 1, active: bool = True) -> str:
        padding = graph.weight(f"{name}.weight").shape[-1] // 2
        y = graph.layer(x, name, stride=stride, padding=padding)
        return graph.node("LeakyRelu", y, alpha=LEAK) if active else y

    x = layer(x, "map.rgb_stem", stride=2)
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
    shape = graph.node(
        "Slice", graph.node("Shape", IMAGE), graph.constant([0]), graph.constant([2])
    )
    up = graph.node("Add", shape, graph.constant([15]))
    rows_columns = graph.node("Div", up, graph.constant([16]))
    for index, name in enumerate((HEADS, PERSONS)):
        plane = graph.node("Gather", both, graph.constant(np.array(index)), axis=1)
        plane = graph.node("Squeeze", plane, graph.constant([0]))
        graph.node("Slice", plane, graph.constant([0, 0]), rows_columns, output=name)


def _stage(graph: GraphBuilder, layer, x: str, name: str, stride: int) -> str:  # type: ignore[no-untyped-def]
    first = layer(x, f"{name}.first", stride=stride)
    y, pair = first, 0
    while graph.has(f"{name}.pairs.{pair}.0.weight"):
        inner = layer(y, f"{name}.pairs.{pair}.0")
        y = graph.node("Concat", layer(inner, f"{name}.pairs.{pair}.1"), inner, axis=1)
        pair += 1
    return graph.node("Concat", layer(y, f"{name}.last"), first, axis=1)


def _enlarged(graph: GraphBuilder, x: str, like: str) -> str:
    """``x`` at the size of ``like``, bilinear."""
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
        """A 1×1 convolution and a 3×3 one of each channel by itself."""
        x = graph.layer(x, f"{name}.point")
        depth = graph.weight(f"{name}.depth.weight")
        x = graph.layer(x, f"{name}.depth", padding=1, group=len(depth))
        return graph.node("Relu", x) if active else x

    x = graph.node("Relu", graph.layer(rgb, "face.rgb_stem", stride=2, padding=1))
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
    """The weights of a published YuNet ONNX file by our names: ``face.….weight`` and ``.bias``.

    Its convolutions come in the order in which they run: stem, stages, laterals from coarse to
    fine, then heads. Raises ValueError for a graph of another shape.
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
