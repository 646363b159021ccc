# SPDX-License-Identifier: Apache-2.0
"""The block transform in NumPy: reference for the C++ kernel, and its fallback.

Both are bit-identical. Therefore the order of additions is fixed, and sums are accumulated term by
    term: see `src/transform.cpp`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.entropy import FIRST_CLASS
from roi_codec_ros.codec.ladder import rounded

SIZE = 16  # side of a block, pixels
_HALF = SIZE // 2


class Transform:
    """Same constructor data, methods and numbers as the kernel's `Transform`.

    waves: float32 [16, 16], [frequency, position]. frequencies: int32 [C, 3], for each channel its
        colour (R + G + B, R - B, R - 2 G + B) and its vertical and horizontal frequency. scales:
        float32 [L, C], factors for inner products with bytes. coded: int32 [L], number of coded
        channels per level.
    """

    def __init__(
        self,
        waves: NDArray[np.float32],
        frequencies: NDArray[np.int32],
        scales: NDArray[np.float32],
        coded: NDArray[np.int32],
    ) -> None:
        self._waves, self._frequencies = waves, frequencies
        self._scales, self._coded = scales, coded

    def values(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Coefficients in steps, float32 [h, w, C]; 0 where not coded.

        image: uint8 [H, W, 3]. blocks: uint8 [h, w]. levels: uint8 [P], per class.
        """
        rows, columns = blocks.shape
        values = np.zeros((rows, columns, len(self._frequencies)), np.float32)
        lines = _lines(image, rows, columns)
        for index, level in enumerate(levels):
            chosen = blocks == FIRST_CLASS + index
            if chosen.any():
                used = int(self._coded[level])
                of_class = self._products(lines[:, chosen], self._frequencies[:used])
                values[chosen, :used] = of_class * self._scales[level, :used]
        return values

    def symbols(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.int16]:
        """As `values`, rounded: int16 [h, w, C]."""
        return rounded(self.values(image, blocks, levels))

    def _products(
        self, lines: NDArray[np.float32], frequencies: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Inner products of byte blocks with the waves, from lines [16, N, 16, 3]: [N, C]."""
        mirrored = lines[: _HALF - 1 : -1]
        folded = (lines[:_HALF] + mirrored - 255, lines[:_HALF] - mirrored)
        products = np.empty((lines.shape[1], len(frequencies)), np.float32)
        for u in np.unique(frequencies[:, 1]):
            line = np.zeros(lines.shape[1:], np.float32)
            for y in range(_HALF):
                line += self._waves[u, y] * folded[u % 2][y]
            of_colour = np.zeros((3, len(line), SIZE), np.float32)
            for x in range(SIZE):
                of_colour += line[:, x].T[..., None] * self._waves[:, x]
            red, green, blue = of_colour
            outer = red + blue
            colours = (outer + green, red - blue, outer - 2 * green)
            for channel in np.flatnonzero(frequencies[:, 1] == u):
                colour, _, v = frequencies[channel]
                products[:, channel] = colours[colour][:, v]
        return products


def _lines(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float32]:
    """The lines of each block, [16, rows, columns, 16, 3], with the border repeated."""
    down, right = rows * SIZE - image.shape[0], columns * SIZE - image.shape[1]
    image = np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge")
    blocks = image.reshape(rows, SIZE, columns, SIZE, 3).astype(np.float32)
    return np.asarray(blocks.transpose(1, 0, 2, 3, 4))
