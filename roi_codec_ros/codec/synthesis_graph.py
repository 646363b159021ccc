# SPDX-License-Identifier: Apache-2.0
"""The synthesis of block-based models as an ONNX graph, for decoders without torch.

    coefficients float32 [B, C, h, w] ─┐
    told float32 [B, 2, h, w] ─────────┴─► `networks.BlockSynthesis` ─► planes [B, 3, 16 h, 16 w]

``told`` holds the level and whether a block is hidden. ``planes`` is float32 in [0, 1]. Built from
the weights by name, which requires NumPy and onnx but not torch.

It computes the same function as the network, arranged for the runtimes: instead of concatenating
inputs, each has its own convolution and the results are added, so that channels fill vectors;
activations precede shuffles, so that they fuse with their convolution; blocks are shuffled to the
resolution of the head's output before both are added; and linear interpolation is a convolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.codec.block_transform import MEANS
from roi_codec_ros.codec.ladder import LEVELS, SMOOTH_FROM, SMOOTH_WHOLLY
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.presets import BLOCKS
from roi_codec_ros.common.errors import ModelFileError, UsageError
from roi_codec_ros.common.graph_choice import add_self_test
from roi_codec_ros.common.onnx_builder import GraphBuilder, make_model

if TYPE_CHECKING:
    import onnx

COEFFICIENTS, TOLD, PLANES = "coefficients", "told", "planes"
SYNTHESIS_KEY = "roi_codec_synthesis"
GRAPH_VERSION = 4  # version of the graphs built here; cached graphs of other versions are not used
TESTED_BLOCKS = (2, 3)
# Their inputs span the brightness range, and every error is visible in the image.
INT8_OPERATORS = ("Conv", "DepthToSpace", "Add")
IN_FLOAT = (
    "base",
    "base.both",
    "base.smooth",
    "mean",
    "mean.both",
    "mean.smooth",
    "picture.fine",
    "picture.whole",
    "share",
    "soft_head.patches",
    "stem.first",
    "stem.second",
)
_STRIDE, _PATCH = 16, 4  # of blocks; pixels of the finest features


def build_synthesis_graph(model: Model) -> onnx.ModelProto:
    """Build the float32 graph of a block-based model, for any number of frames of any size.

    Raises:
        RoiCodecError: onnx is not installed. UsageError: the model is not block-based.
        ModelFileError: weights are missing or have another shape.
    """
    if model.preset.architecture != BLOCKS:
        raise UsageError(
            f"expected a model of architecture {BLOCKS} to export its decoder, "
            f"found {model.preset.architecture!r}"
        )
    channels = model.preset.latent_channels
    graph = GraphBuilder(model.weights("synthesis"))
    try:
        _synthesis(graph, channels)
    except (KeyError, ValueError, IndexError) as error:
        raise ModelFileError(
            f"expected weights of preset {model.preset.name} in model {model.name}; "
            f"found: {error!r}"
        ) from error
    grid = ["rows", "columns"]
    made = make_model(
        graph,
        f"{model.name} synthesis",
        inputs=[
            (COEFFICIENTS, np.float32, ["frames", channels, *grid]),
            (TOLD, np.float32, ["frames", 2, *grid]),
        ],
        outputs=[(PLANES, np.float32, ["frames", 3, "height", "width"])],
        metadata={SYNTHESIS_KEY: model.identity.hex()},
    )
    add_self_test(
        made, {COEFFICIENTS: [1, channels, *TESTED_BLOCKS], TOLD: [1, 2, *TESTED_BLOCKS]}
    )
    return made


def _synthesis(graph: GraphBuilder, channels: int) -> None:
    def parameters(name: str) -> tuple[np.ndarray, np.ndarray]:
        return graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")

    def convolution(x: str, name: str, weight: np.ndarray, bias: np.ndarray) -> str:
        return graph.convolution(x, weight, bias, padding=weight.shape[-1] // 2, name=name)

    def layer(x: str, name: str) -> str:
        return convolution(x, name, *parameters(name))

    def of_both(first: str, second: str, seen: int, name: str, weight: np.ndarray) -> str:
        """A layer over the channels of two inputs, ``seen`` of them from the first."""
        bias = graph.weight(f"{name}.bias")
        return graph.node(
            "Add",
            convolution(first, f"{name}.first", weight[:, :seen], bias),
            convolution(second, f"{name}.second", weight[:, seen:], np.zeros_like(bias)),
        )

    def residual_blocks(x: str, name: str) -> str:
        index = 0
        while graph.has(f"{name}.{index}.first.weight"):
            inner = graph.node("Relu", layer(x, f"{name}.{index}.first"))
            x = graph.node("Add", layer(inner, f"{name}.{index}.second"), x)
            index += 1
        return x

    def shuffled(x: str, size: int) -> str:
        return graph.node("DepthToSpace", x, blocksize=size, mode="CRD")

    def smooth_share() -> str:
        """As `networks.smooth_share`, 1 where a block is hidden: [B, 1, h, w]."""
        of_level = 1 / (SMOOTH_WHOLLY - SMOOTH_FROM)
        weight = np.array([of_level, 1 + SMOOTH_FROM * of_level], np.float32)[None, :, None, None]
        bias = np.array([-SMOOTH_FROM * of_level], np.float32)
        told = graph.convolution(TOLD, weight, bias, name="share")
        return graph.node("Clip", told, *bounds)

    def bordered(x: str) -> str:
        """With the border repeated: [B, ., h + 2, w + 2]."""
        return graph.node("Pad", x, graph.constant([0, 0, 1, 1, 0, 0, 1, 1]), mode="edge")

    bounds = [graph.constant(np.float32(value)) for value in (0, 1)]
    gains = np.concatenate([np.full(channels, 0.5), [1 / LEVELS, 1]]).astype(np.float32)
    stem = graph.weight("stem.weight") * gains[:, None, None]
    x = graph.node("Relu", of_both(COEFFICIENTS, TOLD, channels, "stem", stem))
    x = residual_blocks(x, "coarse")
    x = shuffled(graph.node("Relu", layer(x, "to_middle")), 2)
    x = residual_blocks(x, "middle")
    x = shuffled(graph.node("Relu", layer(x, "to_fine")), 2)
    x = residual_blocks(x, "fine")
    share = smooth_share()
    sharp = graph.node("Sub", graph.constant(np.float32(1)), share)
    hidden = graph.node("Slice", TOLD, *(graph.constant([n]) for n in (1, 2, 1)))
    fine = graph.node("Mul", COEFFICIENTS, sharp)
    base = _by_patches(*parameters("base"))
    smooth_weight = graph.weight("smooth.weight")[:, :MEANS]  # those of others are 0
    means = graph.node("Slice", COEFFICIENTS, *(graph.constant([n]) for n in (0, MEANS, 1)))
    around = bordered(means)
    smooth = _by_patches(smooth_weight, np.zeros(len(smooth_weight), np.float32))

    def of_blocks(part: int, name: str) -> str:
        """Fine blocks from their own coefficients, coarse ones from their neighbours."""
        own = convolution(fine, name, *base[part])
        others = graph.convolution(around, *smooth[part], name=f"{name}.smooth")
        others = graph.node("Mul", others, share)
        return shuffled(graph.node("Add", own, others, output=f"{name}.both"), _STRIDE // _PATCH)

    def enlarged(x: str) -> str:
        """Repeated to four times the height and width."""
        scales = graph.constant(np.array([1, 1, _PATCH, _PATCH], np.float32))
        rules = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return graph.node("Resize", x, "", scales, mode="nearest", **rules)

    def interpolated(x: str) -> str:
        """Between the values of patches, linearly, with the border repeated: as patches."""
        weight = _between_patches(3)
        bias = np.zeros(len(weight), np.float32)
        return graph.convolution(bordered(x), weight, bias, name="soft_head.patches")

    colours, patches = of_blocks(1, "mean"), of_blocks(0, "base")
    seen = graph.weight("head.weight").shape[1] - 3
    details, soft = (
        of_both(x, colours, seen, name, graph.weight(f"{name}.weight"))
        for name in ("head", "soft_head")
    )
    details = graph.node("Mul", details, enlarged(sharp))
    soft = interpolated(graph.node("Mul", soft, enlarged(hidden)))
    picture = graph.node("Add", details, patches, output="picture.fine")
    picture = graph.node("Add", picture, soft, output="picture.whole")
    graph.node("Clip", shuffled(picture, _PATCH), *bounds, output=PLANES)


def _between_patches(colours: int) -> np.ndarray:
    """Weights of the linear interpolation between patches, whose values are at their centres.

    float32 [colours · 4 · 4, colours, 3, 3], to be shuffled by 4.
    """
    at = (np.arange(_PATCH) + 0.5) / _PATCH - 0.5
    line = np.stack([np.maximum(-at, 0), 1 - np.abs(at), np.maximum(at, 0)], axis=1)
    weight = np.einsum("cd,yi,xj->cyxdij", np.eye(colours), line, line)
    return weight.reshape(-1, colours, 3, 3).astype(np.float32)


def _by_patches(
    weight: np.ndarray, bias: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of a layer that produces blocks, and of one for the means of its patches.

    weight: [3 · 16 · 16, C, k, k], bias: [3 · 16 · 16], to be shuffled by 16. Both results are to
    be shuffled by 4: the first into 3 · 4 · 4 channels of patches, the second into 3.
    """
    count = _STRIDE // _PATCH
    # colour, (row of the patch, row in it), (column of the patch, column in it)
    split, order = (3, count, _PATCH, count, _PATCH), (0, 2, 4, 1, 3)
    seen = weight.shape[1:]
    weight = weight.reshape(*split, *seen).transpose(*order, 5, 6, 7)
    bias = bias.reshape(split).transpose(order)
    means = weight.mean(axis=(1, 2)), bias.mean(axis=(1, 2))
    return (
        (weight.reshape(-1, *seen), bias.reshape(-1)),
        (means[0].reshape(-1, *seen), means[1].reshape(-1)),
    )
