# SPDX-License-Identifier: Apache-2.0
"""Our entropy coder and compressai's: time and size on the same symbols, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.table_checks import PRECISION
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.tables import text_table

DEFAULT_SHAPE = (256, 32, 32)
DEFAULT_BITS_PER_SYMBOL = (0.2, 0.5, 1.0, 2.0)
DEFAULT_ROUNDS = 25
CHANNEL_SPREAD = 0.3  # standard deviation of the logarithm of the channels' scales


@dataclass(frozen=True)
class EntropyMeasurement:
    """One shape at one rate; times are medians in ms of the one thread's processor time.

    On an idle machine that is the time on the wall; on a busy one, wall time would flatter the
    faster coder, whose calls are short enough to be interrupted rarely.

    `compressai_encode_ms` and `compressai_decode_ms` are what compressai's entropy models spend on
    coding: tensors to Python lists, the coder, a tensor from the list. The `*_coder_only_ms`
    leave the lists out. `excess_over_shannon` is bytes over the ideal code length of the drawn
    symbols under the distribution they were drawn from, minus 1.
    """

    shape: tuple[int, int, int]
    bits_per_symbol: float
    ours_encode_ms: float
    ours_decode_ms: float
    compressai_encode_ms: float
    compressai_decode_ms: float
    compressai_encode_coder_only_ms: float
    compressai_decode_coder_only_ms: float
    excess_over_shannon: float


def measure(
    shape: tuple[int, int, int] = DEFAULT_SHAPE,
    rates: Sequence[float] = DEFAULT_BITS_PER_SYMBOL,
    *,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
) -> list[EntropyMeasurement]:
    """Measure each rate, ours and compressai's taking turns.

    Args:
        shape: of the symbols, [C, H, W].
        rates: entropies of the distributions to draw from, bits per symbol.
        rounds: times that each coder is run; medians are reported.
        seed: of the symbols.

    Raises:
        UsageError: compressai is not installed.
        RoiCodecError: a coder does not give the symbols back.
    """
    return [_measure(shape, rate, rounds, seed) for rate in rates]


def _measure(
    shape: tuple[int, int, int], rate: float, rounds: int, seed: int
) -> EntropyMeasurement:
    rng = np.random.default_rng(seed)
    pmfs = _laplace_pmfs(shape[0], rate, rng)
    symbols, ideal_bits = _draw(pmfs, shape, rng)
    tables = _tables(pmfs)
    ours = RansCoder(tables)
    theirs = _Compressai(tables, symbols)

    block_map, body = ours.encode(symbols)
    string = theirs.encode()
    _expect_same(ours.decode(block_map, body, *shape[1:])[0], symbols, "ours")
    _expect_same(theirs.decode(string), symbols, "compressai")
    times = _take_turns(
        {
            "ours_encode": lambda: ours.encode(symbols),
            "compressai_encode": theirs.encode,
            "compressai_encode_coder_only": theirs.encode_lists,
            "ours_decode": lambda: ours.decode(block_map, body, *shape[1:]),
            "compressai_decode": lambda: theirs.decode(string),
            "compressai_decode_coder_only": lambda: theirs.decode_lists(string),
        },
        rounds,
    )
    return EntropyMeasurement(
        shape=shape,
        bits_per_symbol=rate,
        excess_over_shannon=8 * len(body) / ideal_bits - 1,
        **{f"{name}_ms": value for name, value in times.items()},
    )


def _take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            times[name].append(1e3 * (time.thread_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


class _Compressai:
    """compressai's rANS coder, called as its `EntropyModel.compress` and `decompress` do."""

    def __init__(self, tables: EntropyTables, symbols: np.ndarray) -> None:
        try:
            import torch
            from compressai import ans
        except ImportError as error:
            raise UsageError(
                "compressai, to compare with, is not installed: "
                "install the training extra (pip install 'roi_codec_ros[train]')"
            ) from error
        torch.set_num_threads(1)
        self._torch = torch
        self._encoder, self._decoder = ans.RansEncoder(), ans.RansDecoder()
        self._symbols = torch.from_numpy(symbols.astype(np.int32))
        self._indexes = torch.arange(tables.channels, dtype=torch.int32)
        self._indexes = self._indexes[:, None, None].expand(symbols.shape).contiguous()
        self._tables = [
            torch.from_numpy(array.copy())
            for array in (tables.cdf, tables.lengths, tables.offsets)
        ]
        self._symbol_list = self._symbols.reshape(-1).tolist()
        self._model_lists = self._lists()

    def _lists(self) -> list[list[Any]]:
        return [tensor.tolist() for tensor in (self._indexes.reshape(-1), *self._tables)]

    def encode(self) -> bytes:
        symbols = self._symbols.reshape(-1).tolist()
        return self._encoder.encode_with_indexes(symbols, *self._lists())

    def encode_lists(self) -> bytes:
        return self._encoder.encode_with_indexes(self._symbol_list, *self._model_lists)

    def decode(self, string: bytes) -> np.ndarray:
        values = self._decoder.decode_with_indexes(string, *self._lists())
        tensor = self._torch.tensor(values, dtype=self._torch.int32)
        return tensor.reshape(self._symbols.shape).numpy()

    def decode_lists(self, string: bytes) -> list[int]:
        return self._decoder.decode_with_indexes(string, *self._model_lists)


