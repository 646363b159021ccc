# SPDX-License-Identifier: Apache-2.0
"""Tables that know what stands left of a symbol and above it, counted on photographs.

The entropy model that is trained along says how likely each symbol of a channel is wherever it
stands. Symbols are alike where they are neighbours; so once training is over, they are counted by
context (`EntropyTables.contexts_of`) in the latents of training photographs. Neither network
changes, and so neither does any picture: only the bits become fewer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.codec.encoding import Encoder
from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.table_checks import TOTAL
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.photographs import PhotographError, left_out, read_photograph

LOG = logging.getLogger(__name__)

# Thirteen contexts, narrow around 0, where most symbols are, and mirrored: 2·l + 2·a - d ≤ -24, …
BOUNDS = (-23, -13, -7, -4, -2, 0, 1, 3, 5, 8, 14, 24)
# What is believed before anything is counted, in symbols: the channel's density, then all its
# contexts together.
_FROM_TRAINING, _FROM_CHANNEL = 100.0, 20.0
MOST_PHOTOGRAPHS = 300  # of `fast`, 60 of them leave 0.7 % more bits
_LONGEST_SIDE = 1280  # px; larger ones are shrunk, as cameras' frames are


def latents_of(model: Model, photographs: Sequence[Path]) -> Iterator[np.ndarray]:
    """The symbols int16 [C, H, W] of up to `MOST_PHOTOGRAPHS` files, evenly taken.

    What can't be read is left out, and the log says so.
    """
    encoder = Encoder(model)
    count = min(len(photographs), MOST_PHOTOGRAPHS)
    broken: list[PhotographError] = []
    for index in range(count):
        try:
            pixels = read_photograph(photographs[index * len(photographs) // count])
        except PhotographError as error:
            broken.append(error)
            continue
        scale = _LONGEST_SIDE / max(pixels.shape[:2])
        if scale < 1.0:
            shrunk = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            pixels = np.asarray(shrunk, np.uint8)
        yield encoder.symbols(pixels)
    for sentence in left_out(broken, count):
        LOG.warning("contexts: %s", sentence)


def with_contexts(tables: EntropyTables, latents: Iterable[np.ndarray]) -> EntropyTables:
    """Tables of the contexts between `BOUNDS`, for a model whose channels have one row each.

    Args:
        tables: of the entropy model, one row for each of the C channels.
        latents: symbols int16 [C, H, W] of photographs, of any sizes.

    Raises:
        RoiCodecError: there is no latent, or the tables have contexts already, or levels.
    """
    if (tables.contexts, tables.levels, tables.classes) != (1, 1, 1):
        raise RoiCodecError(
            "expected tables without contexts, levels and classes, found "
            f"{tables.contexts}, {tables.levels} and {tables.classes}"
        )
    channels, contexts = tables.channels, len(BOUNDS) + 1
    lowest = int(tables.offsets.min())
    size = int((tables.offsets + tables.lengths).max()) - 2 - lowest
    counts = np.zeros((channels * contexts, size + 1))  # of each value, the last: of no value
    where = EntropyTables(
        np.tile(np.array([0, 1, TOTAL], np.int32), (len(counts), 1)),
        np.full(len(counts), 3),
        np.zeros(len(counts), np.int32),
        np.array(BOUNDS),
    )
    seen = False
    for latent in latents:
        rows = where.contexts_of(latent) + contexts * np.arange(channels)[:, None, None]
        values = latent.astype(np.int64) - lowest
        values[(values < 0) | (values >= size)] = size
        np.add.at(counts, (rows.ravel(), values.ravel()), 1.0)
        seen = True
    if not seen:
        raise RoiCodecError("expected photographs to count symbols on, found none")
    pmfs, tails, offsets = [], [], []
    for channel in range(channels):
        counted = counts[channel * contexts : (channel + 1) * contexts]
        believed = _believed(counted, _density(tables, channel, lowest, size))
        for density in believed:
            first, last = _worth_a_step(density[:-1])
            pmfs.append(density[first:last])
            tails.append(1.0 - float(density[first:last].sum()))
            offsets.append(lowest + first)
    return EntropyTables.from_pmfs(pmfs, np.maximum(tails, 0.0).tolist(), offsets, BOUNDS)


def _density(tables: EntropyTables, channel: int, lowest: int, size: int) -> np.ndarray:
    """A channel's probabilities of ``size`` values from ``lowest`` on, and of all others."""
    used = int(tables.lengths[channel])
    steps = np.diff(tables.cdf[channel, :used]) / TOTAL
    density = np.zeros(size + 1)
    start = int(tables.offsets[channel]) - lowest
    density[start : start + used - 2] = steps[:-1]
    density[size] = steps[-1]
    return density


def _believed(counted: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Probabilities in each context, [K, size + 1], after ``counted`` of them."""
    together = counted.sum(axis=0)
    channel = (together + _FROM_TRAINING * density) / (together.sum() + _FROM_TRAINING)
    totals = counted.sum(axis=1, keepdims=True)
    return (counted + _FROM_CHANNEL * channel) / (totals + _FROM_CHANNEL)


def _worth_a_step(density: np.ndarray) -> tuple[int, int]:
    """The shortest range outside of which no value has half a step of the table; never empty."""
    likely = np.flatnonzero(density * TOTAL >= 0.5)
    if len(likely) == 0:
        likely = np.array([int(density.argmax())])
    return int(likely[0]), int(likely[-1]) + 1
