# SPDX-License-Identifier: Apache-2.0
"""A YOLOv8 person detector as an ONNX graph, built from its weights.

    planes float32 [B, 3, H, W], 0 to 1 ─► backbone, pyramid, heads ─► sides_s, persons_s

H and W are multiples of 32, s is 8, 16 and 32. ``persons_s`` float32 [B, 1, H / s, W / s] holds
the logit of a person, set to the minimum where another class is more likely; ``sides_s`` [B, 4 ·
bins, H / s, W / s] the distances of the box's sides (`boxes.py`). Built by name from NumPy arrays,
which requires onnx but not torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.common.errors import ModelFileError
from roi_codec_ros.common.graph_choice import add_self_test
from roi_codec_ros.common.onnx_builder import GraphBuilder, make_model

if TYPE_CHECKING:
    import onnx

PLANES = "planes"
STRIDES = (8, 16, 32)
DETECTOR_KEY = "roi_codec_detector"
GRAPH_VERSION = 1  # version of the graphs built here; cached graphs of other versions are not used
TESTED_SIZE = (32, 64)
# Layers of the network, from first to last: kind and inputs (-1: the previous layer).
LAYERS: tuple[tuple[str, int | tuple[int, ...]], ...] = (
    ("halved", -1),
    ("halved", -1),
    ("residual", -1),
    ("halved", -1),
    ("residual", -1),
    ("halved", -1),
    ("residual", -1),
    ("halved", -1),
    ("residual", -1),
    ("pooled", -1),
    ("doubled", -1),
    ("joined", (-1, 6)),
    ("plain", -1),
    ("doubled", -1),
    ("joined", (-1, 4)),
    ("plain", -1),
    ("halved", -1),
    ("joined", (-1, 12)),
    ("plain", -1),
    ("halved", -1),
    ("joined", (-1, 9)),
    ("plain", -1),
)
HEADS_FROM = (15, 18, 21)

# Operators computed in 8-bit integers, and the convolutions that are not: those of the heads,
# whose errors directly affect boxes and scores, and the first, which is faster on three channels
# of floats.
INT8_OPERATORS = ("Conv", "Clip", "Sigmoid", "Mul", "Concat", "MaxPool", "Resize", "Add")
OF_HEADS = (f"model.{len(LAYERS)}.", "persons_", "sides_")
IN_FLOAT = ("model.0.", *OF_HEADS)
LOWEST = -6.0

Weights = Mapping[str, np.ndarray]


class _Builder(GraphBuilder):
    def __init__(self, weights: Weights, *, bounded: bool) -> None:
        super().__init__(weights)
        self.bounded = bounded


def persons_name(stride: int) -> str:
    """Name of the output with the logits of a stride."""
    return f"persons_{stride}"


def sides_name(stride: int) -> str:
    """Name of the output with the box sides of a stride."""
    return f"sides_{stride}"


def build_detector_graph(
    weights: Weights,
    person_classes: Sequence[int],
    metadata: Mapping[str, str],
    *,
    bounded: bool = False,
) -> onnx.ModelProto:
    """Build the float32 graph, for any number of images of any size.

    Args:
        weights: by the names of ultralytics, normalisation folded into the convolutions:
            ``model.0.conv.weight`` and so on.
        person_classes: the classes that are persons.
        metadata: texts for the file's metadata.
        bounded: activations that int8 computes are clipped at LOWEST, below which they are almost
            0, to save quantisation steps.

    Raises:
        RoiCodecError: onnx is not installed. ModelFileError: the weights belong to another
            network.
    """
    graph = _Builder(weights, bounded=bounded)
    try:
        features = _features(graph)
        channels = _heads(graph, [features[index] for index in HEADS_FROM], person_classes)
    except (KeyError, ValueError, IndexError) as error:
        raise ModelFileError(f"expected weights of a YOLOv8, found {error!r}") from error
    outputs: list[tuple[str, type, list[int | str]]] = []
    for stride in STRIDES:
        grid = [f"rows_{stride}", f"columns_{stride}"]
        outputs.append((persons_name(stride), np.float32, ["images", 1, *grid]))
        outputs.append((sides_name(stride), np.float32, ["images", channels, *grid]))
    made = make_model(
        graph,
        "persons",
        inputs=[(PLANES, np.float32, ["images", 3, "height", "width"])],
        outputs=outputs,
        metadata=metadata,
    )
    add_self_test(made, {PLANES: [1, 3, *TESTED_SIZE]})
    return made


def _unit(
    graph: _Builder, x: str, name: str, *, stride: int = 1, rows: slice = slice(None)
) -> str:
    """A convolution, or some of its outputs, followed by x · sigmoid(x)."""
    weight = graph.weight(f"{name}.conv.weight")[rows]
    bias = graph.weight(f"{name}.conv.bias")[rows]
    part = f"{name}.{rows.start or 0}"
    y = graph.convolution(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2, name=part)
    if graph.bounded and not part.startswith(OF_HEADS):
        y = graph.node("Clip", y, graph.constant(np.float32(LOWEST)))
    return graph.node("Mul", y, graph.node("Sigmoid", y))


def _features(graph: _Builder) -> list[str]:
    outputs: list[str] = []
    x = PLANES
    for index, (kind, given) in enumerate(LAYERS):
        name = f"model.{index}"
        if isinstance(given, tuple):
            x = graph.node("Concat", *(x if i == -1 else outputs[i] for i in given), axis=1)
        elif kind == "halved":
            x = _unit(graph, x, name, stride=2)
        elif kind == "doubled":
            x = _doubled(graph, x)
        elif kind == "pooled":
            x = _pooled(graph, x, name)
        else:
            x = _stage(graph, x, name, residual=kind == "residual")
        outputs.append(x)
    return outputs


def _stage(graph: _Builder, x: str, name: str, *, residual: bool) -> str:
    """ultralytics' C2f, with its first convolution as two, which saves a split."""
    width = len(graph.weight(f"{name}.cv1.conv.weight")) // 2
    kept = [_unit(graph, x, f"{name}.cv1", rows=slice(width))]
    kept.append(_unit(graph, x, f"{name}.cv1", rows=slice(width, None)))
    index = 0
    while graph.has(f"{name}.m.{index}.cv1.conv.weight"):
        inner = _unit(graph, kept[-1], f"{name}.m.{index}.cv1")
        y = _unit(graph, inner, f"{name}.m.{index}.cv2")
        kept.append(graph.node("Add", kept[-1], y) if residual else y)
        index += 1
    return _unit(graph, graph.node("Concat", *kept, axis=1), f"{name}.cv2")


