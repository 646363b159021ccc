# SPDX-License-Identifier: Apache-2.0
"""The entropy coder in NumPy and plain Python: reference for the C++ kernel, and its fallback.

Written to be read alongside docs/bitstream.md. Table look-ups in encoding are vectorised; the
states advance symbol by symbol in a Python loop, because eight lanes are too few to amortise
NumPy's overhead per call.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NoReturn

import numpy as np

from roi_codec_ros.codec.entropy import FIRST_CLASS, NOT_CODED, EntropyTables, map_contexts_of
from roi_codec_ros.codec.spatial import (
    FARTHEST,
    MIDDLE,
    MOST_OF_BLOCK,
    MOST_OF_NEIGHBOUR,
    ONE,
    CodedSymbols,
    coded_symbols,
)
from roi_codec_ros.codec.table_checks import FRACTIONS, GROUP, MAX_ACTIVITY, REACH, WEIGHT_OF_ONE

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
        self._inputs: list[list[tuple[int, int, int]]] = [[] for _ in range(tables.predicted)]
        for channel, *entry in tables.predictor.tolist():
            self._inputs[channel].append(tuple(entry))

    def encode(
        self, symbols: np.ndarray, blocks: np.ndarray, levels: np.ndarray, temporal: np.ndarray
    ) -> tuple[bytes, bytes]:
        """Code int16 symbols [C, h, w] of blocks uint8 [h, w] with levels [P]: map and body.

        temporal: uint8 [h, w], not 0 for blocks of differences to an earlier frame.
        """
        _, height, width = symbols.shape
        self._check_sides(height, width)
        known = coded_symbols(self._tables, symbols, blocks, levels, temporal != 0)
        return self._encode_map(blocks), self._encode_body(known)

    def _encode_map(self, blocks: np.ndarray) -> bytes:
        if (blocks == FIRST_CLASS).all():
            return b""
        contexts = map_contexts_of(blocks, self._tables.classes).ravel().tolist()
        states, words = [LOWEST], list[int]()
        for context, value in zip(contexts[::-1], blocks.ravel().tolist()[::-1], strict=True):
            cdf = self._map_cdfs[context]
            _put(states, words, 0, cdf[value], cdf[value + 1] - cdf[value])
        return _packed(states, words)

    def decode_map(self, map_bytes: bytes, height: int, width: int) -> np.ndarray:
        """Blocks uint8 [h, w]. Raises ValueError for invalid bytes."""
        self._check_sides(height, width)
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

    def _encode_body(self, known: CodedSymbols) -> bytes:
        starts, frequencies, raws = self._look_up(known)
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

    def decode_body(
        self, body: bytes, blocks: np.ndarray, levels: np.ndarray, temporal: np.ndarray
    ) -> np.ndarray:
        """Symbols int16 [C, h, w]; arrays as for `encode`. Raises ValueError for invalid bytes."""
        height, width = blocks.shape
        level_of = self._tables.levels_of(blocks, levels, (height, width))
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
        around = _Around(self._tables, level_of, temporal != 0, self._inputs)

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
            around.begin(place, level)
            for channel in range(coded_channels[level]):
                if index == shared and shared:
                    begin_tail()
                row, predicted = around.expect(channel)
                around.add(channel, take(index, row, channel), predicted)
                index += 1
        left = words[read:]
        if left and (not shared or rest or any(left)):
            _refuse("the end after the last symbol", f"{WORD_BYTES * len(left)} more bytes")
        if total and states[0] != LOWEST:
            _refuse(f"a last state of {LOWEST}", f"{states[0]} in state 0")
        symbols = np.array(around.symbols, dtype=np.int16).reshape(height, width, channels)
        return np.ascontiguousarray(symbols.transpose(2, 0, 1))

    def _check_sides(self, height: int, width: int) -> None:
        channels = self._tables.channels
        good = 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE
        if not good or channels * height * width > MAX_SYMBOLS:
            _refuse(
                f"sides of 1 to {MAX_SIDE} and at most {MAX_SYMBOLS} symbols",
                f"{channels}x{height}x{width}",
            )

    def _look_up(self, known: CodedSymbols) -> tuple[list[int], list[int], list[int | None]]:
        """Start, frequency, and the raw value of escapes (else None), in coding order."""
        tables = self._tables
        ordered = known.rows.transpose(1, 2, 0).ravel()
        coded = ordered >= 0
        row = ordered[coded]
        values = known.differences.transpose(1, 2, 0).ravel()[coded]
        entry = values - tables.offsets[row]
        escape = tables.lengths[row] - 2
        outside = (entry < 0) | (entry >= escape)
        entry[outside] = escape[outside]
        starts = tables.cdf[row, entry]
        raws = np.full(len(values), None, dtype=object)
        raws[outside] = values[outside] & 0xFFFF
        return starts.tolist(), (tables.cdf[row, entry + 1] - starts).tolist(), raws.tolist()


class _Around:
    """What is known of a block's symbols before each is decoded, as `coded_symbols` has it.

    symbols: for each block, in raster order, those that are coded, then zeros.
    """

    def __init__(
        self,
        tables: EntropyTables,
        level_of: np.ndarray,
        temporal: np.ndarray,
        inputs: list[list[tuple[int, int, int]]],
    ) -> None:
        self._bounds = tables.bounds.tolist()
        self._weights = tables.activity_weights.tolist()
        self._row_of_channel = tables.row_of_channel.tolist()
        self._first_rows = tables.first_row(np.arange(tables.levels)).tolist()
        self._predicted, self._inputs = tables.predicted, inputs
        self._ladder = tables.ladder.tolist()
        self._width = level_of.shape[1]
        places = level_of.size
        self.symbols = [[0] * tables.channels for _ in range(places)]
        self._magnitudes = [[0] * tables.channels for _ in range(places)]
        self._values = [[0] * tables.predicted for _ in range(places)]
        self._known = ((level_of != NOT_CODED) & ~temporal).ravel().tolist()

    def begin(self, place: int, level: int) -> None:
        """Turn to the next coded block."""
        width = self._width
        column, above_it = place % width, place >= width
        left = place - 1 if column else None
        above = place - width if above_it else None
        above_left = place - width - 1 if above_it and column else None
        above_right = place - width + 1 if above_it and column + 1 < width else None
        self._beside = (left, above)

        def known(*places: int | None) -> int | None:
            there = (p for p in places if p is not None and self._known[p])
            return next(there, None)

        by_left = known(left, above, above_left, above_right)
        by_above = known(above, by_left)
        nothing = [0] * self._predicted
        self._sources = [self._values[place]] + [
            nothing if there is None else self._values[there]
            for there in (
                by_left,
                by_above,
                known(above_left, by_above),
                known(above_right, by_above),
            )
        ]
        self._place, self._level = place, level
        self._lone = self._known[place] and by_left is None
        self._predicts = self._known[place] and by_left is not None

    def expect(self, channel: int) -> tuple[int, int]:
        """The row of the tables of a channel's symbol, and its prediction."""
        weights = self._weights[channel]
        first = channel // GROUP * GROUP - (REACH - GROUP)  # of the channels that count
        magnitudes = self._magnitudes[self._place][max(0, first) : first + REACH]
        of_block = weights[max(0, -first) :]
        total = sum(w * min(m, MOST_OF_BLOCK) for w, m in zip(of_block, magnitudes, strict=False))
        for weight, there in zip(weights[REACH:], self._beside, strict=True):
            if there is not None:
                total += weight * self._magnitudes[there][channel]
        activity = min(total // WEIGHT_OF_ONE, MAX_ACTIVITY)
        predicted, fraction = 0, MIDDLE
        if channel < self._predicted:
            if self._lone:
                activity = MAX_ACTIVITY
            if self._predicts:
                predicted, fraction = self._prediction(channel)
        context = bisect_right(self._bounds, activity)
        if channel < self._predicted:
            context = FRACTIONS * context + fraction
        row = self._first_rows[self._level] + self._row_of_channel[channel] + context
        return row, predicted

    def add(self, channel: int, difference: int, predicted: int) -> None:
        """Store a decoded symbol."""
        symbol = (difference + predicted + 0x8000) % 0x10000 - 0x8000
        self.symbols[self._place][channel] = symbol
        self._magnitudes[self._place][channel] = min(abs(difference), MOST_OF_NEIGHBOUR)
        if channel < self._predicted:
            self._values[self._place][channel] = symbol * self._ladder[self._level][channel]

    def _prediction(self, channel: int) -> tuple[int, int]:
        total = sum(
            weight * self._sources[place][source]
            for place, source, weight in self._inputs[channel]
        )
        unit = ONE * self._ladder[self._level][channel]
        predicted = max(-FARTHEST, min(FARTHEST, (2 * total + unit) // (2 * unit)))
        rest = 6 * (total - unit * predicted)
        return predicted, MIDDLE + (rest >= unit) - (rest < -unit)


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
