# SPDX-License-Identifier: Apache-2.0
"""Integer probability tables of the entropy coder, and the kinds of blocks in a frame.

A *block* is one position of a latent. It is skipped, hidden or coded as one of a few classes; each
class has a level, one of the steps of the model's ladder, and the symbols of its blocks are coded
by the tables of that level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from roi_codec_ros.codec.frequencies import neighbourly_map_cdf, quantise
from roi_codec_ros.codec.table_checks import (
    FRACTIONS,
    PRECISION,
    as_frozen_int32,
    channels_of_one_level,
    check_activity_weights,
    check_bounds,
    check_ladder,
    check_levels,
    check_map,
    check_predictor,
    check_row_count,
    check_rows,
    check_shapes,
    check_values,
    equal_activity_weights,
)
from roi_codec_ros.common.errors import ModelFileError

SKIPPED = 0  # unchanged since its stream last sent it
HIDDEN = 1  # a block of a hidden region: no symbol of it is coded
FIRST_CLASS = 2  # a block of class c is FIRST_CLASS + c
NOT_CODED = -1  # instead of a level: the block is not coded


# Attributes of `EntropyTables`, as they are stored.
TABLES = (
    "cdf",
    "lengths",
    "offsets",
    "bounds",
    "coded_channels",
    "ladder",
    "predictor",
    "map_cdf",
    "activity_weights",
)


@dataclass(frozen=True, eq=False)
class EntropyTables:
    """Cumulative frequencies of the symbols by level, channel and context, as integers.

    Integers, because tables recomputed from floats may differ by one between machines, and then
    nearly every symbol decodes wrong. The layout is that of compressai's `EntropyBottleneck`
    (`_quantized_cdf`, `_cdf_length`, `_offset`), with a row for each of the K contexts of each
    channel that is coded at each of the L levels. The first M channels are predicted from
    neighbouring blocks, and have 3·K contexts. Rows are in the order of levels, channels, contexts
    (`spatial.coded_symbols`).

    Attributes:
        cdf: int32 [R, N]. Row r rises strictly from 0 to 65536 over its first `lengths[r]`
            entries; the rest of the row is 0.
        lengths: int32 [R], 3 or more: entries used in each row. Row r knows `lengths[r] - 1`
            symbols, of which the last is the escape for values outside the table.
        offsets: int32 [R]: the value that symbol 0 of each row stands for.
        bounds: int32 [K - 1], rising, 1 to 255: boundaries between contexts, in units of
            `spatial.activities`. None: one context.
        coded_channels: int32 [L], 1 or more: how many channels, the first ones, are coded at each
            level. The most of them is the number of channels C of a latent. None: one level, at
            which all channels are coded. Multiples of 8 are coded fastest.
        ladder: int32 [L, M], 1 to 65535: the quantiser's step of each predicted channel at each
            level, in any unit that all share. Left out: M is 0.
        predictor: int32 [n, 4], rows of channel, place, source and weight, in the order of the
            channels: what the prediction of a channel adds up (`spatial`), a weight of 1024 being
            1. A source in the block itself is a channel before this one.
        map_cdf: int32 [(P + 3)², P + 3]: of the P + 2 values of a block, in the context of the
            blocks left of it and above (`map_contexts_of`). Each row rises strictly from 0 to
            65536. Left out: those of one class that `neighbourly_map_cdf` makes.
        activity_weights: int32 [C, 42], 0 to 255: of what counts in the activity of each channel's
            symbols, the channels of the four groups of eight before and of its own, then the
            blocks left and above (`spatial.activities`), 16 being 1. Of its own group, only
            predicted channels count those before them; the rest is 0. Left out: 16 for groups
            before, 32 for blocks.

    Raises:
        ModelFileError: a shape or an entry is not as above, or a symbol's value is not int16.
    """

    cdf: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray
    bounds: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    coded_channels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    ladder: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    predictor: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int32))
    map_cdf: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    activity_weights: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))

    def __post_init__(self) -> None:
        for name in TABLES:
            object.__setattr__(self, name, as_frozen_int32(name, getattr(self, name)))
        check_bounds(self.bounds)
        check_shapes(self.cdf, self.lengths, self.offsets)
        if self.coded_channels.size == 0:
            predicted = self.ladder.shape[-1]
            channels = channels_of_one_level(len(self.cdf), self.contexts, predicted)
            self._fill_in("coded_channels", np.array([channels]))
        check_levels(self.coded_channels)
        if self.ladder.size == 0:
            self._fill_in("ladder", np.zeros((self.levels, 0), np.int32))
        if self.map_cdf.size == 0:
            self._fill_in("map_cdf", neighbourly_map_cdf(1))
        if self.activity_weights.size == 0:
            self._fill_in("activity_weights", equal_activity_weights(self.channels))
        check_ladder(self.ladder, self.coded_channels)
        check_predictor(self.predictor, self.predicted)
        check_row_count(len(self.cdf), int(self._rows_of_levels.sum()))
        check_rows(self.cdf, self.lengths)
        check_values(self.lengths, self.offsets)
        check_map(self.map_cdf)
        check_activity_weights(self.activity_weights, self.channels, self.predicted)

    def _fill_in(self, name: str, values: np.ndarray) -> None:
        object.__setattr__(self, name, as_frozen_int32(name, values))

    @property
    def channels(self) -> int:
        """Number of latent channels C."""
        return int(self.coded_channels.max())

    @property
    def predicted(self) -> int:
        """Number of predicted channels M."""
        return self.ladder.shape[1]

    @property
    def contexts(self) -> int:
        """Number of contexts K of a channel that is not predicted."""
        return len(self.bounds) + 1

    @property
    def levels(self) -> int:
        """Number of levels L."""
        return len(self.coded_channels)

    @property
    def classes(self) -> int:
        """Number of block classes P."""
        return self.map_cdf.shape[1] - 3

    @property
    def row_of_channel(self) -> np.ndarray:
        """int64 [C]: the first row of each channel, counted from that of its level."""
        channel = np.arange(self.channels)
        more = (FRACTIONS - 1) * np.minimum(channel, self.predicted)
        return np.asarray(self.contexts * (channel + more), np.int64)

    @property
    def _rows_of_levels(self) -> np.ndarray:
        """int64 [L]"""
        coded = self.coded_channels.astype(np.int64)
        more = (FRACTIONS - 1) * np.minimum(coded, self.predicted)
        return np.asarray(self.contexts * (coded + more))

    def first_row(self, level_of: np.ndarray) -> np.ndarray:
        """The first row of levels: int64, of their shape. NOT_CODED gives any."""
        rows = self._rows_of_levels
        return np.asarray((np.cumsum(rows) - rows)[level_of])

    def levels_of(
        self,
        blocks: np.ndarray | None,
        levels: Sequence[int] | np.ndarray | None,
        size: tuple[int, int],
    ) -> np.ndarray:
        """The level of each block: int64 [h, w], -1 if it is not coded.

        Args:
            blocks: integers [h, w], SKIPPED, HIDDEN or FIRST_CLASS + class. None: all of class 0.
            levels: the level of each of the P classes, 0 to L - 1. None: 0 for all.
            size: (h, w).

        Raises:
            ValueError: a shape or a value is invalid.
        """
        given = np.zeros(self.classes, np.int64) if levels is None else np.asarray(levels)
        if given.shape != (self.classes,) or not ((given >= 0) & (given < self.levels)).all():
            raise ValueError(
                f"expected a level of 0 to {self.levels - 1} for each of {self.classes} classes, "
                f"found {given.tolist()}"
            )
        blocks = np.full(size, FIRST_CLASS) if blocks is None else np.asarray(blocks)
        if blocks.shape != size or not ((blocks >= 0) & (blocks < self.classes + 2)).all():
            raise ValueError(
                f"expected blocks {list(size)} of 0 to {self.classes + 1}, "
                f"found {list(blocks.shape)} of {blocks.min(initial=0)} to {blocks.max(initial=0)}"
            )
        by_value = np.concatenate([[NOT_CODED, NOT_CODED], given]).astype(np.int64)
        return by_value[blocks]

    @classmethod
    def from_pmfs(
        cls,
        pmfs: Sequence[np.ndarray],
        tails: Sequence[float],
        offsets: Sequence[int],
        bounds: Sequence[int] = (),
        coded_channels: Sequence[int] = (),
        ladder: np.ndarray | None = None,
        predictor: np.ndarray | None = None,
        map_cdf: np.ndarray | None = None,
        activity_weights: np.ndarray | None = None,
    ) -> EntropyTables:
        """Quantise probabilities to 16 bits such that every symbol keeps at least 1/65536.

        Args:
            pmfs: R arrays [n_r]: the probability of the values offset, offset + 1, ...
            tails: R probabilities of all other values (escapes).
            offsets: R values that the first entry of each pmf stands for.
            bounds: K - 1 boundaries between contexts.
            coded_channels, ladder, predictor, map_cdf, activity_weights: as the attributes;
                optional as there.

        Raises:
            ModelFileError: a probability is negative or not finite, or a pmf has no entry, has
                too many, or sums to 0.
        """
        if not len(pmfs) == len(tails) == len(offsets):
            raise ModelFileError(
                "entropy tables: expected as many pmfs as tails and offsets, "
                f"found {len(pmfs)}, {len(tails)} and {len(offsets)}"
            )
        if len(pmfs) == 0:
            raise ModelFileError("entropy tables: expected at least 1 row, found none")
        rows = [
            quantise(np.append(np.asarray(pmf, dtype=np.float64).ravel(), tail), index)
            for index, (pmf, tail) in enumerate(zip(pmfs, tails, strict=True))
        ]
        lengths = np.array([len(row) + 1 for row in rows], dtype=np.int32)
        cdf = np.zeros((len(rows), int(lengths.max())), dtype=np.int32)
        for index, row in enumerate(rows):
            cdf[index, 1 : lengths[index]] = np.cumsum(row)
        return cls(
            cdf,
            lengths,
            np.asarray(offsets),
            np.asarray(bounds, dtype=np.int32),
            np.asarray(coded_channels, dtype=np.int32),
            np.zeros((0, 0), np.int32) if ladder is None else ladder,
            np.zeros((0, 4), np.int32) if predictor is None else predictor,
            np.zeros((0, 0), np.int32) if map_cdf is None else map_cdf,
            np.zeros((0, 0), np.int32) if activity_weights is None else activity_weights,
        )

    @classmethod
    def laplace(cls, channels: int, scale: float = 1.0) -> EntropyTables:
        """Tables of a Laplace density rounded to integers, the same for every channel.

        Args:
            channels: 1 or more.
            scale: diversity b of exp(-|x| / b) / 2b, in quantisation steps, 0.01 to 2000.
        """
        if channels < 1 or not 0.01 <= scale <= 2000.0:
            raise ModelFileError(
                "entropy tables: expected at least 1 channel and a scale of 0.01 to 2000, "
                f"found {channels} and {scale}"
            )
        # Beyond this radius the mass of both tails is below one table step.
        radius = math.ceil(scale * (PRECISION + 1) * math.log(2.0))
        values = np.abs(np.arange(-radius, radius + 1, dtype=np.float64))
        pmf = np.exp(-values / scale) * math.sinh(0.5 / scale)
        pmf[radius] = -math.expm1(-0.5 / scale)
        tail = math.exp(-(radius + 0.5) / scale)
        return cls.from_pmfs([pmf] * channels, [tail] * channels, [-radius] * channels)


def map_contexts_of(blocks: np.ndarray, classes: int) -> np.ndarray:
    """The context that each block of a map is coded in: its row of `EntropyTables.map_cdf`.

    (P + 3) · l + a: l is the block to the left, a the one above; P + 2 stands for what lies
    outside.

    Args:
        blocks: integers [h, w], 0 to P + 1.
        classes: P.

    Returns:
        int64 [h, w], 0 to (P + 3)² - 1.
    """
    values = np.asarray(blocks, dtype=np.int64)
    around = np.pad(values, ((1, 0), (1, 0)), constant_values=classes + 2)
    return (classes + 3) * around[1:, :-1] + around[:-1, 1:]
