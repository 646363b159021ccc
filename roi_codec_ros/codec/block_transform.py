# SPDX-License-Identifier: Apache-2.0
"""Analysis transform of block-based models: a block transform with one step per block.

    frame ─► 16×16 blocks ─► inner products with a fixed basis ─► ÷ step ─► round ─► symbols

Implemented in C++ and NumPy, so that a camera needs no torch. The pixels of hidden blocks are
never read. The symbols are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec import transform_reference
from roi_codec_ros.codec.entropy import FIRST_CLASS
from roi_codec_ros.codec.kernels import BLOCK_TRANSFORM, KERNELS, chosen_implementation
from roi_codec_ros.codec.ladder import frequencies
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.transform_reference import SIZE
from roi_codec_ros.common.errors import ModelFileError
from roi_codec_ros.regions.paint import fill_unknown

MEANS = 3  # channels that hold the means of a block, one per colour
STEPS = "steps"  # tensor in the model file: float32 [L, C]
_COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))  # brightness, two differences


class BlockTransform:
    """Turns frames into symbols and symbols into coefficients, for one model.

    steps: float32 [L, C], per level and channel. coded: int64 [L], number of coded channels per
        level.
    """

    def __init__(
        self, model: Model, implementation: str | None = None, instructions: str = ""
    ) -> None:
        """implementation: "c++" (the compiled kernel), "numpy" (the reference: bit-identical, some
        forty times slower) or None, the best available. instructions: instruction set for the
        kernel, one of its `instructions()`; the best by default.

        Raises ModelFileError if the model lacks steps for its levels and channels, ValueError if
        the implementation is not available.
        """
        self.steps = model_steps(model)
        self.coded = model.tables.coded_channels.astype(np.int64)
        self.implementation = chosen_implementation(BLOCK_TRANSFORM, implementation)
        data = _forward_data(self.steps, self.coded)
        self._forward: _Forward
        if self.implementation == "c++":
            self._forward = KERNELS[BLOCK_TRANSFORM].Transform(*data, instructions)
        else:
            self._forward = transform_reference.Transform(*data)

    def symbols(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.int16]:
        """Quantised coefficients of a frame.

        Args:
            image: uint8 [H, W, 3], RGB.
            blocks: uint8 [⌈H / 16⌉, ⌈W / 16⌉], SKIPPED, HIDDEN or FIRST_CLASS + class.
            levels: uint8 [P], the level of each class.

        Returns:
            int16 [C, h, w], 0 in blocks and channels that are not coded. Channels are contiguous
            in memory (channels last).
        """
        image, blocks = np.ascontiguousarray(image), np.ascontiguousarray(blocks)
        return self._forward.symbols(image, blocks, levels).transpose(2, 0, 1)

    def values(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Coefficients of a frame in steps of their block's level, before rounding.

        Arguments and result as for `symbols`, but float32.
        """
        image, blocks = np.ascontiguousarray(image), np.ascontiguousarray(blocks)
        return self._forward.values(image, blocks, levels).transpose(2, 0, 1)

    def level_of(
        self, blocks: NDArray[np.uint8], levels: Sequence[int] | NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """The level of each block, uint8 [h, w]; the coarsest for blocks that are not coded."""
        by_value = np.full(FIRST_CLASS + len(levels), len(self.steps) - 1, np.uint8)
        by_value[FIRST_CLASS:] = levels
        return by_value[blocks]

    def coefficients(
        self,
        symbols: NDArray[np.int16],
        level_of: NDArray[np.uint8],
        hidden: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """Dequantise symbols [C, h, w] of blocks at these levels [h, w].

        hidden: bool [h, w]; these blocks get the means of their surroundings.
        """
        steps = self.steps[level_of].transpose(2, 0, 1)
        return fill_hidden(np.asarray(symbols * steps, np.float32), hidden)


def fill_hidden(
    coefficients: NDArray[np.float32], hidden: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Give hidden blocks the means of the blocks around them.

    coefficients: float32 [C, h, w], changed in place. hidden: bool [h, w].
    """
    if hidden.any():
        means = np.ascontiguousarray(coefficients[:MEANS].transpose(1, 2, 0))
        known = (~hidden).astype(np.float32)
        filled = fill_unknown(means, known, 0.0)
        coefficients[:MEANS] = filled.transpose(2, 0, 1)
    return coefficients


class _Forward(Protocol):
    def symbols(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.int16]: ...

    def values(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.float32]: ...


def _forward_data(
    steps: NDArray[np.float32], coded: NDArray[np.int64]
) -> tuple[NDArray[Any], ...]:
    """Constructor arguments of `transform_reference.Transform`."""
    chosen = np.array(frequencies(steps.shape[1], SIZE), np.int32)
    lengths = np.linalg.norm(np.array(_COLOURS), axis=1)
    # From inner products of bytes to coefficients of pixels in [0, 1], in steps.
    scales = 1 / (255 * lengths[chosen[:, 0]] * steps.astype(np.float64))
    return (
        _waves(SIZE).astype(np.float32),
        chosen,
        scales.astype(np.float32),
        coded.astype(np.int32),
    )


def model_steps(model: Model) -> NDArray[np.float32]:
    """The quantiser steps of a block-based model, float32 [L, C]. Raises ModelFileError."""
    steps = model.tensors.get(STEPS)
    shape = (model.tables.levels, model.preset.latent_channels)
    if steps is None or steps.shape != shape or steps.dtype != np.float32:
        found = "none" if steps is None else f"{steps.dtype} {list(steps.shape)}"
        raise ModelFileError(
            f"expected model {model.name} to hold {STEPS} float32 {list(shape)}, found {found}"
        )
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise ModelFileError(f"expected {STEPS} of model {model.name} above 0, found others")
    return steps


def block_basis(channels: int, size: int) -> NDArray[np.float32]:
    """An orthonormal colour DCT basis, float32 [channels, size · size · 3], in pixel order.

    Channels are in the order of `ladder.frequencies`.
    """
    waves, colours = _waves(size), _colours()
    basis = [
        waves[u][:, None, None] * waves[v][None, :, None] * colours[colour]
        for colour, u, v in frequencies(channels, size)
    ]
    return np.stack(basis).reshape(channels, -1).astype(np.float32)


def _waves(size: int) -> NDArray[np.float64]:
    """The orthonormal cosines of a DCT, [frequency, position]."""
    positions = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * np.arange(size)[:, None] * positions)
    return np.asarray(waves / np.linalg.norm(waves, axis=1, keepdims=True))


def _colours() -> NDArray[np.float64]:
    """The orthonormal colours, [3, RGB]."""
    colours = np.array(_COLOURS)
    return np.asarray(colours / np.linalg.norm(colours, axis=1, keepdims=True))
