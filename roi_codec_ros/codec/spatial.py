# SPDX-License-Identifier: Apache-2.0
"""What the entropy coder knows of a symbol before it decodes it: the blocks around, and the block.

Predicted channels, the slowest ones, are coded as differences to a linear prediction from the
blocks around. Every symbol is coded in a context: how much was coded around it. This is the
vectorised reference; the format is defined in docs/bitstream.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.entropy import NOT_CODED, EntropyTables
from roi_codec_ros.codec.table_checks import (
    ESCAPE_BITS,
    FRACTIONS,
    GROUP,
    MAX_ACTIVITY,
    PRECISION,
    REACH,
    WEIGHT_OF_ONE,
)

HERE, LEFT, ABOVE, ABOVE_LEFT, ABOVE_RIGHT = range(5)  # places of a predictor's inputs
ONE = 1024  # weight of 1
FARTHEST = 4095  # largest prediction in steps, also negated
MIDDLE = 1  # fraction of a prediction close to a whole number of steps
MOST_OF_BLOCK, MOST_OF_NEIGHBOUR = 3, 15  # that a symbol counts in an activity


@dataclass(frozen=True, eq=False)
class CodedSymbols:
    """What is coded of a latent.

    differences: int64 [C, h, w], the symbols less their predictions, as 16-bit integers; 0 where
        nothing is coded. rows: int64 [C, h, w], the row of the tables of each; -1 where nothing is
        coded.
    """

    differences: NDArray[np.int64]
    rows: NDArray[np.int64]


def coded_symbols(
    tables: EntropyTables,
    symbols: NDArray[np.int16],
    blocks: NDArray[np.uint8] | None = None,
    levels: Sequence[int] | NDArray[np.uint8] | None = None,
    temporal: NDArray[np.bool_] | None = None,
) -> CodedSymbols:
    """The differences to code, and their tables.

    Args:
        tables: of C channels.
        symbols: integers [C, h, w].
        blocks, levels: as for `EntropyTables.levels_of`.
        temporal: bool [h, w], blocks whose symbols are differences to an earlier frame. They are
            neither predicted, nor predicted from. None: no block.

    Raises:
        ValueError: an array is invalid.
    """
    symbols = np.asarray(symbols)
    if symbols.ndim != 3 or symbols.shape[0] != tables.channels:
        raise ValueError(f"expected symbols [{tables.channels}, H, W], found {symbols.shape}")
    size = (symbols.shape[1], symbols.shape[2])
    level_of = tables.levels_of(blocks, levels, size)
    known = level_of != NOT_CODED
    if temporal is not None:
        known &= ~temporal
    used = np.where(level_of == NOT_CODED, 0, tables.coded_channels[level_of])
    coded = np.arange(tables.channels)[:, None, None] < used
    differences = np.where(coded, symbols, 0).astype(np.int64)
    fractions = np.full((tables.predicted, *size), MIDDLE)
    lone = np.zeros(size, np.bool_)
    if tables.predicted:
        steps = tables.ladder[level_of].transpose(2, 0, 1).astype(np.int64)
        values = np.where(known, differences[: tables.predicted] * steps, 0)
        inputs, chosen = neighbour_inputs(values, known)
        lone = known & ~chosen
        for channel in range(tables.predicted):
            predicted, fraction = _prediction(tables, channel, inputs, steps[channel])
            here = chosen & coded[channel]
            differences[channel] -= np.where(here, predicted, 0)
            fractions[channel] = np.where(here, fraction, MIDDLE)
        differences = differences.astype(np.int16).astype(np.int64)
    activity = activities(differences, tables.activity_weights)
    activity[: tables.predicted, lone] = MAX_ACTIVITY
    contexts = np.searchsorted(tables.bounds, activity, side="right")
    contexts[: tables.predicted] *= FRACTIONS
    contexts[: tables.predicted] += fractions
    rows = tables.first_row(level_of) + tables.row_of_channel[:, None, None] + contexts
    return CodedSymbols(differences, np.where(coded, rows, -1))


def activities(differences: NDArray[np.int64], weights: NDArray[np.int32]) -> NDArray[np.int64]:
    """How much is coded around each symbol: int64 [C, h, w], 0 to 255.

    A weighted sum of the magnitudes in the channels of the symbol's group and of the four groups
    before, to 3 each, and of those of the blocks left and above in this channel, to 15 each.
    differences: int64 [C, h, w]. weights: as `EntropyTables.activity_weights`.
    """
    channels, height, width = differences.shape
    weights = weights.astype(np.int64)
    of_block, beside = activity_inputs(differences)
    sums = np.einsum("cn,cnyx->cyx", weights[:, REACH:], beside)
    for first in range(0, channels, GROUP):
        of_group = weights[first : first + GROUP, :REACH]
        seen = of_block[first : first + REACH].reshape(REACH, -1)
        sums[first : first + GROUP] += (of_group @ seen).reshape(-1, height, width)
    return np.minimum(sums // WEIGHT_OF_ONE, MAX_ACTIVITY)


def activity_inputs(
    differences: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The magnitudes that count in activities.

    Those in the channels, int64 [n, h, w], of which a group that begins at channel c sees 40 from
    c on: those of four groups and its own; and those left and above of each symbol, int64
    [C, 2, h, w].
    """
    magnitudes = np.abs(differences)
    of_block = np.pad(
        np.minimum(magnitudes, MOST_OF_BLOCK), ((REACH - GROUP, GROUP - 1), (0, 0), (0, 0))
    )
    near = np.pad(np.minimum(magnitudes, MOST_OF_NEIGHBOUR), ((0, 0), (1, 0), (1, 0)))
    return of_block, np.stack([near[:, 1:, :-1], near[:, :-1, 1:]], axis=1)


