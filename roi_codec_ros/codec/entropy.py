# SPDX-License-Identifier: Apache-2.0
"""Integer probability tables of the entropy coder, by latent channel and context."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from roi_codec_ros.common.errors import ModelFileError

PRECISION = 16  # bits of the cumulative frequencies
TOTAL = 1 << PRECISION
ESCAPE_BITS = 16  # bits of a value that is coded outside its table
VALUE_MIN, VALUE_MAX = -(1 << 15), (1 << 15) - 1  # range of int16 symbols
FARTHEST_BOUND = 127  # between two contexts, and its negative


@dataclass(frozen=True, eq=False)
class EntropyTables:
    """Cumulative frequencies of the symbols of each channel in each context, as integers.

    Integers, because tables that are recomputed from floats differ between machines by one here
    and there, and then nearly every symbol decodes wrong. The layout is that of compressai's
    `EntropyBottleneck` (`_quantized_cdf`, `_cdf_length`, `_offset`), with a row for each of the K
    contexts of a channel: that of channel c in context k is row c·K + k.

    Attributes:
        cdf: int32 [C·K, L]. Row r rises strictly from 0 to 65536 over its first `lengths[r]`
            entries; the rest of the row is 0.
        lengths: int32 [C·K], 3 or more: entries used in each row. Row r knows `lengths[r] - 1`
            symbols, of which the last is the escape for values outside the table.
        offsets: int32 [C·K]: the value that symbol 0 of each row stands for.
        bounds: int32 [K - 1], rising, -127 to 127: where one context ends and the next begins
            (`contexts_of`). None: every channel has one row, whatever is around.

    Raises:
        ModelFileError: a shape or an entry is not as above, or a symbol's value is not int16.
    """

    cdf: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray
    bounds: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))

    def __post_init__(self) -> None:
        for name in ("cdf", "lengths", "offsets", "bounds"):
            object.__setattr__(self, name, _as_frozen_int32(name, getattr(self, name)))
        _check_bounds(self.bounds)
        _check_shapes(self.cdf, self.lengths, self.offsets, self.contexts)
        _check_rows(self.cdf, self.lengths)
        _check_values(self.lengths, self.offsets)

    @property
    def channels(self) -> int:
        """Number of latent channels C."""
        return self.cdf.shape[0] // self.contexts

    @property
    def contexts(self) -> int:
        """Number of contexts K, 1 where what is around does not matter."""
        return len(self.bounds) + 1

    def contexts_of(self, symbols: np.ndarray) -> np.ndarray:
        """The context that each symbol is coded in: how many bounds 2·l + 2·a - d reaches.

        l is the symbol to the left, a the one above, d the one to the left of that, all of the
        same channel, and 0 outside the latent; the sum is one of 16 bits, wrapped around.

        Args:
            symbols: integers [C, H, W].

        Returns:
            int64 [C, H, W], 0 to K - 1.
        """
        around = np.pad(np.asarray(symbols, dtype=np.int64), ((0, 0), (1, 0), (1, 0)))
        left, above, corner = around[:, 1:, :-1], around[:, :-1, 1:], around[:, :-1, :-1]
        sums = (2 * left + 2 * above - corner).astype(np.int16)
        return np.searchsorted(self.bounds, sums, side="right")

    @classmethod
    def from_pmfs(
        cls,
        pmfs: Sequence[np.ndarray],
        tails: Sequence[float],
        offsets: Sequence[int],
        bounds: Sequence[int] = (),
    ) -> EntropyTables:
        """Quantise probabilities to 16 bits such that every symbol keeps at least 1/65536.

        Args:
            pmfs: C·K arrays [n_r]: the probability of the values offset, offset + 1, ...
            tails: C·K probabilities of all other values (the escape).
            offsets: C·K values that the first entry of each pmf stands for.
            bounds: K - 1, between the contexts.

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
            _quantise(np.append(np.asarray(pmf, dtype=np.float64).ravel(), tail), index)
            for index, (pmf, tail) in enumerate(zip(pmfs, tails, strict=True))
        ]
        lengths = np.array([len(row) + 1 for row in rows], dtype=np.int32)
        cdf = np.zeros((len(rows), int(lengths.max())), dtype=np.int32)
        for index, row in enumerate(rows):
            cdf[index, 1 : lengths[index]] = np.cumsum(row)
        return cls(cdf, lengths, np.asarray(offsets), np.asarray(bounds, dtype=np.int32))

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

    def code_length_bits(self, symbols: np.ndarray) -> np.ndarray:
        """Ideal code length of each symbol under these tables, the cost of escapes included.

        Args:
            symbols: integers [C, H, W].

        Returns:
            float64 [C, H, W], bits.
        """
        symbols = np.asarray(symbols)
        if symbols.ndim != 3 or symbols.shape[0] != self.channels:
            raise ValueError(f"expected symbols [{self.channels}, H, W], found {symbols.shape}")
        bits = np.empty(symbols.shape, dtype=np.float64)
        contexts = self.contexts_of(symbols)
        for row in range(len(self.lengths)):
            channel, context = divmod(row, self.contexts)
            here = contexts[channel] == context
            used = int(self.lengths[row])
            cost = PRECISION - np.log2(np.diff(self.cdf[row, :used]))
            cost[-1] += ESCAPE_BITS
            index = symbols[channel][here].astype(np.int64) - int(self.offsets[row])
            escape = used - 2
            bits[channel][here] = cost[np.where((index < 0) | (index > escape), escape, index)]
        return bits


