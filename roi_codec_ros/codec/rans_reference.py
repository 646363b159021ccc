# SPDX-License-Identifier: Apache-2.0
"""The entropy coder in NumPy and plain Python: oracle of the C++ kernel, and its fallback.

Written to be read beside docs/bitstream.md. Table look-ups in encoding are NumPy's, a row of the
tables at a time; the eight states advance symbol by symbol in a Python loop, because eight lanes
are too few for NumPy's cost per call to pay.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NoReturn

import numpy as np

from roi_codec_ros.codec.entropy import EntropyTables

LANES = 8  # interleaved states
TAIL = 1024  # so many last symbols belong to state 0 alone
LOWEST = 1 << 16  # states live in [2^16, 2^32)
HEAD_BYTES = 4 * LANES
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

    def encode(self, symbols: np.ndarray) -> bytes:
        """Code int16 symbols [C, H, W]."""
        _, height, width = symbols.shape
        total = self._checked_total(height, width)
        starts, frequencies, escaped = self._look_up(symbols)
        lanes = _lanes(total)
        shared = total - min(total, TAIL)

        states = [LOWEST] * LANES
        words: list[int] = []  # in coding order, which is the reverse of reading order

        def put(lane: int, start: int, frequency: int) -> None:
            state = states[lane]
            if state >> 16 >= frequency:
                words.append(state & 0xFFFF)
                state >>= 16
            states[lane] = (state // frequency << 16) + state % frequency + start

        def put_range(first: int, last: int) -> None:
            for index in range(last - 1, first - 1, -1):
                raw = escaped[index]
                if raw is not None:
                    put(lanes[index], raw, 1)
                put(lanes[index], starts[index], frequencies[index])

        put_range(shared, total)
        absorbed = words[: LANES - 1]
        del words[: LANES - 1]
        for lane, word in enumerate(reversed(absorbed), start=1):
            states[lane] |= word
        put_range(0, shared)

        head = np.array(states, dtype="<u4").tobytes()
        return head + np.array(words[::-1], dtype="<u2").tobytes()

    def decode(self, body: bytes, height: int, width: int) -> np.ndarray:
        """Decode int16 symbols [C, H, W]; ValueError if the body is not one of those."""
        total = self._checked_total(height, width)
        channels = self._tables.channels
        largest = HEAD_BYTES + MAX_BYTES_PER_SYMBOL * total
        if not HEAD_BYTES <= len(body) <= largest or len(body) % 2:
            _refuse(f"an even number of {HEAD_BYTES} to {largest} bytes", f"{len(body)}")
        states = np.frombuffer(body, dtype="<u4", count=LANES).tolist()
        for lane, state in enumerate(states):
            if state < LOWEST:
                _refuse(f"first states of {LOWEST} or more", f"{state} in state {lane}")
        words = np.frombuffer(body, dtype="<u2", offset=HEAD_BYTES).tolist()
        read = 0
        lanes = _lanes(total)
        shared = total - min(total, TAIL)
        symbols: list[int] = []  # in coding order, which is that of decoding

        def row_of(index: int) -> int:
            place, channel = divmod(index, channels)
            y, x = divmod(place, width)
            left = symbols[index - channels] if x else 0
            above = symbols[index - width * channels] if y else 0
            corner = symbols[index - (width + 1) * channels] if x and y else 0
            wrapped = (2 * left + 2 * above - corner + 0x8000) % 0x10000 - 0x8000
            context = bisect_right(self._bounds, wrapped)
            return channel * (len(self._bounds) + 1) + context

        def take_range(first: int, last: int) -> None:
            nonlocal read
            for index in range(first, last):
                row = row_of(index)
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
                            "escapes only for values outside the table of channel "
                            f"{index % channels}",
                            f"{value}",
                        )
                    if read == len(words):
                        _refuse(f"{total} symbols", f"the end after {index}")
                    state = (state >> 16) << 16 | words[read]
                    read += 1
                states[lane] = state
                symbols.append(value)

        take_range(0, shared)
        rest = 2 * (len(words) - read)
        if rest > MAX_BYTES_PER_SYMBOL * (total - shared):
            _refuse("the end after the last symbol", f"{rest} bytes before the tail")
        for lane, state in enumerate(states[1:], start=1):
            if state >> 16 != 1:
                _refuse(f"last states of {LOWEST} to {2 * LOWEST - 1}", f"{state} in state {lane}")
            words.append(state & 0xFFFF)
        take_range(shared, total)
        left = words[read:]
        if left and (rest or any(left)):
            _refuse("the end after the last symbol", f"{2 * len(left)} more bytes")
        if states[0] != LOWEST:
            _refuse(f"a last state of {LOWEST}", f"{states[0]} in state 0")
        latent = np.array(symbols, dtype=np.int16).reshape(height, width, channels)
        return np.ascontiguousarray(latent.transpose(2, 0, 1))

    def _checked_total(self, height: int, width: int) -> int:
        total = self._tables.channels * height * width
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE) or total > MAX_SYMBOLS:
            _refuse(
                f"sides of 1 to {MAX_SIDE} and at most {MAX_SYMBOLS} symbols",
                f"{self._tables.channels}x{height}x{width}",
            )
        return total

    def _look_up(self, symbols: np.ndarray) -> tuple[list[int], list[int], list[int | None]]:
        """Start, frequency, and the raw value of escapes (else None), in coding order."""
        starts = np.empty(symbols.shape, dtype=np.int64)
        frequencies = np.empty_like(starts)
        raws = np.full(symbols.shape, None, dtype=object)
        contexts = self._tables.contexts_of(symbols)
        for row, used in enumerate(self._tables.lengths.tolist()):
            channel, context = divmod(row, self._tables.contexts)
            here = contexts[channel] == context
            cdf = self._tables.cdf[row, :used]
            values = symbols[channel][here].astype(np.int64)
            index = values - self._offsets[row]
            escape = used - 2
            outside = (index < 0) | (index >= escape)
            index[outside] = escape
            raw = np.full(len(values), None, dtype=object)
            raw[outside] = values[outside] & 0xFFFF
            raws[channel][here] = raw
            starts[channel][here] = cdf[index]
            frequencies[channel][here] = np.diff(cdf)[index]
        ordered = [
            array.transpose(1, 2, 0).ravel().tolist() for array in (starts, frequencies, raws)
        ]
        return ordered[0], ordered[1], ordered[2]


def _lanes(total: int) -> list[int]:
    """The state of each symbol: its place in coding order modulo 8, and 0 in the tail."""
    lanes = np.arange(total) % LANES
    lanes[-TAIL:] = 0
    return lanes.tolist()


def _refuse(expected: str, found: str) -> NoReturn:
    raise ValueError(f"rANS body: expected {expected}, found {found}")