def _laplace_pmfs(channels: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """[C, 2R + 1]: rounded Laplace densities of various scales whose mean entropy is `rate`."""
    spread = np.exp(CHANNEL_SPREAD * rng.standard_normal(channels))
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = (low * high) ** 0.5
        too_low = _mean_entropy(_laplace_pmf(middle * spread)) < rate
        low, high = (middle, high) if too_low else (low, middle)
    return _laplace_pmf(low * spread)


def _laplace_pmf(scales: np.ndarray) -> np.ndarray:
    radius = 1 + int(np.ceil(30 * scales.max()))
    edges = np.arange(-radius, radius + 2) - 0.5
    # By the smaller tail on each side, so that no small difference of large numbers is taken.
    upper = 0.5 * np.exp(-np.abs(edges) / scales[:, None])
    cumulative = np.where(edges < 0, upper, 1 - upper)
    pmf = np.diff(cumulative, axis=1)
    pmf[:, radius + 1 :] = pmf[:, :radius][:, ::-1]
    return pmf / pmf.sum(axis=1, keepdims=True)


def _mean_entropy(pmfs: np.ndarray) -> float:
    logarithms = np.log2(pmfs, out=np.zeros_like(pmfs), where=pmfs > 0)
    return float(-(pmfs * logarithms).sum(axis=1).mean())


def _draw(
    pmfs: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Symbols int16 [C, H, W] and their ideal code length in bits."""
    radius = pmfs.shape[1] // 2
    count = shape[1] * shape[2]
    drawn = np.stack([rng.choice(len(pmf), count, p=pmf) for pmf in pmfs])
    ideal_bits = -np.log2(np.take_along_axis(pmfs, drawn, axis=1)).sum()
    return (drawn - radius).astype(np.int16).reshape(shape), float(ideal_bits)


def _tables(pmfs: np.ndarray) -> EntropyTables:
    """Each channel's table holds the values that are likelier than half a step of the table."""
    middle = pmfs.shape[1] // 2
    rows, tails, offsets = [], [], []
    for pmf in pmfs:
        radius = max(1, int(np.count_nonzero(pmf[middle + 1 :] > 0.5 ** (PRECISION + 1))))
        row = pmf[middle - radius : middle + radius + 1]
        rows.append(row)
        tails.append(max(0.0, 1.0 - float(row.sum())))
        offsets.append(-radius)
    return EntropyTables.from_pmfs(rows, tails, offsets)


def _expect_same(decoded: np.ndarray, symbols: np.ndarray, coder: str) -> None:
    if not np.array_equal(decoded, symbols):
        raise RoiCodecError(f"entropy bench ({coder}): expected the symbols back, found others")


def entropy_table(rows: Sequence[EntropyMeasurement]) -> str:
    """The measurements for the terminal; times in ms, ours first, then compressai's."""
    header = ["symbols", "bit", "encode", "decode", "theirs", "theirs", "faster", "excess"]
    return text_table(
        header,
        [
            [
                "x".join(map(str, row.shape)),
                f"{row.bits_per_symbol:g}",
                f"{row.ours_encode_ms:.2f}",
                f"{row.ours_decode_ms:.2f}",
                f"{row.compressai_encode_ms:.1f}",
                f"{row.compressai_decode_ms:.1f}",
                f"{row.compressai_encode_ms / row.ours_encode_ms:.0f}x, "
                f"{row.compressai_decode_ms / row.ours_decode_ms:.0f}x",
                f"{row.excess_over_shannon:.2%}",
            ]
            for row in rows
        ],
    )