def _pooled(graph: _Builder, x: str, name: str) -> str:
    kept = [_unit(graph, x, f"{name}.cv1")]
    for _ in range(3):
        kept.append(
            graph.node("MaxPool", kept[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4)
        )
    return _unit(graph, graph.node("Concat", *kept, axis=1), f"{name}.cv2")


def _doubled(graph: _Builder, x: str) -> str:
    return graph.node(
        "Resize",
        x,
        "",
        graph.constant(np.array([1, 1, 2, 2], np.float32)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _heads(graph: _Builder, features: Sequence[str], person_classes: Sequence[int]) -> int:
    """Add the outputs of each stride; returns the number of values per box side."""
    name = f"model.{len(LAYERS)}"
    channels = 0
    for level, (stride, x) in enumerate(zip(STRIDES, features, strict=True)):
        branches = {}
        for branch in ("cv2", "cv3"):
            y = _unit(graph, x, f"{name}.{branch}.{level}.0")
            branches[branch] = _unit(graph, y, f"{name}.{branch}.{level}.1")
        weight, bias = _parameters(graph, f"{name}.cv2.{level}.2")
        channels = len(weight)
        graph.convolution(branches["cv2"], weight, bias, name=sides_name(stride))
        weight, bias = _parameters(graph, f"{name}.cv3.{level}.2")
        _persons(graph, branches["cv3"], weight, bias, person_classes, persons_name(stride))
    return channels


def _parameters(graph: _Builder, name: str) -> tuple[np.ndarray, np.ndarray]:
    return graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")


def _persons(
    graph: _Builder,
    x: str,
    weight: np.ndarray,
    bias: np.ndarray,
    person_classes: Sequence[int],
    output: str,
) -> None:
    persons = np.zeros(len(weight), bool)
    persons[list(person_classes)] = True

    def likeliest(of: np.ndarray, name: str | None = None) -> str:
        if of.sum() == 1:
            return graph.convolution(x, weight[of], bias[of], name=name)
        y = graph.convolution(x, weight[of], bias[of])
        return graph.node("ReduceMax", y, axes=[1], keepdims=1, output=name)

    if persons.all():
        likeliest(persons, output)
        return
    person, other = likeliest(persons), likeliest(~persons)
    lowest = graph.constant(np.array(-1e4, np.float32))
    graph.node("Where", graph.node("Less", person, other), lowest, person, output=output)
