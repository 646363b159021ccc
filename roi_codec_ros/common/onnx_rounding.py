# SPDX-License-Identifier: Apache-2.0
"""Weights of convolutions on the steps of few bits, rounded for the least error of the outputs.

Rounding each weight to the nearest step makes errors that add up, since the inputs of a
convolution go together: neighbouring pixels, channels that are never negative. Here one weight of
a kernel after the other is rounded, and those that are not yet take over its error as far as they
can, by the covariance of the inputs (Frantar et al., GPTQ, ICLR 2023). What the mean of the inputs
makes of the errors goes into the bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from roi_codec_ros.common.onnx_values import Weights, copy_of, in_one_group, values_inside

if TYPE_CHECKING:
    import onnx

_DAMPING = 0.01  # of the mean variance, added to each: few images leave some inputs unknown
_SAMPLES = 3  # places that inputs are taken at for each weight of a kernel, at most
_BLOCK = 128  # weights after which the errors are passed on to all the others


def rounded_weights(
    graph: onnx.ModelProto,
    inputs: Sequence[Mapping[str, np.ndarray]],
    *,
    steps: int,
    in_float: Sequence[str] = (),
) -> onnx.ModelProto:
    """The graph with convolutions' weights of -steps to steps times a scale for each output.

    The largest weight of each output keeps its value, so that who quantises the graph to as many
    steps finds these scales again. Convolutions in groups stay as they are.

    Args:
        graph: float32, its weights constants that one node each takes.
        inputs: by name, from which the covariances are taken.
        steps: 64 for 7 bits, 127 for 8.
        in_float: the names of nodes whose weights stay as they are.
    """
    result = copy_of(graph)
    weights = Weights(result)
    nodes = [
        node
        for node in result.graph.node
        if node.op_type == "Conv" and node.name not in in_float and in_one_group(node)
    ]
    kernels = [weights[node.input[1]] for node in nodes]
    gathered = [_Inputs(node, kernel) for node, kernel in zip(nodes, kernels, strict=True)]
    for values in values_inside(graph, [node.input[0] for node in nodes], inputs):
        for node, taken in zip(nodes, gathered, strict=True):
            taken.add(values[node.input[0]], len(inputs))
    for node, kernel, taken in zip(nodes, kernels, gathered, strict=True):
        mean, covariance = taken.moments()
        rows = kernel.reshape(len(kernel), -1).astype(np.float64)
        rounded = _rounded(rows, covariance, steps)
        weights[node.input[1]] = rounded.reshape(kernel.shape)
        if len(node.input) == 3:
            weights[node.input[2]] = weights[node.input[2]] + (rows - rounded) @ mean
    return result


def _rounded(rows: np.ndarray, covariance: np.ndarray, steps: int) -> np.ndarray:
    """Rows of weights [O, K] for inputs of this covariance [K, K], on each row's steps."""
    count = len(covariance)
    variances = np.diag(covariance)
    damped = covariance + np.eye(count) * max(_DAMPING * variances.mean(), 1e-12)
    order = np.argsort(-variances, kind="stable")
    # Row j: what an error of weight j asks of those that follow, where those before are fixed.
    passed = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left = rows[:, order]
    scales = np.maximum(np.abs(left).max(axis=1) / steps, np.finfo(np.float32).tiny)
    largest = np.abs(left).argmax(axis=1)
    peaks = left[np.arange(len(left)), largest]
    result = np.zeros_like(left)
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = np.zeros((len(left), end - start))
        for j in range(start, end):
            value = np.clip(np.rint(left[:, j] / scales), -steps, steps) * scales
            value = np.where(largest == j, peaks, value)
            error = (left[:, j] - value) / passed[j, j]
            left[:, j + 1 : end] -= np.outer(error, passed[j, j + 1 : end])
            result[:, j], errors[:, j - start] = value, error
        left[:, end:] -= errors @ passed[start:end, end:]
    return result[:, np.argsort(order)]


class _Inputs:
    """What the kernels of a convolution see, at some places of some images."""

    def __init__(self, node: Any, kernel: np.ndarray) -> None:
        options = {item.name: list(item.ints) for item in node.attribute}
        self._strides, self._pads = options["strides"], options["pads"]
        self._sides = kernel.shape[2:]
        self._count = kernel[0].size
        self._places = np.random.default_rng(0)
        self._seen: list[np.ndarray] = []

    def add(self, values: np.ndarray, images: int) -> None:
        """The inputs [N, C, H, W] of one of so many images."""
        top, left, bottom, right = self._pads
        padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
        whole = (1, 1, *self._sides)
        windows = np.lib.stride_tricks.sliding_window_view(padded, whole)[..., 0, 0, :, :]
        windows = windows[:, :, :: self._strides[0], :: self._strides[1]]
        batch, _, height, width = windows.shape[:4]
        every = batch * height * width
        chosen = self._places.permutation(every)[: -(-_SAMPLES * self._count // images)]
        n, y, x = np.unravel_index(np.sort(chosen), (batch, height, width))
        self._seen.append(windows[n, :, y, x].reshape(len(n), -1))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean [K] and the covariance [K, K] of the inputs of a kernel's weights."""
        seen = np.concatenate(self._seen)
        mean = seen.mean(axis=0, dtype=np.float64)
        around = seen - mean.astype(np.float32)
        return mean, (around.T @ around).astype(np.float64) / len(seen)
