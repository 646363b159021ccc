# SPDX-License-Identifier: Apache-2.0
"""Quantiser steps: the levels, and the step of each channel at each level."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LEVELS = 24
LEVELS_PER_OCTAVE = 4  # levels per doubling of the step
FINEST_STEP = 0.12  # of orthonormal coefficients of pixels in [0, 1]
COLOUR_FACTOR = 1.3  # steps of colour differences, relative to those of brightness
# Means and slow slopes of a block become coarse more slowly: without them a coarse background
# falls apart into tiles.
LOWEST_SHARE, FULL_FROM = 0.45, 3.0
# Blocks are smoothed with their neighbours from the first of these levels, fully from the second.
SMOOTH_FROM, SMOOTH_WHOLLY = 14, 20
SMOOTH_CHANNELS = 16  # lowest frequencies that the smoothing uses


def frequencies(channels: int, size: int) -> list[tuple[int, int, int]]:
    """Colour (0 for brightness) and the two frequencies of each channel, lowest first.

    Of every sixteen channels ten are brightness and three each are the two colour differences, so
    that a larger basis starts with a smaller one.
    """
    order = sorted(
        ((u, v) for u in range(size) for v in range(size)),
        key=lambda f: (f[0] ** 2 + f[1] ** 2, f),
    )
    turns = (0, 1, 2, 0, 0, 0, 1, 2, 0, 0, 0, 1, 2, 0, 0, 0)
    taken, chosen = [0, 0, 0], []
    for index in range(channels):
        colour = turns[index % len(turns)]
        if taken[colour] == len(order):
            colour = taken.index(min(taken))
        chosen.append((colour, *order[taken[colour]]))
        taken[colour] += 1
    return chosen


def ladder_steps(channels: int, size: int) -> NDArray[np.float32]:
    """The step of each level and channel, float32 [LEVELS, channels]; level 0 is the finest."""
    octaves = np.arange(LEVELS)[:, None] / LEVELS_PER_OCTAVE
    colours, shares = [], []
    for colour, u, v in frequencies(channels, size):
        reach = min(1.0, math.hypot(u, v) / FULL_FROM)
        shares.append(LOWEST_SHARE + (1 - LOWEST_SHARE) * reach)
        colours.append(COLOUR_FACTOR if colour else 1.0)
    steps = FINEST_STEP * 2.0 ** (octaves * np.array(shares)) * np.array(colours)
    return steps.astype(np.float32)


PREDICTED_CHANNELS = 16  # the first ones, from neighbouring blocks; a multiple of 8 is fastest
_UNIT = 4096  # of a step in `prediction_ladder`


def prediction_ladder(channels: int, size: int) -> NDArray[np.int32]:
    """The steps of the predicted channels, int32 [LEVELS, M], for `EntropyTables.ladder`."""
    steps = ladder_steps(channels, size)[:, :PREDICTED_CHANNELS]
    return np.rint(_UNIT * steps.astype(np.float64)).astype(np.int32)


FEWEST_CHANNELS, FINE_LEVEL, COARSE_LEVEL = 8, 9, 20


def coded_channels(channels: int) -> NDArray[np.int32]:
    """How many channels are coded at each level, int32 [LEVELS], multiples of 8.

    At coarse steps high frequencies only cause ringing; without them the background is soft.
    """
    fewest = min(FEWEST_CHANNELS, channels)
    share = (np.arange(LEVELS) - FINE_LEVEL) / (COARSE_LEVEL - FINE_LEVEL)
    wanted = channels * (fewest / channels) ** np.clip(share, 0.0, 1.0)
    return np.minimum(channels, 8 * np.ceil(wanted / 8)).astype(np.int32)


ROUND_UP_FROM = 0.6  # of a step; smaller fractions are rarely worth their bits


def quantised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round coefficients in steps to integers; towards 0 up to `ROUND_UP_FROM`."""
    return np.trunc(values + np.copysign(np.float32(1 - ROUND_UP_FROM), values))


def rounded(values: NDArray[np.float32]) -> NDArray[np.int16]:
    """The symbols of coefficients in steps, of any shape."""
    return np.asarray(quantised(values).clip(-32768, 32767).astype(np.int16))
