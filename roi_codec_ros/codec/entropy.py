# SPDX-License-Identifier: Apache-2.0
"""Integer probability tables of the entropy coder, one static table per latent channel."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from roi_codec_ros.codec.errors import ModelFileError

PRECISION = 16  # bits of the cumulative frequencies
TOTAL = 1 << PRECISION
ESCAPE_BITS = 16  # bits of a value that is coded outside its table
VALUE_MIN, VALUE_MAX = -(1 << 15), (1 << 15) - 1  # range of int16 symbols


@dataclass(frozen=True, eq=False)
class EntropyTables:
    """Cumulative frequencies of each channel's symbols, as integers.

    Integers, because tables that are recomputed from floats differ between machines by one here
    and there, and then nearly every symbol decodes wrong. The layout is that of compressai's
    `EntropyBottleneck` (`_quantized_cdf`, `_cdf_length`, `_offset`).

    Attributes:
        cdf: int32 [C, L]. Row c rises strictly from 0 to 65536 over its first `lengths[c]`
            entries; the rest of the row is 0.
        lengths: int32 [C], 3 or more: entries used in each row. Row c knows `lengths[c] - 1`
            symbols, of which the last is the escape for values outside the table.
        offsets: int32 [C]: the value that symbol 0 of each channel stands for.

    Raises:
        ModelFileError: a shape or an entry is not as above, or a symbol's value is not int16.
    """

    cdf: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        for name in ("cdf", "lengths", "offsets"):
            object.__setattr__(self, name, _as_frozen_int32(name, getattr(self, name)))
        _check_shapes(self.cdf, self.lengths, self.offsets)
        _check_rows(self.cdf, self.lengths)
        _check_values(self.lengths, self.offsets)

    @property
    def channels(self) -> int:
        """Number of latent channels C."""
        return self.cdf.shape[0]

    @classmethod
    def from_pmfs(
        cls, pmfs: Sequence[np.ndarray], tails: Sequence[float], offsets: Sequence[int]
    ) -> EntropyTables:
        """Quantise probabilities to 16 bits such that every symbol keeps at least 1/65536.

        Args:
            pmfs: C arrays [n_c]: the probability of the values offset, offset + 1, ...
            tails: C probabilities of all other values (the escape).
            offsets: C values that the first entry of each pmf stands for.

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
            raise ModelFileError("entropy tables: expected at least 1 channel, found none")
        rows = [
            _quantise(np.append(np.asarray(pmf, dtype=np.float64).ravel(), tail), channel)
            for channel, (pmf, tail) in enumerate(zip(pmfs, tails, strict=True))
        ]
        lengths = np.array([len(row) + 1 for row in rows], dtype=np.int32)
        cdf = np.zeros((len(rows), int(lengths.max())), dtype=np.int32)
        for channel, row in enumerate(rows):
            cdf[channel, 1 : lengths[channel]] = np.cumsum(row)
        return cls(cdf, lengths, np.asarray(offsets))

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
        for channel in range(self.channels):
            used = int(self.lengths[channel])
            cost = PRECISION - np.log2(np.diff(self.cdf[channel, :used]))
            cost[-1] += ESCAPE_BITS
            index = symbols[channel].astype(np.int64) - int(self.offsets[channel])
            escape = used - 2
            bits[channel] = cost[np.where((index < 0) | (index > escape), escape, index)]
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


def _check_shapes(cdf: np.ndarray, lengths: np.ndarray, offsets: np.ndarray) -> None:
    if cdf.ndim != 2 or cdf.shape[0] < 1 or not 3 <= cdf.shape[1] <= TOTAL + 1:
        raise ModelFileError(
            f"entropy tables: expected cdf [C, 3..{TOTAL + 1}], found {list(cdf.shape)}"
        )
    for name, array in (("lengths", lengths), ("offsets", offsets)):
        if array.shape != (cdf.shape[0],):
            raise ModelFileError(
                f"entropy tables: expected {name} [{cdf.shape[0]}], found {list(array.shape)}"
            )


def _check_rows(cdf: np.ndarray, lengths: np.ndarray) -> None:
    for channel, used in enumerate(lengths.tolist()):
        if not 3 <= used <= cdf.shape[1]:
            raise ModelFileError(
                f"entropy tables: expected a length of 3 to {cdf.shape[1]} in channel {channel}, "
                f"found {used}"
            )
        row = cdf[channel]
        if row[0] != 0 or row[used - 1] != TOTAL:
            raise ModelFileError(
                f"entropy tables: expected channel {channel} to run from 0 to {TOTAL}, "
                f"found {row[0]} to {row[used - 1]}"
            )
        # Compared, not subtracted: a difference of hostile 32-bit entries could wrap around.
        if not bool((row[1:used] > row[: used - 1]).all()):
            raise ModelFileError(
                f"entropy tables: expected channel {channel} to rise strictly, found a step of 0 "
                "or less"
            )
        if row[used:].any():
            raise ModelFileError(
                f"entropy tables: expected zeros after entry {used} of channel {channel}, "
                "found others"
            )


def _check_values(lengths: np.ndarray, offsets: np.ndarray) -> None:
    for channel, (used, first) in enumerate(zip(lengths.tolist(), offsets.tolist(), strict=True)):
        last = first + used - 3  # the escape stands for no value
        if first < VALUE_MIN or last > VALUE_MAX:
            raise ModelFileError(
                f"entropy tables: expected values of {VALUE_MIN} to {VALUE_MAX} in channel "
                f"{channel}, found {first} to {last}"
            )


def _quantise(probabilities: np.ndarray, channel: int) -> np.ndarray:
    """Integer frequencies >= 1 that sum to 65536 and lose the fewest bits."""
    count = len(probabilities)
    if not 2 <= count <= TOTAL:
        raise ModelFileError(
            f"entropy tables: expected 1 to {TOTAL - 1} probabilities in channel {channel}, "
            f"found {count - 1}"
        )
    if not bool((np.isfinite(probabilities) & (probabilities >= 0)).all()):
        raise ModelFileError(
            f"entropy tables: expected finite probabilities >= 0 in channel {channel}, "
            f"found {probabilities.min()} to {probabilities.max()}"
        )
    total = float(probabilities.sum())
    if not 0 < total < math.inf:
        raise ModelFileError(
            f"entropy tables: expected channel {channel} to have mass, found a sum of {total}"
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
