# SPDX-License-Identifier: Apache-2.0
"""Probabilities as 16-bit integer frequencies, identical on every machine."""

from __future__ import annotations

import heapq
import math

import numpy as np

from roi_codec_ros.codec.table_checks import TOTAL
from roi_codec_ros.common.errors import ModelFileError


def map_cdf_of(pmfs: np.ndarray) -> np.ndarray:
    """Tables of block maps, quantised such that every value keeps at least 1/65536.

    Args:
        pmfs: [(P + 3)², P + 2], probabilities or counts, none of whose rows is all 0.

    Returns:
        int32 [(P + 3)², P + 3], for `EntropyTables.map_cdf`.

    Raises:
        ModelFileError: an entry is negative or not finite, or a row sums to 0.
    """
    rows = [quantise(row, index) for index, row in enumerate(np.asarray(pmfs, dtype=np.float64))]
    return np.pad(np.cumsum(rows, axis=1), ((0, 0), (1, 0))).astype(np.int32)


def neighbourly_map_cdf(classes: int) -> np.ndarray:
    """Default tables for block maps, without statistics: a block is mostly like its neighbours.

    A value is 9 times as likely as any other if one of the two neighbours has it, 17 times if both
    have. Integer arithmetic only, so that the tables are identical on every machine.

    Args:
        classes: P, 1 to 6.

    Returns:
        int32 [(P + 3)², P + 3], for `EntropyTables.map_cdf`.
    """
    values = classes + 2
    left, above = np.divmod(np.arange((values + 1) ** 2, dtype=np.int64), values + 1)
    value = np.arange(values)
    weights = 1 + 8 * (value == left[:, None]) + 8 * (value == above[:, None])
    steps = 1 + (TOTAL - values) * weights // weights.sum(axis=1, keepdims=True)
    steps[np.arange(len(steps)), weights.argmax(axis=1)] += TOTAL - steps.sum(axis=1)
    return np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0))).astype(np.int32)


def quantise(probabilities: np.ndarray, index: int) -> np.ndarray:
    """Integer frequencies of at least 1 that sum to 65536 and cost the fewest bits.

    probabilities: [N], in any unit. index: row number for the error message. Raises
    ModelFileError.
    """
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
