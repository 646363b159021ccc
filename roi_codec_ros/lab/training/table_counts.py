# SPDX-License-Identifier: Apache-2.0
"""Tables of the entropy coder, counted on photographs, with predictors fitted to them.

Symbols are alike where they are neighbours. So once a codec is trained, predictors are fitted to
the latents of training photographs, and what is left is counted by context
(`spatial.coded_symbols`). The pictures stay as they are: only the bits become fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.entropy import NOT_CODED, EntropyTables
from roi_codec_ros.codec.spatial import (
    MOST_OF_BLOCK,
    ONE,
    activity_inputs,
    coded_symbols,
    neighbour_inputs,
)
from roi_codec_ros.codec.table_checks import (
    FRACTIONS,
    GROUP,
    MAX_ACTIVITY_WEIGHT,
    MAX_WEIGHT,
    NEIGHBOURS,
    REACH,
    TOTAL,
    WEIGHT_OF_ONE,
    known_before,
)
from roi_codec_ros.common.errors import RoiCodecError

BOUNDS = (1, 2, 4, 7, 11, 17, 26)  # of activities: narrow where most symbols are
_ACTIVITY_OF_ONE = 16.0  # the activity where a magnitude of 1 is to be expected
LARGEST = 63  # differences beyond are escapes
# What is believed before anything is counted, in symbols: of the next levels, of all contexts.
_FROM_LEVELS, _FROM_CHANNEL, _FROM_NOTHING = 0.3, 20.0, 0.5
_RIDGE = 1e-4  # of the mean square of a predictor's inputs


class Latent(NamedTuple):
    """Symbols int16 [C, h, w] of a frame, their blocks uint8 [h, w] and the classes' levels.

    None: one class, of level 0.
    """

    symbols: NDArray[np.int16]
    blocks: NDArray[np.uint8] | None = None
    levels: tuple[int, ...] | None = None


def counted_tables(
    latents: Sequence[Latent],
    coded_channels: Sequence[int],
    ladder: NDArray[np.int32],
    sources: Sequence[Sequence[tuple[int, int]]],
    map_cdf: NDArray[np.int32] | None = None,
) -> EntropyTables:
    """Tables of latents.

    Args:
        latents: of photographs.
        coded_channels, ladder, map_cdf: as in `EntropyTables`.
        sources: place and channel of the inputs of each predicted channel.

    Raises:
        RoiCodecError: there is no latent.
    """
    if not latents:
        raise RoiCodecError("expected photographs to count symbols on, found none")
    blank = _blank(coded_channels, ladder, map_cdf)
    blank = _blank(coded_channels, ladder, map_cdf, fitted_predictor(latents, blank, sources))
    blank = replace(blank, activity_weights=fitted_activity_weights(latents, blank))
    values = 2 * LARGEST + 2  # the last: an escape
    counts = np.zeros((len(blank.cdf), values))
    for symbols, blocks, levels in latents:
        known = coded_symbols(blank, symbols, blocks, levels)
        there = known.rows >= 0
        value = known.differences[there] + LARGEST
        value[(value < 0) | (value > 2 * LARGEST)] = 2 * LARGEST + 1
        np.add.at(counts, (known.rows[there], value), 1.0)
    pmfs, tails, offsets = [], [], []
    for density in _believed(counts, blank):
        likely = np.flatnonzero(density[:-1] * TOTAL >= 0.5)
        first, last = (LARGEST, LARGEST) if not len(likely) else (likely[0], likely[-1])
        pmfs.append(density[first : last + 1])
        tails.append(max(0.0, 1.0 - float(density[first : last + 1].sum())))
        offsets.append(int(first) - LARGEST)
    return EntropyTables.from_pmfs(
        pmfs,
        tails,
        offsets,
        BOUNDS,
        coded_channels=blank.coded_channels.tolist(),
        ladder=blank.ladder,
        predictor=blank.predictor,
        map_cdf=blank.map_cdf,
        activity_weights=blank.activity_weights,
    )


def fitted_predictor(
    latents: Iterable[Latent],
    tables: EntropyTables,
    sources: Sequence[Sequence[tuple[int, int]]],
) -> NDArray[np.int32]:
    """Weights of least squares, in steps: int32 [n, 4], as `EntropyTables.predictor`.

    tables: with the ladder. sources: place and channel of the inputs of each predicted channel.
    """
    channels = tables.predicted
    grams = [np.zeros((len(inputs), len(inputs))) for inputs in sources]
    targets = [np.zeros(len(inputs)) for inputs in sources]
    for symbols, blocks, levels in latents:
        level_of = tables.levels_of(blocks, levels, (symbols.shape[1], symbols.shape[2]))
        coded = level_of != NOT_CODED
        used = np.where(coded, tables.coded_channels[level_of], 0)
        steps = tables.ladder[level_of].transpose(2, 0, 1).astype(np.int64)
        there = np.arange(channels)[:, None, None] < used
        values = np.where(there, symbols[:channels] * steps, 0)
        around, predicts = neighbour_inputs(values, coded)
        for channel, inputs in enumerate(sources):
            chosen = predicts & there[channel]
            step = steps[channel, chosen]
            x = np.stack([around[place, source][chosen] / step for place, source in inputs])
            grams[channel] += x @ x.T
            targets[channel] += x @ (values[channel, chosen] / step)
    rows = []
    for channel, inputs in enumerate(sources):
        ridge = _RIDGE * np.trace(grams[channel]) / len(inputs) + 1e-9
        weights = np.linalg.solve(grams[channel] + ridge * np.eye(len(inputs)), targets[channel])
        whole = np.clip(np.rint(ONE * weights), -MAX_WEIGHT, MAX_WEIGHT).astype(int)
        rows += [
            (channel, place, source, weight)
            for (place, source), weight in zip(inputs, whole.tolist(), strict=True)
            if weight
        ]
    return np.array(rows, np.int32).reshape(-1, 4)


def fitted_activity_weights(latents: Iterable[Latent], tables: EntropyTables) -> NDArray[np.int32]:
    """Weights with which an activity comes closest to the magnitude that follows, in units of
    1 / `_ACTIVITY_OF_ONE`: int32 [C, 42], as `EntropyTables.activity_weights`.

    tables: with ladder and predictor.
    """
    from scipy.optimize import nnls

    counted = known_before(tables.channels, tables.predicted)
    seen = [np.flatnonzero([*known, *[True] * NEIGHBOURS]) for known in counted]
    grams = [np.zeros((len(inputs), len(inputs))) for inputs in seen]
    targets = [np.zeros(len(inputs)) for inputs in seen]
    for symbols, blocks, levels in latents:
        known = coded_symbols(tables, symbols, blocks, levels)
        magnitudes = np.minimum(np.abs(known.differences), MOST_OF_BLOCK)
        of_block, beside = activity_inputs(known.differences)
        for channel, inputs in enumerate(seen):
            there = known.rows[channel] >= 0
            of_group = of_block[channel // GROUP * GROUP :][:REACH]
            x = np.concatenate([of_group, beside[channel]])[inputs][:, there].astype(np.float64)
            grams[channel] += x @ x.T
            targets[channel] += x @ magnitudes[channel, there]
    weights = np.zeros((tables.channels, REACH + NEIGHBOURS), np.int32)
    for channel, inputs in enumerate(seen):
        ridge = _RIDGE * np.trace(grams[channel]) / len(inputs) + 1e-9
        exact, _ = nnls(grams[channel] + ridge * np.eye(len(inputs)), targets[channel])
        whole = np.rint(WEIGHT_OF_ONE * _ACTIVITY_OF_ONE * exact)
        weights[channel, inputs] = np.minimum(whole, MAX_ACTIVITY_WEIGHT)
    return weights


def _blank(
    coded_channels: Sequence[int],
    ladder: NDArray[np.int32],
    map_cdf: NDArray[np.int32] | None,
    predictor: NDArray[np.int32] | None = None,
) -> EntropyTables:
    """Tables that say nothing of symbols, only where each is counted."""
    coded = np.asarray(coded_channels)
    contexts = len(BOUNDS) + 1
    rows = contexts * int((coded + (FRACTIONS - 1) * np.minimum(coded, ladder.shape[1])).sum())
    return EntropyTables(
        np.tile(np.array([0, 1, TOTAL], np.int32), (rows, 1)),
        np.full(rows, 3, np.int32),
        np.zeros(rows, np.int32),
        np.array(BOUNDS, np.int32),
        coded_channels=coded,
        ladder=ladder,
        **({} if predictor is None else {"predictor": predictor}),
        **({} if map_cdf is None else {"map_cdf": map_cdf}),
    )


def _believed(counts: NDArray[np.float64], tables: EntropyTables) -> NDArray[np.float64]:
    """Probabilities in each row: what was counted, in the light of its neighbours' counts."""
    values = counts.shape[1]
    nothing = np.full(values, _FROM_NOTHING / values)
    nothing[LARGEST] += 4.0
    firsts = tables.first_row(np.arange(tables.levels))
    believed = np.empty_like(counts)
    for level, coded in enumerate(tables.coded_channels.tolist()):
        for channel in range(coded):
            more = FRACTIONS if channel < tables.predicted else 1
            start, size = int(tables.row_of_channel[channel]), more * tables.contexts
            rows = counts[firsts[level] + start :][:size].copy()
            for other in (level - 1, level + 1):
                if 0 <= other < tables.levels and tables.coded_channels[other] > channel:
                    rows += _FROM_LEVELS * counts[firsts[other] + start :][:size]
            together = rows.sum(axis=0)
            density = (together + nothing) / (together.sum() + nothing.sum())
            totals = rows.sum(axis=1, keepdims=True)
            believed[firsts[level] + start :][:size] = (rows + _FROM_CHANNEL * density) / (
                totals + _FROM_CHANNEL
            )
    return believed
