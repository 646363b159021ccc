# SPDX-License-Identifier: Apache-2.0
"""The entropy coder in NumPy and plain Python: reference for the C++ kernel, and its fallback.

Written to be read alongside docs/bitstream.md. Table look-ups in encoding are vectorised; the
states advance symbol by symbol in a Python loop, because eight lanes are too few to amortise
NumPy's overhead per call.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import NoReturn

import numpy as np

from roi_codec_ros.codec.entropy import (
    FARTHEST_NEIGHBOUR,
    FIRST_CLASS,
    NOT_CODED,
    EntropyTables,
    map_contexts_of,
)

LANES = 8  # interleaved states
TAIL = 1024  # this many last symbols belong to state 0
LOWEST = 1 << 16  # states are in [2^16, 2^32)
STATE_BYTES, WORD_BYTES = 4, 2
MAX_BYTES_PER_SYMBOL = 4  # an escape: two words
MAX_SIDE = 0xFFFF
MAX_SYMBOLS = 1 << 31


class Coder:
    """Same constructor data, methods, bytes and errors (`ValueError`) as the kernel's `Coder`."""

    def __init__(self, tables: EntropyTables) -> None:
        self._tables = tables
        lengths = tables.lengths.tolist()
        self._cdfs = [row[:used].tolist() for row, used in zip(tables.cdf, lengths, strict=True)]
        self._offsets = tables.offsets.tolist()
        self._bounds = tables.bounds.tolist()
        self._map_cdfs = tables.map_cdf.tolist()
        self._ratios = tables.ratios.tolist()

    def encode(
        self, symbols: np.ndarray, blocks: np.ndarray, levels: np.ndarray
    ) -> tuple[bytes, bytes]:
        """Code int16 symbols [C, h, w] of blocks uint8 [h, w] with levels [P]: map and body."""
        _, height, width = symbols.shape
        self._check_sides(height, width)
        rows = self._tables.rows_of(symbols, blocks, levels)
        return self._encode_map(blocks), self._encode_body(symbols, rows)

    def decode(
        self, map_bytes: bytes, body: bytes, height: int, width: int, levels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Symbols int16 [C, h, w] and blocks uint8 [h, w]. Raises ValueError for invalid bytes."""
        self._check_sides(height, width)
        self._tables.levels_of(None, levels, (height, width))  # checks the levels
        blocks = self._decode_map(map_bytes, height, width)
        level_of = self._tables.levels_of(blocks, levels, (height, width))
        return self._decode_body(body, level_of), blocks

    def _encode_map(self, blocks: np.ndarray) -> bytes:
        if (blocks == FIRST_CLASS).all():
            return b""
        contexts = map_contexts_of(blocks, self._tables.classes).ravel().tolist()
        states, words = [LOWEST], list[int]()
        for context, value in zip(contexts[::-1], blocks.ravel().tolist()[::-1], strict=True):
            cdf = self._map_cdfs[context]
            _put(states, words, 0, cdf[value], cdf[value + 1] - cdf[value])
        return _packed(states, words)

    def _decode_map(self, map_bytes: bytes, height: int, width: int) -> np.ndarray:
        blocks = np.full((height, width), FIRST_CLASS, np.uint8)
        if not map_bytes:
            return blocks
        largest = STATE_BYTES + WORD_BYTES * height * width
        if not STATE_BYTES <= len(map_bytes) <= largest or len(map_bytes) % WORD_BYTES:
            _refuse_map(
                f"no bytes or an even number of {STATE_BYTES} to {largest}", f"{len(map_bytes)}"
            )
        (state,), words = _unpacked(map_bytes, 1)
        if state < LOWEST:
            _refuse_map(f"a first state of {LOWEST} or more", f"{state}")
        outside = self._tables.classes + 2
        read = 0
        values: list[int] = []
        for place in range(height * width):
            left = values[place - 1] if place % width else outside
            above = values[place - width] if place >= width else outside
            cdf = self._map_cdfs[left * (outside + 1) + above]
            slot = state & 0xFFFF
            value = bisect_right(cdf, slot) - 1
            state = (cdf[value + 1] - cdf[value]) * (state >> 16) + slot - cdf[value]
            values.append(value)
            if state < LOWEST:
                if read == len(words):
                    _refuse_map(f"{height * width} blocks", f"the end after {place}")
                state = state << 16 | words[read]
                read += 1
        if read < len(words):
            _refuse_map(
                "the end after the last block", f"{WORD_BYTES * (len(words) - read)} more bytes"
            )
        if state != LOWEST:
            _refuse_map(f"a last state of {LOWEST}", f"{state}")
        blocks[:] = np.array(values, np.uint8).reshape(height, width)
        if (blocks == FIRST_CLASS).all():
            _refuse_map("no bytes for a map of class 0 alone", f"{len(map_bytes)}")
        return blocks

    def _encode_body(self, symbols: np.ndarray, rows: np.ndarray) -> bytes:
        starts, frequencies, raws = self._look_up(symbols, rows)
        total = len(starts)
        lanes = _lanes(total)
        shared = total - min(total, TAIL)
        states = [LOWEST] * _count_of_lanes(total)
        words: list[int] = []  # in coding order, which is the reverse of reading order

        def put_range(first: int, last: int) -> None:
            for index in range(last - 1, first - 1, -1):
                raw = raws[index]
                if raw is not None:
                    _put(states, words, lanes[index], raw, 1)
                _put(states, words, lanes[index], starts[index], frequencies[index])

        put_range(shared, total)
        if shared:
            absorbed = words[: LANES - 1]
            del words[: LANES - 1]
            for lane, word in enumerate(reversed(absorbed), start=1):
                states[lane] |= word
            put_range(0, shared)
        return _packed(states, words)

    def _decode_body(self, body: bytes, level_of: np.ndarray) -> np.ndarray:
        height, width = level_of.shape
        channels = self._tables.channels
        coded_channels = self._tables.coded_channels.tolist()
        levels = level_of.ravel().tolist()
        total = sum(coded_channels[level] for level in levels if level != NOT_CODED)
        head = STATE_BYTES * _count_of_lanes(total)
        largest = head + MAX_BYTES_PER_SYMBOL * total
        if not head <= len(body) <= largest or len(body) % WORD_BYTES:
            _refuse(f"an even number of {head} to {largest} bytes", f"{len(body)}")
        states, words = _unpacked(body, _count_of_lanes(total))
        for lane, state in enumerate(states):
            if state < LOWEST:
                _refuse(f"first states of {LOWEST} or more", f"{state} in state {lane}")
        read = 0
        lanes = _lanes(total)
        shared = total - min(total, TAIL)
        rest = 0
        # For each position the coded symbols, then zeros.
        latent = [[0] * channels for _ in levels]

        def take(index: int, row: int, channel: int) -> int:
            nonlocal read
            cdf = self._cdfs[row]
            lane = lanes[index]
            state = states[lane]
            slot = state & 0xFFFF
            symbol = bisect_right(cdf, slot) - 1
            start = cdf[symbol]
            state = (cdf[symbol + 1] - start) * (state >> 16) + slot - start
            if state < LOWEST:
                if read == len(words):
                    _refuse(f"{total} symbols", f"the end after {index}")
                state = state << 16 | words[read]
                read += 1
            value = self._offsets[row] + symbol
            escape = len(cdf) - 2
            if symbol == escape:
                raw = state & 0xFFFF
                value = raw - 0x10000 if raw & 0x8000 else raw
                if 0 <= value - self._offsets[row] < escape:
                    _refuse(
                        f"escapes only for values outside the table of channel {channel}",
                        f"{value}",
                    )
                if read == len(words):
                    _refuse(f"{total} symbols", f"the end after {index}")
                state = (state >> 16) << 16 | words[read]
                read += 1
            states[lane] = state
            return value

        def begin_tail() -> None:
            nonlocal rest
            rest = WORD_BYTES * (len(words) - read)
            if rest > MAX_BYTES_PER_SYMBOL * (total - shared):
                _refuse("the end after the last symbol", f"{rest} bytes before the tail")
            for lane, state in enumerate(states[1:], start=1):
                if state >> 16 != 1:
                    _refuse(
                        f"last states of {LOWEST} to {2 * LOWEST - 1}", f"{state} in state {lane}"
                    )
                words.append(state & 0xFFFF)

        index = 0
        for place, level in enumerate(levels):
            if level == NOT_CODED:
                continue
            row_of = self._rows_at(place, level, levels, latent, width)
            for channel in range(coded_channels[level]):
                if index == shared and shared:
                    begin_tail()
                latent[place][channel] = take(index, row_of(channel), channel)
                index += 1
        left = words[read:]
        if left and (not shared or rest or any(left)):
            _refuse("the end after the last symbol", f"{WORD_BYTES * len(left)} more bytes")
        if total and states[0] != LOWEST:
            _refuse(f"a last state of {LOWEST}", f"{states[0]} in state 0")
        symbols = np.array(latent, dtype=np.int16).reshape(height, width, channels)
        return np.ascontiguousarray(symbols.transpose(2, 0, 1))

    def _rows_at(
        self, place: int, level: int, levels: list[int], latent: list[list[int]], width: int
    ) -> Callable[[int], int]:
        """The table row of each channel of the block at ``place``, from its neighbours."""
        first = int(self._tables.first_rows[level])
        inside_left, inside_above = place % width > 0, place >= width

        def symbol(there: int, inside: bool, channel: int) -> int:
            if not inside or levels[there] == NOT_CODED:
                return 0
            value = latent[there][channel]
            if levels[there] == level:
                return value
            scaled = abs(value) * self._ratios[levels[there]][level] + 128 >> 8
            return min(scaled, FARTHEST_NEIGHBOUR) * (1 if value > 0 else -1)

        def row_of(channel: int) -> int:
            left = symbol(place - 1, inside_left, channel)
            above = symbol(place - width, inside_above, channel)
            corner = symbol(place - width - 1, inside_left and inside_above, channel)
            wrapped = (2 * left + 2 * above - corner + 0x8000) % 0x10000 - 0x8000
            context = bisect_right(self._bounds, wrapped)
            return first + channel * (len(self._bounds) + 1) + context

        return row_of

    def _check_sides(self, height: int, width: int) -> None:
        channels = self._tables.channels
        good = 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE
        if not good or channels * height * width > MAX_SYMBOLS:
            _refuse(
                f"sides of 1 to {MAX_SIDE} and at most {MAX_SYMBOLS} symbols",
                f"{channels}x{height}x{width}",
            )

    def _look_up(
        self, symbols: np.ndarray, rows: np.ndarray
    ) -> tuple[list[int], list[int], list[int | None]]:
        """Start, frequency, and the raw value of escapes (else None), in coding order."""
        tables = self._tables
        ordered = rows.transpose(1, 2, 0).ravel()
        coded = ordered >= 0
        row = ordered[coded]
        values = symbols.transpose(1, 2, 0).ravel()[coded].astype(np.int64)
        entry = values - tables.offsets[row]
        escape = tables.lengths[row] - 2
        outside = (entry < 0) | (entry >= escape)
        entry[outside] = escape[outside]
        starts = tables.cdf[row, entry]
        raws = np.full(len(values), None, dtype=object)
        raws[outside] = values[outside] & 0xFFFF
        return starts.tolist(), (tables.cdf[row, entry + 1] - starts).tolist(), raws.tolist()


def _put(states: list[int], words: list[int], lane: int, start: int, frequency: int) -> None:
    state = states[lane]
    if state >> 16 >= frequency:
        words.append(state & 0xFFFF)
        state >>= 16
    states[lane] = (state // frequency << 16) + state % frequency + start


def _packed(states: list[int], words: list[int]) -> bytes:
    """Serialise states, then words in reading order."""
    return np.array(states, dtype="<u4").tobytes() + np.array(words[::-1], dtype="<u2").tobytes()


def _unpacked(data: bytes, lanes: int) -> tuple[list[int], list[int]]:
    states = np.frombuffer(data, dtype="<u4", count=lanes).tolist()
    return states, np.frombuffer(data, dtype="<u2", offset=STATE_BYTES * lanes).tolist()


def _count_of_lanes(total: int) -> int:
    """Number of states: eight; one if all symbols are in the tail; none without symbols."""
    return LANES if total > TAIL else min(total, 1)


def _lanes(total: int) -> list[int]:
    """The state of each symbol: its index in coding order modulo 8, and 0 in the tail."""
    lanes = np.arange(total) % LANES
    lanes[-TAIL:] = 0
    return lanes.tolist()


def _refuse(expected: str, found: str) -> NoReturn:
    raise ValueError(f"rANS body: expected {expected}, found {found}")


def _refuse_map(expected: str, found: str) -> NoReturn:
    raise ValueError(f"block map: expected {expected}, found {found}")
