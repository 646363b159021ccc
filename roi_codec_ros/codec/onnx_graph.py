# SPDX-License-Identifier: Apache-2.0
"""A model's analysis transform as an ONNX graph, for runtimes other than torch.

    image uint8 [H, W, 3] ─► pad to the stride ─► analysis(x / 255) ─► round(y − mean) ─► symbols

``symbols`` is int16 [C, ⌈H / stride⌉, ⌈W / stride⌉], the entropy coder's input. Division and
mean are folded into the first and last weights. Built from the weights by name, which requires
NumPy and onnx but not torch; the architectures are those of ``codec.networks``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.common.errors import ModelFileError, UsageError
from roi_codec_ros.common.onnx_builder import GraphBuilder, make_model

if TYPE_CHECKING:
    import onnx

IMAGE, SYMBOLS, METADATA_KEY = "image", "symbols", "roi_codec"
GDN_PEDESTAL = 2.0**-36  # of the stored square roots, as in networks.SimplifiedGDN
GDN_LOWEST_BETA = 1e-6

Size = tuple[int, int]


def build_graph(model: Model, size: Size | None = None) -> onnx.ModelProto:
    """The float32 graph of ``model``, with everything an encoder needs in its metadata.

    Args:
        size: (height, width) of every frame, or None for a graph that takes any size. A preset
            with a fixed coded size always uses that.

    Raises:
        RoiCodecError: onnx is not installed. UsageError: the architecture cannot be exported, or
            the preset has another size. ModelFileError: weights are missing or have another shape.
    """
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
    graph = GraphBuilder(model.weights("analysis"))
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
    height, width = size or ("height", "width")
    latent = [-(-side // preset.stride) for side in size] if size else ["rows", "columns"]
    return make_model(
        graph,
        f"{model.name} analysis",
        inputs=[(IMAGE, np.uint8, [height, width, 3])],
        outputs=[(SYMBOLS, np.int16, [preset.latent_channels, *latent])],
        metadata={METADATA_KEY: model.to_text()},
    )


def _padded(graph: GraphBuilder, stride: int, size: Size | None) -> str:
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


def _symbols(graph: GraphBuilder, y: str) -> None:
    bounds = (graph.constant(np.float32(value)) for value in (-32768, 32767))
    whole = graph.node("Cast", graph.node("Clip", graph.node("Round", y), *bounds), to=5)
    graph.node("Squeeze", whole, graph.constant([0]), output=SYMBOLS)


def _paper(graph: GraphBuilder, x: str, mean: np.ndarray) -> str:
    """The paper's analysis: 5×5 convolutions of stride 2 at even indices, simplified GDN between
    them.
    """
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


def _gdn(graph: GraphBuilder, index: int) -> tuple[np.ndarray, np.ndarray]:
    """beta [C] and gamma [C, C] from their stored square roots."""
    lowest_beta = np.float32((GDN_LOWEST_BETA + GDN_PEDESTAL) ** 0.5)
    lowest_gamma = np.float32(GDN_PEDESTAL**0.5)
    beta = np.maximum(graph.weight(f"{index}.beta"), lowest_beta) ** 2
    gamma = np.maximum(graph.weight(f"{index}.gamma"), lowest_gamma) ** 2
    return beta - np.float32(GDN_PEDESTAL), gamma - np.float32(GDN_PEDESTAL)


_ARCHITECTURES: dict[str, Callable[[GraphBuilder, str, np.ndarray], str]] = {
    "paper": _paper,
}
