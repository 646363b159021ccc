# SPDX-License-Identifier: Apache-2.0
"""Hostile payloads. The decoding runs in a child process, so that a crash is seen as one.

This file is its own child: `python test_fuzz_bitstream.py IMPLEMENTATION PAYLOADS`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from roi_codec_ros.codec.bitstream import HEADER_BYTES, Payload
from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.frequencies import neighbourly_map_cdf
from roi_codec_ros.codec.kernels import available_implementations
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.common.errors import BitstreamError

STRIDE = 16
MAX_PIXELS = 1920 * 1080
EXTRA_MEMORY = 64 << 20  # bytes that decoding may take on top of the imported modules
LONGEST_S = 5.0  # for one payload, on a busy machine
PAYLOADS = {"c++": 12_000, "numpy": 400}
CRC_AT = slice(HEADER_BYTES - 4, HEADER_BYTES)
SIZES_AT, STREAM_AT, CLASSES_AT = slice(14, 22), slice(22, 30), 30
MAP_BYTES_AT, BODY_BYTES_AT = slice(31, 35), slice(35, 39)
CLASSES, LEVELS = 3, 4
SYMBOLS_AT = HEADER_BYTES + CLASSES  # where the map begins


@pytest.mark.parametrize("implementation", available_implementations())
def test_no_payload_crashes_hangs_or_out_allocates_the_decoder(implementation):
    wanted = PAYLOADS[implementation]
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    child = subprocess.run(
        [sys.executable, __file__, implementation, str(wanted)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert child.returncode == 0, child.stderr
    report = json.loads(child.stdout.splitlines()[-1])
    outcomes = report["outcomes"]
    assert outcomes["header refused"] + outcomes["body refused"] + outcomes["decoded"] == wanted
    assert outcomes["body refused"] + outcomes["decoded"] > 0.4 * wanted
    assert outcomes["decoded"] > 0
    assert report["longest_s"] < LONGEST_S


def fuzz(implementation: str, wanted: int) -> dict[str, object]:
    """Decode mutated payloads; anything but BitstreamError or bounded symbols ends the process."""
    rng = np.random.default_rng(20)
    seeds = [seed_payload(rng, scale, size) for scale in (0.2, 1.0, 30.0) for size in SIZES]
    coders = {scale: RansCoder(tables(scale), implementation) for scale in (0.2, 1.0, 30.0)}
    limit_memory()
    outcomes: Counter[str] = Counter()
    longest_s = 0.0
    for _ in range(wanted):
        scale, payload = seeds[rng.integers(len(seeds))]
        data = MUTATIONS[rng.integers(len(MUTATIONS))](payload, rng)
        start = time.perf_counter()
        outcomes[decode(coders[scale], data)] += 1
        longest_s = max(longest_s, time.perf_counter() - start)
    return {"outcomes": outcomes, "longest_s": longest_s}


def decode(coder: RansCoder, data: bytes) -> str:
    try:
        payload = Payload.from_bytes(data, max_pixels=MAX_PIXELS)
    except BitstreamError:
        return "header refused"
    height, width = -(-payload.coded_height // STRIDE), -(-payload.coded_width // STRIDE)
    parts = payload.block_map, payload.body
    try:
        symbols, blocks, temporal = coder.decode(
            *parts, height, width, payload.levels, payload.temporal
        )
    except BitstreamError:
        return "body refused"
    assert symbols.shape == (coder.channels, height, width)
    assert blocks.shape == (height, width)
    assert (symbols.dtype, blocks.dtype) == (np.int16, np.uint8)
    # One map and body per latent: what decodes is what the encoder would have written.
    assert coder.encode(symbols, blocks, payload.levels, temporal) == parts
    return "decoded"


SIZES = [(1, 1), (7, 5), (100, 161), (320, 240)]


def tables(scale: float) -> EntropyTables:
    """Of 24, 16, 7 and 1 channels, of which four are predicted, at steps of 1, 2, 4 and 8."""
    predicted = 4
    plain = EntropyTables.laplace(2 * (48 + 2 * (3 * predicted + 1)), scale)
    return EntropyTables(
        plain.cdf,
        plain.lengths,
        plain.offsets,
        np.array([3]),
        np.array([24, 16, 7, 1]),
        np.outer([1, 2, 4, 8], [1] * predicted),
        np.array([(c, place, c, 256) for c in range(predicted) for place in range(1, 5)]),
        neighbourly_map_cdf(CLASSES),
    )


def seed_payload(
    rng: np.random.Generator, scale: float, size: tuple[int, int]
) -> tuple[float, bytes]:
    height, width = size
    shape = (24, -(-height // STRIDE), -(-width // STRIDE))
    symbols = np.rint(rng.laplace(0, 1.5 * scale, shape)).astype(np.int16)
    symbols[rng.random(shape) < 0.01] = 32767
    blocks = np.full(shape[1:], 2, np.uint8)
    scattered = rng.random(shape[1:]) < 0.3
    blocks[scattered] = rng.integers(0, CLASSES + 2, int(scattered.sum()))
    levels = tuple(rng.integers(0, LEVELS, CLASSES).tolist())
    block_map, body = RansCoder(tables(scale)).encode(symbols, blocks, levels)
    payload = Payload(bytes(8), height, width, height, width, body, block_map, levels, 5, 6)
    return scale, payload.to_bytes()


def sealed(data: bytes | bytearray) -> bytes:
    """With the lengths and the checksum made right, so that the entropy decoder is reached.

    The map is as long as it says, or as there are bytes for it.
    """
    data = bytearray(data).ljust(SYMBOLS_AT, b"\0")
    left = len(data) - HEADER_BYTES - data[CLASSES_AT]
    map_bytes = max(0, min(left, int.from_bytes(data[MAP_BYTES_AT], "little")))
    data[MAP_BYTES_AT] = map_bytes.to_bytes(4, "little")
    data[BODY_BYTES_AT] = max(0, left - map_bytes).to_bytes(4, "little")
    checksum = zlib.crc32(data[HEADER_BYTES:], zlib.crc32(data[: HEADER_BYTES - 4]))
    data[CRC_AT] = checksum.to_bytes(4, "little")
    return bytes(data)


def flip_bits(data: bytes, rng: np.random.Generator, first: int) -> bytearray:
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        damaged[rng.integers(first, len(data))] ^= 1 << rng.integers(8)
    return damaged


def flip_anywhere(data, rng):
    return bytes(flip_bits(data, rng, 0))


def flip_in_body(data, rng):
    return sealed(flip_bits(data, rng, body_at(data)))


def flip_in_map(data, rng):
    end = body_at(data)
    if end == SYMBOLS_AT:
        return flip_in_body(data, rng)
    return sealed(flip_bits(data[:end], rng, SYMBOLS_AT) + data[end:])


def flip_in_states(data, rng):
    start = body_at(data)
    return sealed(flip_bits(data[: start + 32], rng, start) + data[start + 32 :])


def flip_in_last_words(data, rng):
    return sealed(flip_bits(data, rng, max(body_at(data), len(data) - 6)))


def body_at(data):
    return SYMBOLS_AT + int.from_bytes(data[MAP_BYTES_AT], "little")


def change_levels(data, rng):
    damaged = bytearray(data)
    damaged[HEADER_BYTES:SYMBOLS_AT] = rng.choice([0, 1, 3, 3, 4, 63, 64, 255], CLASSES).tolist()
    return sealed(damaged)


def change_stream_or_classes(data, rng):
    damaged = bytearray(data)
    damaged[STREAM_AT] = rng.integers(0, 2, 8, np.uint8).tobytes()
    damaged[CLASSES_AT] = rng.choice([0, 1, 2, 3, 3, 4, 6, 7, 255])
    return sealed(damaged)


def move_the_map(data, rng):
    """The same bytes, of which other ones are the map."""
    damaged = bytearray(data)
    most = len(data) - SYMBOLS_AT
    map_bytes = int(rng.choice([0, 2, 4, 6, most - 32, most, rng.integers(most + 1)]))
    damaged[MAP_BYTES_AT] = max(0, map_bytes).to_bytes(4, "little")
    return sealed(damaged)


def truncate(data, rng):
    return data[: rng.integers(len(data))]


def truncate_body(data, rng):
    return sealed(data[: rng.integers(SYMBOLS_AT, len(data))])


def truncate_body_to_a_word(data, rng):
    cut = 2 * rng.integers(1, 8)
    return sealed(data[: max(SYMBOLS_AT, len(data) - cut)])


def lengthen_body(data, rng):
    return sealed(data + rng.bytes(rng.choice([1, 2, 4, 40, 5000])))


def replace_body(data, rng):
    return sealed(data[:SYMBOLS_AT] + rng.bytes(rng.integers(0, 4000)))


def plain_body(data, rng):
    filler = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])])
    return sealed(data[:SYMBOLS_AT] + filler * int(rng.integers(0, 2000)))


def change_sizes(data, rng):
    """Every pair of sides: absurd, zero, or the largest that is let through."""
    damaged = bytearray(data)
    edges = [0, 1, 2, 15, 17, 255, 1080, 1920, 65535]
    sides = rng.choice(edges, 4) if rng.random() < 0.8 else [1080, 1920, 1080, 1920]
    damaged[SIZES_AT] = np.array(sides, "<u2").tobytes()
    return sealed(damaged)


def lie_about_the_length(data, rng):
    damaged = bytearray(data)
    damaged[(MAP_BYTES_AT, BODY_BYTES_AT)[rng.integers(2)]] = rng.bytes(4)
    return bytes(damaged)


def anything(data, rng):
    return rng.bytes(rng.integers(0, 300))


def nothing(data, rng):
    return b""


MUTATIONS = [
    flip_anywhere,
    flip_in_body,
    flip_in_body,
    flip_in_map,
    change_levels,
    change_stream_or_classes,
    move_the_map,
    flip_in_states,
    flip_in_last_words,
    truncate,
    truncate_body,
    truncate_body_to_a_word,
    lengthen_body,
    replace_body,
    plain_body,
    change_sizes,
    lie_about_the_length,
    anything,
    nothing,
]


def limit_memory() -> None:
    """Let further allocations fail beyond EXTRA_MEMORY (where the system says what is used)."""
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        used = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_MEMORY,) * 2)


if __name__ == "__main__":
    print(json.dumps(fuzz(sys.argv[1], int(sys.argv[2]))))