def _as_frozen_int32(name: str, values: object) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ModelFileError(f"entropy tables: expected integers in {name}, found {array.dtype}")
    info = np.iinfo(np.int32)
    if array.size and (int(array.min()) < info.min or int(array.max()) > info.max):
        raise ModelFileError(f"entropy tables: expected 32-bit integers in {name}, found larger")
    frozen = np.array(array, dtype=np.int32, order="C")  # a copy that nobody else can change
    frozen.setflags(write=False)
    return frozen


def _check_bounds(bounds: np.ndarray) -> None:
    if bounds.ndim != 1 or len(bounds) > FARTHEST_BOUND:
        raise ModelFileError(
            f"entropy tables: expected 0 to {FARTHEST_BOUND} bounds, found {list(bounds.shape)}"
        )
    far = (bounds < -FARTHEST_BOUND) | (bounds > FARTHEST_BOUND)
    if far.any() or not (bounds[1:] > bounds[:-1]).all():
        raise ModelFileError(
            f"entropy tables: expected rising bounds of -{FARTHEST_BOUND} to {FARTHEST_BOUND}, "
            f"found {bounds.tolist()}"
        )


def _check_shapes(
    cdf: np.ndarray, lengths: np.ndarray, offsets: np.ndarray, contexts: int
) -> None:
    if cdf.ndim != 2 or cdf.shape[0] < 1 or not 3 <= cdf.shape[1] <= TOTAL + 1:
        raise ModelFileError(
            f"entropy tables: expected cdf [C, 3..{TOTAL + 1}], found {list(cdf.shape)}"
        )
    if cdf.shape[0] % contexts:
        raise ModelFileError(
            f"entropy tables: expected rows for {contexts} contexts of each channel, "
            f"found {cdf.shape[0]}"
        )
    for name, array in (("lengths", lengths), ("offsets", offsets)):
        if array.shape != (cdf.shape[0],):
            raise ModelFileError(
                f"entropy tables: expected {name} [{cdf.shape[0]}], found {list(array.shape)}"
            )


def _check_rows(cdf: np.ndarray, lengths: np.ndarray) -> None:
    for index, used in enumerate(lengths.tolist()):
        if not 3 <= used <= cdf.shape[1]:
            raise ModelFileError(
                f"entropy tables: expected a length of 3 to {cdf.shape[1]} in row {index}, "
                f"found {used}"
            )
        row = cdf[index]
        if row[0] != 0 or row[used - 1] != TOTAL:
            raise ModelFileError(
                f"entropy tables: expected row {index} to run from 0 to {TOTAL}, "
                f"found {row[0]} to {row[used - 1]}"
            )
        # Compared, not subtracted: a difference of hostile 32-bit entries could wrap around.
        if not bool((row[1:used] > row[: used - 1]).all()):
            raise ModelFileError(
                f"entropy tables: expected row {index} to rise strictly, found a step of 0 or less"
            )
        if row[used:].any():
            raise ModelFileError(
                f"entropy tables: expected zeros after entry {used} of row {index}, found others"
            )


def _check_values(lengths: np.ndarray, offsets: np.ndarray) -> None:
    for index, (used, first) in enumerate(zip(lengths.tolist(), offsets.tolist(), strict=True)):
        last = first + used - 3  # the escape stands for no value
        if first < VALUE_MIN or last > VALUE_MAX:
            raise ModelFileError(
                f"entropy tables: expected values of {VALUE_MIN} to {VALUE_MAX} in row "
                f"{index}, found {first} to {last}"
            )


def _quantise(probabilities: np.ndarray, index: int) -> np.ndarray:
    """Integer frequencies >= 1 that sum to 65536 and lose the fewest bits."""
    count = len(probabilities)
    if not 2 <= count <= TOTAL:
        raise ModelFileError(
            f"entropy tables: expected 1 to {TOTAL - 1} probabilities in row {index}, "
            f"found {count - 1}"
        )
    if not bool((np.isfinite(probabilities) & (probabilities >= 0)).all()):
        raise ModelFileError(
            f"entropy tables: expected finite probabilities >= 0 in row {index}, "
            f"found {probabilities.min()} to {probabilities.max()}"
        )
    total = float(probabilities.sum())
    if not 0 < total < math.inf:
        raise ModelFileError(
            f"entropy tables: expected row {index} to have mass, found a sum of {total}"
        )
    mass = probabilities / total
    frequencies = np.maximum(1, np.rint(mass * TOTAL)).astype(np.int64)
    surplus = int(frequencies.sum()) - TOTAL
    step = -1 if surplus > 0 else 1

    def cost(symbol: int) -> float:
        frequency = int(frequencies[symbol])
        if frequency + step < 1:
            return math.inf
        return float(mass[symbol]) * math.log(frequency / (frequency + step))

    heap = [(cost(symbol), symbol) for symbol in range(count)] if surplus else []
    heapq.heapify(heap)
    for _ in range(abs(surplus)):
        symbol = heap[0][1]
        frequencies[symbol] += step
        heapq.heapreplace(heap, (cost(symbol), symbol))
    return frequencies
