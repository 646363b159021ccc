# SPDX-License-Identifier: Apache-2.0
"""The analysis of models that code blocks: a block transform with a step for each block.

    frame ─► blocks of 16×16 ─► inner products with a fixed basis ─► ÷ step ─► round ─► symbols

In NumPy alone, so that a camera needs no torch. A hidden block's pixels are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.entropy import FIRST_CLASS
from roi_codec_ros.codec.ladder import frequencies, quantised
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.common.errors import ModelFileError
from roi_codec_ros.regions.paint import fill_unknown

MEANS = 3  # channels that are the means of a block, one of each colour
STEPS = "steps"  # the tensor of a model file: float32 [L, C]
_GREY = 127.5
_COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))  # of RGB: brightness, two more


class BlockTransform:
    """Symbols of frames, and back to coefficients, for one model.

    steps: float32 [L, C], of each level and channel. coded: int64 [L], channels of each level.
    """

    def __init__(self, model: Model) -> None:
        """Raises ModelFileError where the model has no steps for its levels and channels."""
        self._size = model.preset.stride
        self.steps = model_steps(model)
        self.coded = model.tables.coded_channels.astype(np.int64)
        self._bases = {
            int(used): _SeparableBasis(int(used), self._size) for used in np.unique(self.coded)
        }

    def symbols(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.int16]:
        """Quantised coefficients of a frame.

        Args:
            image: uint8 [H, W, 3], RGB.
            blocks: uint8 [⌈H / 16⌉, ⌈W / 16⌉], SKIPPED, HIDDEN or FIRST_CLASS + class.
            levels: uint8 [P], the level of each class.

        Returns:
            int16 [C, h, w], 0 where a block is not coded, and in channels that are not.
        """
        return self.rounded(self.values(image, blocks, levels))

    def values(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Coefficients of a frame in steps of their block's level, before they are rounded.

        As `symbols` takes and gives them, but float32.
        """
        rows, columns = blocks.shape
        values = np.zeros((self.steps.shape[1], rows * columns), np.float32)
        lines = self._lines(image, rows, columns)
        coded = blocks >= FIRST_CLASS
        level_of = self.level_of(blocks, levels)
        for level in np.unique(level_of[coded]):
            chosen = coded & (level_of == level)
            used = int(self.coded[level])
            of_level = self._bases[used].coefficients(lines[:, chosen])
            of_level *= 1 / self.steps[level, :used, None]
            values[:used, np.flatnonzero(chosen)] = of_level
        return values.reshape(-1, rows, columns)

    @staticmethod
    def rounded(values: NDArray[np.float32]) -> NDArray[np.int16]:
        """The symbols of values in steps, of any shape."""
        return np.asarray(quantised(values).clip(-32768, 32767).astype(np.int16))

    def level_of(
        self, blocks: NDArray[np.uint8], levels: Sequence[int] | NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """The level of each block, uint8 [h, w]; the coarsest where a block is not coded."""
        by_value = np.full(FIRST_CLASS + len(levels), len(self.steps) - 1, np.uint8)
        by_value[FIRST_CLASS:] = levels
        return by_value[blocks]

    def _lines(self, image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
        """Views of the lines of each block, [16, rows, columns, 48]; the border is repeated."""
        height, width = image.shape[:2]
        size = self._size
        if (height, width) != (rows * size, columns * size):
            down, right = rows * size - height, columns * size - width
            image = np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")
        return image.reshape(rows, size, columns, 3 * size).transpose(1, 0, 2, 3)

    def coefficients(
        self,
        symbols: NDArray[np.int16],
        level_of: NDArray[np.uint8],
        hidden: NDArray[np.bool_],
    ) -> NDArray[np.float32]:
        """What a decoder takes symbols [C, h, w] of blocks at these levels [h, w] for.

        hidden: bool [h, w]; those blocks get the means of what surrounds them.
        """
        steps = self.steps[level_of].transpose(2, 0, 1)
        return fill_hidden(np.asarray(symbols * steps, np.float32), hidden)


def fill_hidden(
    coefficients: NDArray[np.float32], hidden: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Coefficients whose hidden blocks have the means of the blocks around them.

    coefficients: float32 [C, h, w], changed in place. hidden: bool [h, w].
    """
    if hidden.any():
        means = np.ascontiguousarray(coefficients[:MEANS].transpose(1, 2, 0))
        known = (~hidden).astype(np.float32)
        filled = fill_unknown(means, known, 0.0)
        coefficients[:MEANS] = filled.transpose(2, 0, 1)
    return coefficients


class _SeparableBasis:
    """Inner products with `block_basis`: down the columns first, then along what is left of lines.

    That takes a seventh of the products of one matrix for both.
    """

    def __init__(self, channels: int, size: int) -> None:
        waves, colours = _waves(size), _colours()
        of_u: dict[int, list[int]] = {}
        chosen = frequencies(channels, size)
        for channel, (_, u, _) in enumerate(chosen):
            of_u.setdefault(u, []).append(channel)
        # From bytes to coefficients of pixels in [0, 1].
        self._down = (waves[: max(of_u) + 1] / 255).astype(np.float32)
        self._along = [
            (
                of_u.get(u, []),
                np.array(
                    [
                        np.outer(waves[v], colours[colour]).ravel()
                        for colour, _, v in (chosen[channel] for channel in of_u.get(u, []))
                    ],
                    np.float32,
                ).reshape(-1, 3 * size),
            )
            for u in range(len(self._down))
        ]
        # What a grey block would give: its coefficients are counted from there.
        grey = np.full((size, 1, 3 * size), _GREY, np.float32)
        self._channels = channels
        self._of_grey = np.zeros((channels, 1), np.float32)
        self._of_grey = self.coefficients(grey)

    def coefficients(self, lines: NDArray[Any]) -> NDArray[np.float32]:
        """Of blocks: their lines of 16 pixels, any kind [16, N, 48], to float32 [C, N]."""
        size, count, length = lines.shape
        pixels = lines.astype(np.float32, order="C").reshape(size, -1)
        down = (self._down @ pixels).reshape(-1, count, length)
        found = np.empty((self._channels, count), np.float32)
        for (channels, along), of_u in zip(self._along, down, strict=True):
            found[channels] = along @ of_u.T
        found -= self._of_grey
        return found


def model_steps(model: Model) -> NDArray[np.float32]:
    """The steps of a model that codes blocks, float32 [L, C]. Raises ModelFileError."""
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
    """An orthonormal colour DCT basis, float32 [channels, size · size · 3], as pixels lie.

    In the order of `ladder.frequencies`.
    """
    waves, colours = _waves(size), _colours()
    basis = [
        waves[u][:, None, None] * waves[v][None, :, None] * colours[colour]
        for colour, u, v in frequencies(channels, size)
    ]
    return np.stack(basis).reshape(channels, -1).astype(np.float32)


def _waves(size: int) -> NDArray[np.float64]:
    """The orthonormal cosines of a DCT, [frequency, place]."""
    positions = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * np.arange(size)[:, None] * positions)
    return np.asarray(waves / np.linalg.norm(waves, axis=1, keepdims=True))


def _colours() -> NDArray[np.float64]:
    """The orthonormal colours, [3, RGB]."""
    colours = np.array(_COLOURS)
    return np.asarray(colours / np.linalg.norm(colours, axis=1, keepdims=True))
