# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roi_codec_ros.codec import rans
from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.rans import RansCoder, available_implementations
from roi_codec_ros.common.errors import BitstreamError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rans.json").read_text())

each_implementation = pytest.mark.parametrize("implementation", available_implementations())
needs_kernel = pytest.mark.skipif(
    "c++" not in available_implementations(), reason="the C++ kernel is not built"
)


def drawn_symbols(tables: EntropyTables, height: int, width: int, seed: int) -> np.ndarray:
    """Symbols that follow the tables, by integer arithmetic alone: the same on every machine."""
    state = seed
    symbols = np.zeros((tables.channels, height, width), np.int16)
    for place in np.ndindex(symbols.shape):
        row = place[0] * tables.contexts + int(tables.contexts_of(symbols)[place])
        used = int(tables.lengths[row])
        state = (state * 1664525 + 1013904223) % 2**32
        symbol = int(np.searchsorted(tables.cdf[row, :used], state >> 16, side="right")) - 1
        value = symbol + int(tables.offsets[row])
        symbols[place] = (state & 0xFFFF) - 0x8000 if symbol == used - 2 else value
    return symbols


@st.composite
def coded_inputs(draw):
    """Tables of any width, and symbols of which some are common, some rare, some outside.

    Channels that fill the eight states and channels that do not, with contexts and without.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels = draw(st.sampled_from([1, 2, 5, 8, 13, 16]))
    bounds = draw(st.sampled_from([(), (0,), (-127, -3, 1, 40, 127)]))
    rows = channels * (len(bounds) + 1)
    real = draw(st.sampled_from([1, 2, 3, 17, 300]))
    pmfs = rng.random((rows, real)) ** draw(st.sampled_from([1, 40])) + 1e-9
    offset = draw(st.sampled_from([-32768, -real // 2, 0, 32768 - real]))
    tail = draw(st.sampled_from([1e-9, 0.3, 50.0]))
    tables = EntropyTables.from_pmfs(list(pmfs), [tail] * rows, [offset] * rows, bounds)
    height, width = draw(
        st.sampled_from([(1, 1), (7, 5), (1, 8), (2, 4), (13, 1), (16, 16), (33, 31)])
    )
    shape = (channels, height, width)
    symbols = np.clip(rng.integers(-1, real + 1, shape) + offset, -32768, 32767)
    outside = rng.random(shape) < draw(st.sampled_from([0.0, 0.01, 1.0]))
    symbols[outside] = rng.choice([-32768, 32767, 0, 1234, -1], int(outside.sum()))
    return tables, symbols.astype(np.int16)


@each_implementation
@settings(max_examples=40, deadline=None)
@given(coded_inputs())
def test_symbols_come_back(implementation, case):
    tables, symbols = case
    coder = RansCoder(tables, implementation)
    decoded = coder.decode(coder.encode(symbols), *symbols.shape[1:])
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded, symbols)


@each_implementation
@pytest.mark.parametrize(("channels", "size"), [(9, (15, 15)), (11, (13, 17)), (13, (33, 31))])
def test_the_tail_may_begin_within_a_group_of_channels(implementation, channels, size):
    tables = EntropyTables.laplace(channels)
    symbols = drawn_symbols(tables, *size, seed=7)
    coder = RansCoder(tables, implementation)
    np.testing.assert_array_equal(coder.decode(coder.encode(symbols), *size), symbols)


@needs_kernel
@settings(max_examples=60, deadline=None)
@given(coded_inputs())
def test_kernel_writes_the_bytes_of_the_reference(case):
    tables, symbols = case
    assert RansCoder(tables, "c++").encode(symbols) == RansCoder(tables, "numpy").encode(symbols)


@needs_kernel
@settings(max_examples=80, deadline=None)
@given(coded_inputs(), st.integers(0, 2**32 - 1))
def test_kernel_and_reference_agree_on_damaged_bodies(case, seed):
    tables, symbols = case
    rng = np.random.default_rng(seed)
    body = bytearray(RansCoder(tables, "c++").encode(symbols))
    for _ in range(rng.integers(1, 3)):
        body[rng.integers(len(body))] ^= 1 << rng.integers(8)
    damaged = bytes(body[: rng.choice([len(body), len(body) - 2, rng.integers(len(body) + 1)])])
    results = []
    for implementation in ("c++", "numpy"):
        try:
            decoded = RansCoder(tables, implementation).decode(damaged, *symbols.shape[1:])
            results.append(decoded.tobytes())
        except BitstreamError as error:
            results.append(str(error))
    assert results[0] == results[1]


@each_implementation
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden_bytes(implementation, case):
    tables = EntropyTables(
        *(np.array(case[name], np.int32) for name in ("cdf", "lengths", "offsets", "bounds"))
    )
    height, width = case["size"]
    symbols = drawn_symbols(tables, height, width, case["seed"])
    coder = RansCoder(tables, implementation)
    assert coder.encode(symbols).hex() == case["body"]
    np.testing.assert_array_equal(
        coder.decode(bytes.fromhex(case["body"]), height, width), symbols
    )


@needs_kernel
@pytest.mark.parametrize(("scale", "bits"), [(0.137, 0.2), (0.201, 0.5), (0.318, 1), (0.7, 2)])
def test_size_is_within_half_a_percent_of_the_shannon_bound(scale, bits):
    magnitude = np.abs(np.arange(-200, 201))
    pmf = np.exp(-magnitude / scale) * np.sinh(0.5 / scale)
    pmf[200] = 1 - np.exp(-0.5 / scale)
    symbols = np.random.default_rng(1).choice(401, (256, 32, 32), p=pmf / pmf.sum())
    ideal_bits = -np.log2(pmf[symbols]).sum()
    body = RansCoder(EntropyTables.laplace(256, scale)).encode((symbols - 200).astype(np.int16))
    assert ideal_bits / symbols.size == pytest.approx(bits, rel=0.05)
    assert 8 * len(body) / ideal_bits - 1 < 0.005


@each_implementation
def test_any_memory_layout_is_coded(implementation):
    tables = EntropyTables.laplace(3)
    symbols = drawn_symbols(tables, 6, 9, seed=3)
    coder = RansCoder(tables, implementation)
    expected = coder.encode(symbols)
    assert coder.encode(np.asfortranarray(symbols)) == expected
    assert coder.encode(np.repeat(symbols, 2, axis=2)[:, :, ::2]) == expected
    assert coder.encode(symbols.astype(">i2").astype(np.int16)) == expected


@each_implementation
@pytest.mark.parametrize("wrap", [bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_any_buffer_is_decoded(implementation, wrap):
    coder = RansCoder(EntropyTables.laplace(1), implementation)
    symbols = np.zeros((1, 2, 2), np.int16)
    np.testing.assert_array_equal(coder.decode(wrap(coder.encode(symbols)), 2, 2), symbols)


@each_implementation
@pytest.mark.parametrize(
    "symbols",
    [
        np.zeros((2, 3, 3), np.int32),
        np.zeros((2, 3, 3), ">i2"),
        np.zeros((2, 9), np.int16),
        np.zeros((3, 3, 3), np.int16),
        np.zeros((2, 0, 3), np.int16),
        np.zeros((2, 3, 65536), np.int16),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_wrong_arrays_are_refused(implementation, symbols):
    with pytest.raises(ValueError, match="expected"):
        RansCoder(EntropyTables.laplace(2), implementation).encode(symbols)


def body_of(coder: RansCoder, tables: EntropyTables) -> bytearray:
    return bytearray(coder.encode(drawn_symbols(tables, 30, 30, seed=5)))


@each_implementation
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda body: b"", "found 0$"),
        (lambda body: body[:31], "found 31$"),
        (lambda body: body + b"\0", "an even number"),
        (lambda body: bytes(20000), "found 20000$"),
        (lambda body: bytes(32) + body[32:], "found 0 in state 0"),
        (lambda body: body[:100], "the end after [0-9]+$"),
        (lambda body: body + b"\0\0", "expected a last state of 65536"),
        (lambda body: body + bytes(6000), "found [0-9]+ bytes before the tail"),
        (lambda body: body[:32] + bytes(len(body) - 32), "expected"),
    ],
)
def test_damaged_bodies_are_refused(implementation, damage, found):
    tables = EntropyTables.laplace(4)
    coder = RansCoder(tables, implementation)
    with pytest.raises(BitstreamError, match=found) as caught:
        coder.decode(damage(body_of(coder, tables)), 30, 30)
    assert "\n" not in str(caught.value)


@each_implementation
def test_words_that_nobody_needs_are_refused(implementation):
    coder = RansCoder(EntropyTables.laplace(2, 0.01), implementation)
    body = coder.encode(np.zeros((2, 5, 5), np.int16))
    assert len(body) == 32
    for lane in range(1, 8):
        damaged = bytearray(body)
        damaged[4 * lane] = 1
        with pytest.raises(BitstreamError, match="found 14 more bytes"):
            coder.decode(damaged, 5, 5)
    with pytest.raises(BitstreamError, match="found 16 more bytes"):
        coder.decode(body + b"\0\0", 5, 5)


@each_implementation
def test_every_bit_of_a_small_body_counts(implementation):
    tables = EntropyTables.laplace(2)
    coder = RansCoder(tables, implementation)
    symbols = drawn_symbols(tables, 5, 5, seed=9)
    body = coder.encode(symbols)
    for bit in range(8 * len(body)):
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            decoded = coder.decode(damaged, 5, 5)
        except BitstreamError:
            continue
        assert not np.array_equal(decoded, symbols)
        assert coder.encode(decoded) == damaged


@each_implementation
@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4), (65536, 1), (65535, 65535)])
def test_absurd_sizes_are_refused_before_anything_is_allocated(implementation, size):
    with pytest.raises(BitstreamError, match="expected sides of 1 to 65535"):
        RansCoder(EntropyTables.laplace(64), implementation).decode(bytes(32), *size)


def test_the_reference_stands_in_for_a_missing_kernel(monkeypatch):
    monkeypatch.setattr(rans, "_kernel", None)
    assert RansCoder(EntropyTables.laplace(1)).implementation == "numpy"
    with pytest.raises(ValueError, match=r"expected .* numpy, found c\+\+"):
        RansCoder(EntropyTables.laplace(1), "c++")


@needs_kernel
def test_the_kernel_trusts_no_tables_either():
    def coder(cdf, lengths, offsets, bounds):
        return rans._kernel.Coder(
            *(np.array(a, np.int32) for a in (cdf, lengths, offsets, bounds))
        )

    rows = [[0, 5, 65536]] * 2
    assert coder(rows, [3, 3], [0, 0], [127])
    with pytest.raises(ValueError, match="found an error in row 0"):
        coder([[0, 5, 5, 65536]], [4], [0], [])
    for bounds in ([128], [-128]):
        with pytest.raises(ValueError, match="found an error in bound 0"):
            coder(rows, [3, 3], [0, 0], bounds)
    with pytest.raises(ValueError, match="found an error in bound 1"):
        coder([*rows, rows[0]], [3] * 3, [0] * 3, [1, 1])
    for bad in ((rows, [3, 3], [0, 0], [0, 1]), (rows, [3], [0, 0], []), (rows[0], [3], [0], [])):
        with pytest.raises(ValueError, match=r"expected tables cdf \[C \* K, L\]"):
            coder(*bad)


@each_implementation
def test_a_symbol_is_coded_by_what_is_left_of_it_and_above(implementation):
    likely, unlikely = [0.0001, 0.9998], [0.9998, 0.0001]  # of the values 0 and 1
    tables = EntropyTables.from_pmfs([unlikely, likely] * 8, [0.0001] * 16, [0] * 16, [1])
    corner = np.zeros((8, 24, 24), np.int16)
    corner[:, 0, 0] = 1
    block = np.zeros((8, 24, 24), np.int16)
    block[:, 6:18, 6:18] = 1
    scattered = np.random.default_rng(1).permutation(block.ravel()).reshape(block.shape)
    coder = RansCoder(tables, implementation)
    np.testing.assert_array_equal(tables.contexts_of(corner)[0, :2, :3], [[0, 1, 0], [1, 0, 0]])
    sizes = [len(coder.encode(symbols)) for symbols in (block, scattered)]
    assert sizes[0] < 0.25 * sizes[1]
    for symbols, size in zip((block, scattered), sizes, strict=True):
        assert 8 * size == pytest.approx(tables.code_length_bits(symbols).sum(), rel=0.02, abs=300)
