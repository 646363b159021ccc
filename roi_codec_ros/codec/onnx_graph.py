# SPDX-License-Identifier: Apache-2.0
"""A model's analysis transform as an ONNX graph, for runtimes that are not torch.

    image uint8 [H, W, 3] ─► pad to the stride ─► analysis(x / 255) ─► round(y − mean) ─► symbols

``symbols`` is int16 [C, ⌈H / stride⌉, ⌈W / stride⌉]: what the entropy coder takes. Division and
mean are folded into the first and last weights. Built from the weights by name, so it needs NumPy
and onnx, no torch; the architectures are those of ``codec.networks``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, UsageError
from roi_codec_ros.common.files import GENERATOR

if TYPE_CHECKING:
    import onnx

IMAGE, SYMBOLS, METADATA_KEY = "image", "symbols", "roi_codec"
OPSET, IR_VERSION = 17, 8  # what an onnxruntime 1.14 and an OpenVINO 2023 read
SHUFFLE = 8  # pixels of a block that the shuffle architecture starts from
GDN_PEDESTAL = 2.0**-36  # of the stored square roots, as in networks.SimplifiedGDN
GDN_LOWEST_BETA = 1e-6

Size = tuple[int, int]


def build_graph(model: Model, size: Size | None = None) -> onnx.ModelProto:
    """The float32 graph of ``model``, with everything an encoder needs in its metadata.

    Args:
        size: (height, width) of every frame, or None for a graph that takes any size. A preset
            with a coded size of its own always has that.

    Raises:
        RoiCodecError: onnx is not installed. UsageError: the architecture has no graph, or the
            preset another size. ModelFileError: weights are missing or of another shape.
    """
    helper = require_onnx().helper
    preset = model.preset
    if size not in (None, preset.coded_size) and preset.coded_size is not None:
        raise UsageError(
            f"expected {preset.name} at its {preset.coded_size} px (height, width), found {size}"
        )
    if preset.architecture not in _ARCHITECTURES:
        raise UsageError(
            f"expected an architecture among {', '.join(_ARCHITECTURES)} to export, "
            f"found {preset.architecture!r}"
        )
    size = preset.coded_size or size
    graph = _Graph(model.weights("analysis"))
    mean = model.tensors["latent_mean"].astype(np.float32)
    try:
        pixels = graph.node("Cast", _padded(graph, preset.stride, size), to=1)
        planes = graph.node("Transpose", pixels, perm=[2, 0, 1])
        x = graph.node("Unsqueeze", planes, graph.constant([0]))
        y = _ARCHITECTURES[preset.architecture](graph, x, mean)
    except (KeyError, ValueError, IndexError) as error:
        raise ModelFileError(
            f"expected weights of preset {preset.name} in model {model.name}; found: {error!r}"
        ) from error
    _symbols(graph, y)
    kind = helper.np_dtype_to_tensor_dtype
    height, width = size or ("height", "width")
    latent = [-(-side // preset.stride) for side in size] if size else ["rows", "columns"]
    built = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"{model.name} analysis",
            [helper.make_tensor_value_info(IMAGE, kind(np.dtype(np.uint8)), [height, width, 3])],
            [
                helper.make_tensor_value_info(
                    SYMBOLS, kind(np.dtype(np.int16)), [preset.latent_channels, *latent]
                )
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=GENERATOR,
    )
    helper.set_model_props(built, {METADATA_KEY: model.to_text()})
    return built


def require_onnx() -> Any:
    """The module onnx. Raises RoiCodecError where it is not installed."""
    try:
        import onnx
    except ImportError as error:
        raise RoiCodecError(
            "expected onnx to build a graph, found it not installed: pip install onnx"
        ) from error
    return onnx


class _Graph:
    """Nodes and constants as they come, and the weights that layers are made of."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        onnx = require_onnx()
        self._helper, self._to_tensor = onnx.helper, onnx.numpy_helper.from_array
        self._weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def weight(self, name: str) -> np.ndarray:
        return self._weights[name].astype(np.float32)

    def has(self, name: str) -> bool:
        return name in self._weights

    def constant(self, values: Any) -> str:
        """A constant; whole numbers become int64, as shapes and axes are."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._to_tensor(np.array(values, order="C"), name))
        return name

    def node(self, operator: str, *inputs: str, output: str | None = None, **options: Any) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        made = self._helper.make_node(operator, list(inputs), [name], name=name, **options)
        self.nodes.append(made)
        return name

    def convolution(
        self, x: str, weight: np.ndarray, bias: np.ndarray, *, stride: int = 1, padding: int = 0
    ) -> str:
        height, width = weight.shape[2:]
        return self.node(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            kernel_shape=[height, width],
            strides=[stride] * 2,
            pads=[padding] * 4,
        )

    def layer(self, x: str, name: str, **options: int) -> str:
        return self.convolution(
            x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), **options
        )


def _padded(graph: _Graph, stride: int, size: Size | None) -> str:
    """The frame with its last row and column repeated up to a multiple of the stride."""
    if size is not None:
        down, right = (-side % stride for side in size)
        if not (down or right):
            return IMAGE
        return graph.node("Pad", IMAGE, graph.constant([0, 0, 0, down, right, 0]), mode="edge")
    sides = graph.node("Slice", graph.node("Shape", IMAGE), *map(graph.constant, ([0], [2])))
    step = graph.constant([stride])
    rest = graph.node("Mod", graph.node("Neg", sides), step)
    before, channels = graph.constant([0, 0, 0]), graph.constant([0])
    pads = graph.node("Concat", before, rest, channels, axis=0)
    return graph.node("Pad", IMAGE, pads, mode="edge")


def _symbols(graph: _Graph, y: str) -> None:
    bounds = (graph.constant(np.float32(value)) for value in (-32768, 32767))
    whole = graph.node("Cast", graph.node("Clip", graph.node("Round", y), *bounds), to=5)
    graph.node("Squeeze", whole, graph.constant([0]), output=SYMBOLS)


def _shuffle(graph: _Graph, x: str, mean: np.ndarray) -> str:
    """networks.ShuffleAnalysis; unshuffling and the 1×1 stem are one 8×8 convolution."""
    stem_weight = graph.weight("stem.weight")
    blocks = stem_weight.reshape(len(stem_weight), 3, SHUFFLE, SHUFFLE) / np.float32(255)
    stem = graph.convolution(x, blocks, graph.weight("stem.bias"), stride=SHUFFLE)
    skip = graph.layer(stem, "skip", stride=2)
    y = graph.node("Relu", graph.layer(stem, "down", stride=2, padding=1))
    y = graph.node("Relu", graph.layer(y, "body", padding=1))
    context = graph.node("Relu", graph.layer(y, "context_down", stride=2, padding=1))
    context = graph.node("Relu", graph.layer(context, "context_body", padding=1))
    block = 0
    while graph.has(f"context_blocks.{block}.first.weight"):
        name = f"context_blocks.{block}"
        inner = graph.node("Relu", graph.layer(context, f"{name}.first", padding=1))
        context = graph.node("Add", context, graph.layer(inner, f"{name}.second", padding=1))
        block += 1
    doubled = graph.node(
        "Resize",
        context,
        "",
        graph.constant(np.array([1, 1, 2, 2], np.float32)),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    # An odd latent is one row or column shorter than its context.
    cut = graph.node("Slice", doubled, graph.constant([0] * 4), graph.node("Shape", y))
    seen = graph.node("Add", y, cut)
    head = graph.convolution(seen, graph.weight("head.weight"), graph.weight("head.bias") - mean)
    if graph.has("gate.weight"):
        gate = graph.node("Sigmoid", graph.layer(seen, "gate"))
        twice = graph.constant(np.array(2, np.float32))
        skip = graph.node("Mul", graph.node("Mul", gate, twice), skip)
    return graph.node("Add", head, skip)


def _paper(graph: _Graph, x: str, mean: np.ndarray) -> str:
    """The paper's: 5×5 convolutions of stride 2 at even places, simplified GDN between them."""
    index = 0
    while True:
        weight, bias = graph.weight(f"{index}.weight"), graph.weight(f"{index}.bias")
        if index == 0:
            weight = weight / np.float32(255)
        last = not graph.has(f"{index + 1}.beta")
        x = graph.convolution(x, weight, bias - mean if last else bias, stride=2, padding=2)
        if last:
            return x
        beta, gamma = _gdn(graph, index + 1)
        norm = graph.convolution(graph.node("Abs", x), gamma[:, :, None, None], beta)
        x = graph.node("Div", x, norm)
        index += 2


def _gdn(graph: _Graph, index: int) -> tuple[np.ndarray, np.ndarray]:
    """beta [C] and gamma [C, C] from the square roots that are stored."""
    lowest_beta = np.float32((GDN_LOWEST_BETA + GDN_PEDESTAL) ** 0.5)
    lowest_gamma = np.float32(GDN_PEDESTAL**0.5)
    beta = np.maximum(graph.weight(f"{index}.beta"), lowest_beta) ** 2
    gamma = np.maximum(graph.weight(f"{index}.gamma"), lowest_gamma) ** 2
    return beta - np.float32(GDN_PEDESTAL), gamma - np.float32(GDN_PEDESTAL)


_ARCHITECTURES: dict[str, Callable[[_Graph, str, np.ndarray], str]] = {
    "paper": _paper,
    "shuffle": _shuffle,
}