def code_length_bits(
    tables: EntropyTables,
    symbols: NDArray[np.int16],
    blocks: NDArray[np.uint8] | None = None,
    levels: Sequence[int] | NDArray[np.uint8] | None = None,
) -> NDArray[np.float64]:
    """Ideal code length of each symbol under these tables, including the cost of escapes.

    Args:
        tables, symbols, blocks, levels: as for `coded_symbols`.

    Returns:
        float64 [C, h, w], bits; 0 where nothing is coded. Summed over the channels: those of
        each block.
    """
    known = coded_symbols(tables, symbols, blocks, levels)
    coded = known.rows >= 0
    row = known.rows[coded]
    entry = known.differences[coded] - tables.offsets[row]
    escape = tables.lengths[row] - 2
    outside = (entry < 0) | (entry >= escape)
    entry = np.where(outside, escape, entry)
    frequency = tables.cdf[row, entry + 1] - tables.cdf[row, entry]
    bits = np.zeros(known.rows.shape, dtype=np.float64)
    bits[coded] = PRECISION - np.log2(frequency) + ESCAPE_BITS * outside
    return bits


def neighbour_inputs(
    values: NDArray[np.int64], known: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What a predictor may use of each block, and where there is anything to predict from.

    Args:
        values: int64 [M, h, w], 0 in unknown blocks.
        known: bool [h, w].

    Returns:
        int64 [5, M, h, w], by place (`HERE`, …), where an unknown neighbour is replaced by a known
        one; bool [h, w], blocks with a known neighbour.
    """
    left, above, above_left, above_right = _around(values)
    knows_left, knows_above, knows_above_left, knows_above_right = around = _around(known)
    last = np.where(knows_above_left, above_left, np.where(knows_above_right, above_right, 0))
    left = np.where(knows_left, left, np.where(knows_above, above, last))
    above = np.where(knows_above, above, left)
    above_left = np.where(knows_above_left, above_left, above)
    above_right = np.where(knows_above_right, above_right, above)
    inputs = np.stack([values, left, above, above_left, above_right]).astype(np.int64)
    return inputs, known & np.any(around, axis=0)


def _around(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """The values [..., h, w] left, above, above left and above right: [4, ..., h, w]."""
    sides = [(0, 0)] * (values.ndim - 2)
    near = np.pad(values, [*sides, (1, 0), (1, 1)])
    shifted = (
        near[..., 1:, :-2],
        near[..., :-1, 1:-1],
        near[..., :-1, :-2],
        near[..., :-1, 2:],
    )
    return np.stack(shifted)


def _prediction(
    tables: EntropyTables, channel: int, inputs: NDArray[np.int64], steps: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Predicted symbols [h, w] of a channel, and on which side the prediction lies: 0 to 2."""
    total = np.zeros(steps.shape, np.int64)
    for _, place, source, weight in tables.predictor[tables.predictor[:, 0] == channel].tolist():
        total += weight * inputs[place, source]
    unit = ONE * steps
    predicted = np.clip((2 * total + unit) // (2 * unit), -FARTHEST, FARTHEST)
    rest = 6 * (total - unit * predicted)
    return predicted, MIDDLE + (rest >= unit).astype(np.int64) - (rest < -unit)
