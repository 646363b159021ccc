# SPDX-License-Identifier: Apache-2.0
"""Channels of similar ranges, so that one scale in 8 bits serves all of them.

A divisive normalization divides the output of a convolution, channel by channel, by a weighted
sum of its magnitudes: y_i = x_i / (β_i + Σ_j γ_ij |x_j|). What ranges its channels have makes no
difference to the network: with factors s and n for each channel,

    x'_i = s_i x_i,   norm'_i = n_i (β_i + Σ_j γ_ij / s_j |x'_j|),   y'_i = s_i / n_i · y_i,

and the weights of the next convolution times n / s. Where some channels have a far larger range
than others, one scale of 8 bits leaves the smaller ones a few steps. Divided by the root of their
ranges, as here, neither the values nor the weights of the next convolution have very large ones
(cross-layer equalisation, Nagel et al., ICCV 2019, for normalizations that divide).

The channels of a convolution whose output is rounded, the latent, are divided by their ranges and
multiplied by them before they are rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from roi_codec_ros.common.onnx_values import (
    Weights,
    copy_of,
    in_one_group,
    makers_of,
    values_inside,
)

if TYPE_CHECKING:
    import onnx

_SMALLEST = 0.01  # of the largest range: channels that are hardly used keep to it


@dataclass(frozen=True)
class _Normalization:
    """The nodes of a convolution, its normalization and the convolution that takes it."""

    before: onnx.NodeProto
    norm: onnx.NodeProto
    quotient: onnx.NodeProto
    after: onnx.NodeProto


def equalised(
    graph: onnx.ModelProto, inputs: Iterable[Mapping[str, np.ndarray]]
) -> onnx.ModelProto:
    """The same function with channels of similar ranges.

    Args:
        graph: float32, its weights constants that one node each takes. Graphs without
            normalizations that divide and without values that are rounded stay as they are.
        inputs: by name, from which the ranges are taken.
    """
    normalizations, last = _normalizations(graph), _rounded(graph)
    names = [name for n in normalizations for name in (n.before.output[0], n.quotient.output[0])]
    names += [node.output[0] for node in last]
    if not names:
        return graph
    ranges = _ranges(graph, names, inputs)
    result = copy_of(graph)
    weights = Weights(result)
    for n in normalizations:
        own = ranges[n.before.output[0]] ** -0.5
        of_norm = own * ranges[n.quotient.output[0]] ** 0.5
        _scale_outputs(weights, n.before, own)
        _scale_outputs(weights, n.norm, of_norm)
        _scale_inputs(weights, n.norm, 1 / own)
        _scale_inputs(weights, n.after, of_norm / own)
    for node in last:
        factors = ranges[node.output[0]]
        _scale_outputs(weights, node, 1 / factors)
        _multiply_output(result, node.name, factors)
    return result


def _scale_outputs(weights: Weights, node: Any, factors: np.ndarray) -> None:
    weight, bias = node.input[1:]
    weights[weight] = weights[weight] * factors[:, None, None, None]
    weights[bias] = weights[bias] * factors


def _scale_inputs(weights: Weights, node: Any, factors: np.ndarray) -> None:
    weight = node.input[1]
    weights[weight] = weights[weight] * factors[:, None, None]


def _multiply_output(graph: onnx.ModelProto, name: str, factors: np.ndarray) -> None:
    """What the node of this name computes is multiplied by factors of its channels."""
    import onnx

    nodes = list(graph.graph.node)
    index = next(i for i, node in enumerate(nodes) if node.name == name)
    output, constant = nodes[index].output[0], f"{name}_ranges"
    scaled = f"{output}_scaled"
    graph.graph.initializer.append(
        onnx.numpy_helper.from_array(factors.astype(np.float32)[:, None, None], constant)
    )
    nodes[index].output[0] = scaled
    nodes.insert(index + 1, onnx.helper.make_node("Mul", [scaled, constant], [output]))
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _normalizations(graph: onnx.ModelProto) -> list[_Normalization]:
    """Those of the graph between two convolutions, that nothing else takes values from."""
    makers, takers = makers_of(graph), _takers(graph)
    found = []
    for quotient in graph.graph.node:
        if quotient.op_type != "Div":
            continue
        before, norm = (makers.get(name) for name in quotient.input)
        after = takers.get(quotient.output[0], [])
        if not (_is_convolution(before) and _is_convolution(norm)):
            continue
        magnitude = makers.get(norm.input[0])
        if (
            magnitude is not None
            and magnitude.op_type == "Abs"
            and magnitude.input[0] == before.output[0]
            and len(takers[before.output[0]]) == 2
            and len(after) == 1
            and _is_convolution(after[0])
        ):
            found.append(_Normalization(before, norm, quotient, after[0]))
    return found


def _rounded(graph: onnx.ModelProto) -> list[Any]:
    """The convolutions whose outputs are rounded, and nothing else."""
    makers, takers = makers_of(graph), _takers(graph)
    nodes = [makers.get(node.input[0]) for node in graph.graph.node if node.op_type == "Round"]
    return [n for n in nodes if _is_convolution(n) and len(takers[n.output[0]]) == 1]


def _takers(graph: onnx.ModelProto) -> dict[str, list[Any]]:
    takers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    return takers


def _is_convolution(node: Any) -> TypeGuard[onnx.NodeProto]:
    """Whether it is a convolution with a bias, in one group."""
    return (
        node is not None and node.op_type == "Conv" and len(node.input) == 3 and in_one_group(node)
    )


def _ranges(
    graph: onnx.ModelProto, names: list[str], inputs: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel of these values [N, C, H, W]; none is 0."""
    largest: dict[str, np.ndarray] = {}
    for values in values_inside(graph, names, inputs):
        for name in names:
            reached = np.abs(values[name]).max(axis=(0, 2, 3))
            largest[name] = np.maximum(largest.get(name, 0), reached)
    return {
        name: np.maximum(value, max(_SMALLEST * value.max(), np.finfo(np.float32).tiny))
        for name, value in largest.items()
    }
