# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roi_codec_ros.codec.entropy import (
    FIRST_CLASS,
    HIDDEN,
    SKIPPED,
    TABLES,
    EntropyTables,
    map_contexts_of,
)
from roi_codec_ros.codec.frequencies import map_cdf_of, neighbourly_map_cdf
from roi_codec_ros.codec.kernels import ENTROPY_CODER, KERNELS, available_implementations
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.spatial import code_length_bits, coded_symbols
from roi_codec_ros.codec.table_checks import (
    NEIGHBOURS,
    REACH,
    equal_activity_weights,
    known_before,
)
from roi_codec_ros.codec.temporal import may_be_temporal, packed
from roi_codec_ros.common.errors import BitstreamError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rans.json").read_text())

each_implementation = pytest.mark.parametrize("implementation", available_implementations())
needs_kernel = pytest.mark.skipif(
    "c++" not in available_implementations(), reason="the C++ kernel is not built"
)


class Draw:
    """What follows tables, by integer arithmetic alone: the same on every machine."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def slot(self) -> int:
        self.state = (self.state * 1664525 + 1013904223) % 2**32
        return self.state >> 16

    def blocks(self, tables: EntropyTables, height: int, width: int) -> np.ndarray:
        blocks = np.zeros((height, width), np.uint8)
        for place in np.ndindex(height, width):
            context = map_contexts_of(blocks, tables.classes)[place]
            blocks[place] = np.searchsorted(tables.map_cdf[context], self.slot(), "right") - 1
        return blocks

    def symbols(self, channels: int, size: tuple[int, int]) -> np.ndarray:
        """Half of them 0, each magnitude half as likely as the one before, a few anywhere."""
        symbols = np.zeros((channels, *size), np.int16)
        for place in np.ndindex(size):
            for channel in range(channels):
                slot = self.slot()
                magnitude = 16 - (slot >> 1).bit_length()
                if magnitude > 12:
                    magnitude = self.slot() - 0x8000
                symbols[(channel, *place)] = -magnitude if slot & 1 else magnitude
        return symbols


def drawn_symbols(tables: EntropyTables, height: int, width: int, seed: int) -> np.ndarray:
    return Draw(seed).symbols(tables.channels, (height, width))


def drawn_predictor(rng: np.random.Generator, channels: int) -> np.ndarray:
    """Up to sixteen inputs of each channel, with any weights or those of a mean of neighbours."""
    rows = []
    for channel in range(channels):
        for _ in range(rng.integers(0, 17)):
            place = int(rng.integers(0 if channel else 1, 5))
            source = int(rng.integers(channels if place else channel))
            weight = int(rng.choice([256, 512, -256, rng.integers(-8192, 8193)]))
            rows.append((channel, place, source, weight))
    return np.array(rows, np.int32).reshape(-1, 4)


def drawn_weights(rng: np.random.Generator, channels: int, predicted: int) -> np.ndarray:
    """Of what counts in activities: small and large ones, for what is decoded before."""
    weights = rng.choice([0, 1, 16, 255], (channels, REACH + NEIGHBOURS))
    weights[:, :REACH] *= known_before(channels, predicted)
    return weights


@st.composite
def coded_inputs(draw):
    """Tables of any width, symbols of which some are common, some rare, some outside, a map.

    Channels that fill the eight states and channels that do not, with contexts and without, of
    one level or several, whose blocks stand close together or are scattered.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.sampled_from([1, 1, 2, 6]))
    coded = draw(st.sampled_from([(1,), (2,), (8,), (13,), (16, 5), (3, 24, 8, 1), (9,) * 7]))
    bounds = draw(st.sampled_from([(), (1,), (1, 3, 8, 40, 255)]))
    predicted = min(max(coded), draw(st.sampled_from([0, 1, 3, 16])))
    ladder = rng.choice([1, 3, 200, 256, 257, 65535], (len(coded), predicted))
    rows = (len(bounds) + 1) * sum(c + 2 * min(c, predicted) for c in coded)
    real = draw(st.sampled_from([1, 2, 3, 17, 300]))
    pmfs = rng.random((rows, real)) ** draw(st.sampled_from([1, 40])) + 1e-9
    offset = draw(st.sampled_from([-32768, -real // 2, 0, 32768 - real]))
    tail = draw(st.sampled_from([1e-9, 0.3, 50.0]))
    counted = rng.random(((classes + 3) ** 2, classes + 2)) ** 9
    tables = EntropyTables.from_pmfs(
        list(pmfs),
        [tail] * rows,
        [offset] * rows,
        bounds,
        coded,
        ladder,
        drawn_predictor(rng, predicted),
        draw(st.sampled_from([neighbourly_map_cdf(classes), map_cdf_of(counted)])),
        draw(st.sampled_from([None, drawn_weights(rng, max(coded), predicted)])),
    )
    size = draw(st.sampled_from([(1, 1), (7, 5), (1, 8), (2, 4), (13, 1), (16, 16), (33, 31)]))
    shape = (tables.channels, *size)
    symbols = np.clip(rng.integers(-1, real + 1, shape) + offset, -32768, 32767)
    outside = rng.random(shape) < draw(st.sampled_from([0.0, 0.01, 1.0]))
    symbols[outside] = rng.choice([-32768, 32767, 0, 1234, -1], int(outside.sum()))
    blocks = np.full(size, draw(st.integers(0, classes + 1)), np.uint8)
    for _ in range(draw(st.sampled_from([0, 0, 3]))):
        y, x = rng.integers(0, size)
        blocks[y : y + 9, x : x + 9] = rng.integers(0, classes + 2)
    scattered = rng.random(size) < draw(st.sampled_from([0.0, 0.5]))
    blocks[scattered] = rng.integers(0, classes + 2, int(scattered.sum()))
    levels = rng.integers(0, len(coded), classes)
    temporal = (rng.random(size) < draw(st.sampled_from([0.0, 0.5, 1.0]))) & (
        may_be_temporal(blocks, levels)
    )
    return tables, symbols.astype(np.int16), blocks, levels, temporal


def bits_of(temporal: np.ndarray, blocks: np.ndarray, levels: np.ndarray) -> bytes:
    return packed(temporal, blocks, levels.tolist())


@each_implementation
@settings(max_examples=60, deadline=None)
@given(coded_inputs())
def test_symbols_and_blocks_come_back(implementation, case):
    tables, symbols, blocks, levels, temporal = case
    coder = RansCoder(tables, implementation)
    coded = coded_symbols(tables, symbols, blocks, levels, temporal).rows >= 0
    received = coder.decode(
        *coder.encode(symbols, blocks, levels, temporal),
        *blocks.shape,
        levels,
        bits_of(temporal, blocks, levels),
    )
    assert (received.symbols.dtype, received.blocks.dtype) == (np.int16, np.uint8)
    np.testing.assert_array_equal(received.symbols, np.where(coded, symbols, 0))
    np.testing.assert_array_equal(received.blocks, blocks)
    np.testing.assert_array_equal(received.temporal, temporal)


@each_implementation
@settings(max_examples=40, deadline=None)
@given(coded_inputs(), st.integers(0, 2**32 - 1))
def test_what_stands_where_nothing_is_coded_does_not_matter(implementation, case, seed):
    tables, symbols, blocks, levels, temporal = case
    coder = RansCoder(tables, implementation)
    noise = np.random.default_rng(seed).integers(-32768, 32768, symbols.shape, np.int16)
    coded = np.zeros(symbols.shape, bool)
    for value, level in enumerate(levels, start=FIRST_CLASS):
        coded[: tables.coded_channels[level], blocks == value] = True
    others = np.where(coded, symbols, noise)
    assert coder.encode(others, blocks, levels, temporal) == coder.encode(
        symbols, blocks, levels, temporal
    )


@each_implementation
@pytest.mark.parametrize(("channels", "size"), [(9, (15, 15)), (11, (13, 17)), (13, (33, 31))])
def test_the_tail_may_begin_within_a_group_of_channels(implementation, channels, size):
    tables = EntropyTables.laplace(channels)
    symbols = drawn_symbols(tables, *size, seed=7)
    coder = RansCoder(tables, implementation)
    np.testing.assert_array_equal(coder.decode(*coder.encode(symbols), *size)[0], symbols)


@needs_kernel
@settings(max_examples=80, deadline=None)
@given(coded_inputs())
def test_kernel_writes_the_bytes_of_the_reference(case):
    tables, *inputs = case
    assert RansCoder(tables, "c++").encode(*inputs) == RansCoder(tables, "numpy").encode(*inputs)


@needs_kernel
@settings(max_examples=120, deadline=None)
@given(coded_inputs(), st.integers(0, 2**32 - 1))
def test_kernel_and_reference_agree_on_what_is_damaged(case, seed):
    tables, *inputs = case
    _, blocks, levels, temporal = inputs
    rng = np.random.default_rng(seed)
    parts = [bytearray(part) for part in RansCoder(tables, "c++").encode(*inputs)]
    bits = bits_of(temporal, blocks, levels)
    for part in parts:
        for _ in range(rng.integers(3) if part else 0):
            part[rng.integers(len(part))] ^= 1 << rng.integers(8)
        kept = rng.choice([len(part)] * 6 + [max(0, len(part) - 2), rng.integers(len(part) + 1)])
        part[kept:] = rng.bytes(rng.choice([0] * 9 + [2]))
    results = []
    for implementation in ("c++", "numpy"):
        coder = RansCoder(tables, implementation)
        try:
            decoded = coder.decode(*parts, *blocks.shape, levels, bits)
        except BitstreamError as error:
            results.append(str(error))
            continue
        again = coder.encode(decoded.symbols, decoded.blocks, levels, decoded.temporal)
        assert again == tuple(map(bytes, parts))
        results.append([array.tobytes() for array in decoded])
    assert results[0] == results[1]


@each_implementation
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden_bytes(implementation, case):
    arrays = {name: np.array(case[name], np.int32) for name in TABLES if name in case}
    arrays["predictor"] = arrays["predictor"].reshape(-1, 4)
    tables = EntropyTables(**arrays)
    blocks, temporal = np.array(case["blocks"], np.uint8), np.array(case["temporal"], np.bool_)
    symbols = Draw(case["seed"]).symbols(tables.channels, blocks.shape)
    coder = RansCoder(tables, implementation)
    coded = coder.encode(symbols, blocks, case["levels"], temporal)
    assert [part.hex() for part in coded] == [case["map"], case["body"]]
    bits = packed(temporal, blocks, case["levels"])
    received = coder.decode(*coded, *blocks.shape, case["levels"], bits)
    there = coded_symbols(tables, symbols, blocks, case["levels"], temporal).rows >= 0
    np.testing.assert_array_equal(received.symbols, np.where(there, symbols, 0))
    np.testing.assert_array_equal(received.blocks, blocks)


@needs_kernel
@pytest.mark.parametrize(("scale", "bits"), [(0.137, 0.2), (0.201, 0.5), (0.318, 1), (0.7, 2)])
def test_size_is_within_half_a_percent_of_the_shannon_bound(scale, bits):
    magnitude = np.abs(np.arange(-200, 201))
    pmf = np.exp(-magnitude / scale) * np.sinh(0.5 / scale)
    pmf[200] = 1 - np.exp(-0.5 / scale)
    symbols = np.random.default_rng(1).choice(401, (256, 32, 32), p=pmf / pmf.sum())
    ideal_bits = -np.log2(pmf[symbols]).sum()
    coder = RansCoder(EntropyTables.laplace(256, scale))
    _, body = coder.encode((symbols - 200).astype(np.int16))
    assert ideal_bits / symbols.size == pytest.approx(bits, rel=0.05)
    assert 8 * len(body) / ideal_bits - 1 < 0.005


@each_implementation
def test_any_memory_layout_is_coded(implementation):
    tables = EntropyTables.laplace(3)
    symbols = drawn_symbols(tables, 6, 9, seed=3)
    blocks = Draw(4).blocks(tables, 6, 9)
    coder = RansCoder(tables, implementation)
    expected = coder.encode(symbols, blocks)
    assert coder.encode(np.asfortranarray(symbols), np.asfortranarray(blocks)) == expected
    twice = np.repeat(symbols, 2, axis=2)[:, :, ::2], np.repeat(blocks, 2, axis=1)[:, ::2]
    assert coder.encode(*twice) == expected
    assert coder.encode(symbols.astype(">i2").astype(np.int16), blocks, (0,)) == expected


@each_implementation
@pytest.mark.parametrize("wrap", [bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_any_buffer_is_decoded(implementation, wrap):
    coder = RansCoder(EntropyTables.laplace(1), implementation)
    symbols = np.zeros((1, 2, 2), np.int16)
    blocks = np.array([[SKIPPED, FIRST_CLASS], [FIRST_CLASS, HIDDEN]], np.uint8)
    received = coder.decode(*map(wrap, coder.encode(symbols, blocks)), 2, 2)
    np.testing.assert_array_equal(received.symbols, symbols)
    np.testing.assert_array_equal(received.blocks, blocks)


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


@each_implementation
@pytest.mark.parametrize(
    ("blocks", "levels", "sentence"),
    [
        (np.full((3, 3), 4, np.uint8), (0, 1), "expected blocks .*of 0 to 3"),
        (
            np.full((3, 4), 2, np.uint8),
            (0, 1),
            r"expected blocks uint8 \[3, 3\], found .*\[3, 4\]",
        ),
        (np.full((3, 3), 2, np.int64), (0, 1), "expected blocks uint8 .*found int64"),
        (None, (0,), r"expected a level of 0 to 2 for each of 2 classes, found \[0\]"),
        (None, (0, 3), r"expected a level of 0 to 2 for each of 2 classes, found \[0, 3\]"),
        (None, (0, -1), r"expected a level of 0 to 2 for each of 2 classes, found \[0, -1\]"),
        (None, (0, 256), r"expected a level of 0 to 2 for each of 2 classes, found \[0, 256\]"),
    ],
)
def test_wrong_blocks_and_levels_are_refused(implementation, blocks, levels, sentence):
    coder = RansCoder(stepped(), implementation)
    symbols = np.zeros((16, 3, 3), np.int16)
    with pytest.raises(ValueError, match=sentence):
        coder.encode(symbols, blocks, levels)
    if blocks is None:
        with pytest.raises(BitstreamError, match=sentence):
            coder.decode(b"", bytes(4), 3, 3, levels)


def stepped(bounds=(1, 4)) -> EntropyTables:
    """Two classes; three levels of 16, 8 and 3 channels, of which four are predicted."""
    coded, predicted = (16, 8, 3), 4
    rows = (len(bounds) + 1) * sum(c + 2 * min(c, predicted) for c in coded)
    values = np.arange(-6, 7)
    pmfs = [np.exp(-np.abs(values - row % 5)) for row in range(rows)]
    return EntropyTables.from_pmfs(
        pmfs,
        [1e-3] * rows,
        [-6] * rows,
        bounds,
        coded,
        np.outer((256, 1024, 640), np.ones(predicted, int)),
        np.array([(c, place, c, 400) for c in range(predicted) for place in (1, 2)]),
        neighbourly_map_cdf(2),
    )


def body_of(coder: RansCoder, tables: EntropyTables) -> bytearray:
    return bytearray(coder.encode(drawn_symbols(tables, 30, 30, seed=5))[1])


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
        coder.decode(b"", damage(body_of(coder, tables)), 30, 30)
    assert "\n" not in str(caught.value)


@each_implementation
def test_words_that_nobody_needs_are_refused(implementation):
    coder = RansCoder(EntropyTables.laplace(1, 0.01), implementation)
    _, body = coder.encode(np.zeros((1, 25, 41), np.int16))
    assert len(body) == 32  # 1025 symbols: of states 1 to 7 only the tail takes words
    for lane in range(1, 8):
        damaged = bytearray(body)
        damaged[4 * lane] = 1
        with pytest.raises(BitstreamError, match="found 14 more bytes"):
            coder.decode(b"", damaged, 25, 41)
    with pytest.raises(BitstreamError, match="found 16 more bytes"):
        coder.decode(b"", body + b"\0\0", 25, 41)


@each_implementation
def test_few_symbols_take_one_state_and_none_take_nothing(implementation):
    coder = RansCoder(EntropyTables.laplace(16, 0.01), implementation)
    blocks = np.full((9, 9), FIRST_CLASS, np.uint8)
    blocks[7:, :] = SKIPPED
    blocks[6, 8] = HIDDEN
    symbols = np.zeros((16, 9, 9), np.int16)
    assert [len(coder.encode(symbols, b)[1]) for b in (blocks, np.zeros_like(blocks))] == [4, 0]
    few = coder.encode(symbols, blocks)
    with pytest.raises(BitstreamError, match="found 2 more bytes"):
        coder.decode(few[0], few[1] + b"\0\0", 9, 9)
    nothing = coder.encode(symbols, np.zeros_like(blocks))
    with pytest.raises(BitstreamError, match="an even number of 0 to 0 bytes, found 2"):
        coder.decode(nothing[0], b"\0\0", 9, 9)
    with pytest.raises(BitstreamError, match=r"an even number of 4 to .*, found 0"):
        coder.decode(few[0], b"", 9, 9)


def map_of(coder: RansCoder) -> bytearray:
    blocks = Draw(6).blocks(EntropyTables.laplace(1), 20, 20)
    return bytearray(coder.encode(np.zeros((1, 20, 20), np.int16), blocks)[0])


@each_implementation
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: data[:2], "no bytes or an even number of 4 to 804, found 2$"),
        (lambda data: data + b"\0", "an even number"),
        (lambda data: bytes(806), "found 806$"),
        (lambda data: bytes(4) + data[4:], "a first state of 65536 or more, found 0$"),
        (lambda data: data[:8], "expected 400 blocks, found the end after [0-9]+$"),
        (lambda data: data + b"\0\0", "the end after the last block, found 2 more bytes$"),
        (lambda data: bytes([data[0] ^ 1]) + data[1:], "block map: expected"),
    ],
)
def test_damaged_maps_are_refused(implementation, damage, found):
    coder = RansCoder(EntropyTables.laplace(1), implementation)
    with pytest.raises(BitstreamError, match=found) as caught:
        coder.decode(damage(map_of(coder)), bytes(4), 20, 20)
    assert "\n" not in str(caught.value)


@each_implementation
def test_a_map_of_one_class_alone_takes_no_bytes_and_must_not_take_any(implementation):
    tables = stepped()
    coder = RansCoder(tables, implementation)
    symbols = drawn_symbols(tables, 2, 1, seed=1)
    plain = coder.encode(symbols)
    assert plain[0] == b""
    assert coder.encode(symbols, np.full((2, 1), FIRST_CLASS, np.uint8), (0, 2)) == plain
    # What the coder of maps would write, the last block first: below class 0, then below nothing.
    state = 1 << 16
    for context in (5 * 4 + FIRST_CLASS, 5 * 4 + 4):
        start, end = tables.map_cdf[context, FIRST_CLASS : FIRST_CLASS + 2].tolist()
        state = (state // (end - start) << 16) + state % (end - start) + start
    with pytest.raises(BitstreamError, match="expected no bytes for a map of class 0 alone"):
        coder.decode(state.to_bytes(4, "little"), plain[1], 2, 1)


@each_implementation
def test_a_map_costs_what_the_tables_say(implementation):
    tables = EntropyTables.laplace(1)
    blocks = Draw(3).blocks(tables, 40, 40)
    assert len(np.unique(blocks)) == 3
    coded, _ = RansCoder(tables, implementation).encode(np.zeros((1, 40, 40), np.int16), blocks)
    contexts = map_contexts_of(blocks, tables.classes)
    steps = tables.map_cdf[contexts, blocks + 1] - tables.map_cdf[contexts, blocks]
    bits = 16 - np.log2(steps)
    assert 8 * len(coded) == pytest.approx(bits.sum(), abs=32)


@each_implementation
def test_every_bit_of_small_bodies_and_maps_counts(implementation):
    tables = stepped()
    coder = RansCoder(tables, implementation)
    levels = (2, 1)
    blocks = np.array([[2, 3, 2, 1], [3, 0, 2, 2], [2, 2, 3, 3]], np.uint8)
    there = coded_symbols(tables, np.zeros((16, 3, 4), np.int16), blocks, levels).rows >= 0
    symbols = np.where(there, Draw(9).symbols(16, (3, 4)), 0).astype(np.int16)
    coded = coder.encode(symbols, blocks, levels)
    for which, part in enumerate(coded):
        assert part
        for bit in range(8 * len(part)):
            damaged = [*map(bytearray, coded)]
            damaged[which][bit // 8] ^= 1 << bit % 8
            try:
                decoded = coder.decode(*damaged, 3, 4, levels)
            except BitstreamError:
                continue
            assert not (np.array_equal(decoded[0], symbols) and np.array_equal(decoded[1], blocks))
            again = coder.encode(decoded.symbols, decoded.blocks, levels)
            assert again == tuple(map(bytes, damaged))


@each_implementation
@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4), (65536, 1), (65535, 65535)])
def test_absurd_sizes_are_refused_before_anything_is_allocated(implementation, size):
    with pytest.raises(BitstreamError, match="expected sides of 1 to 65535"):
        RansCoder(EntropyTables.laplace(64), implementation).decode(b"", bytes(32), *size)


def test_the_reference_stands_in_for_a_missing_kernel(monkeypatch):
    monkeypatch.delitem(KERNELS, ENTROPY_CODER)
    assert RansCoder(EntropyTables.laplace(1)).implementation == "numpy"
    with pytest.raises(ValueError, match=r"expected .* numpy, found c\+\+"):
        RansCoder(EntropyTables.laplace(1), "c++")


@needs_kernel
def test_the_kernel_trusts_no_tables_either():
    def coder(
        cdf,
        lengths,
        offsets,
        bounds,
        coded=(2,),
        ladder=None,
        predictor=(),
        map_cdf=None,
        weights=None,
    ):
        rest = neighbourly_map_cdf(1) if map_cdf is None else map_cdf
        steps = np.ones((len(coded), 0)) if ladder is None else ladder
        inputs = np.reshape(predictor, (-1, 4))
        counts = equal_activity_weights(max(*coded, 0, 0)) if weights is None else weights
        arrays = (cdf, lengths, offsets, bounds, coded, steps, inputs, rest, counts)
        return KERNELS[ENTROPY_CODER].Coder(*(np.array(a, np.int32) for a in arrays))

    rows = [[0, 5, 65536]] * 2
    good = (rows, [3, 3], [0, 0], [])
    assert coder(*good)
    assert coder(rows, [3, 3], [0, 0], [255], [1])
    assert coder(*good, [1, 1], map_cdf=neighbourly_map_cdf(6))
    with pytest.raises(ValueError, match="found an error in row 0"):
        coder([[0, 5, 5, 65536]], [4], [0], [], [1])
    for bounds in ([256], [0]):
        with pytest.raises(ValueError, match="found an error in bound 0"):
            coder(rows, [3, 3], [0, 0], bounds, [1])
    with pytest.raises(ValueError, match="found an error in bound 1"):
        coder([*rows, rows[0]], [3] * 3, [0] * 3, [1, 1], [1])
    for bad in ((rows, [3], [0, 0], []), (rows[0], [3], [0], [])):
        with pytest.raises(ValueError, match=r"expected tables cdf \[R, N\]"):
            coder(*bad)
    with pytest.raises(ValueError, match=r"expected tables .*ladder \[L, M\]"):
        coder(*good, [2], np.ones((2, 0)))
    for coded in ([], [1] * 65):
        with pytest.raises(ValueError, match="expected coded channels for each of 1 to 64"):
            coder(*good, coded)
    for level, coded in enumerate([[0], [1, 2], [1, 1, -1]]):
        with pytest.raises(ValueError, match=f"found an error in level {level}"):
            coder(*good, coded)
    for coded in ([1], [2, 1]):
        with pytest.raises(ValueError, match=r"expected .*(1 rows, found 2|level 1)"):
            coder(*good, coded)
    predicted = ([rows[0]] * 6, [3] * 6, [0] * 6, [], [2])
    two = np.array([[1, 65535]])
    assert coder(*predicted, two, [(0, 1, 1, 8192), (1, 0, 0, -8192)])
    for ladder in ([[1, 0]], [[1, 65536]]):
        with pytest.raises(ValueError, match="expected valid steps, found an error in level 0"):
            coder(*predicted, ladder)
    for inputs, row in (
        ([(0, 1, 2, 1)], 0),
        ([(0, 5, 0, 1)], 0),
        ([(0, 0, 0, 1)], 0),
        ([(0, -1, 0, 1)], 0),
        ([(0, 1, -1, 1)], 0),
        ([(0, 1, 0, 8193)], 0),
        ([(0, 1, 0, -8193)], 0),
        ([(0, 1, 0, 1), (2, 1, 0, 1)], 1),
        ([(1, 1, 0, 1), (0, 1, 0, 1)], 1),
        ([(0, 1, 0, 1)] * 17, 16),
    ):
        with pytest.raises(ValueError, match=f"a valid predictor, found an error in row {row}"):
            coder(*predicted, two, inputs)
    with pytest.raises(ValueError, match="expected at most 2 predicted channels, found 3"):
        coder(*predicted, np.ones((1, 3)))
    uneven = neighbourly_map_cdf(1)
    uneven[7, 1] = 0
    with pytest.raises(ValueError, match="valid tables of the map, found an error in row 7"):
        coder(*good, map_cdf=uneven)
    for map_cdf in (uneven[1:], uneven[0], uneven[:, :3], neighbourly_map_cdf(7)):
        with pytest.raises(ValueError, match=r"expected map_cdf \[\(P \+ 3\)"):
            coder(*good, map_cdf=map_cdf)
    for shape in ((1, 42), (2, 41), (2,)):
        with pytest.raises(ValueError, match=r"expected activity_weights \[2, 42\]"):
            coder(*good, weights=np.zeros(shape))
    for place, weight in ((0, 256), (40, -1), (32, 1), (39, 1)):
        weights = np.zeros((2, 42))
        weights[1, place] = weight
        with pytest.raises(
            ValueError, match="valid activity_weights, found an error in channel 1"
        ):
            coder(*good, weights=weights)
    of_own_group = np.zeros((2, 42))
    of_own_group[1, 32] = 1  # a predicted channel may count what is decoded before it
    assert coder(*predicted, two, weights=of_own_group)


@needs_kernel
def test_the_kernel_trusts_no_arrays_either():
    coder = KERNELS[ENTROPY_CODER].Coder(*(getattr(stepped(), name) for name in TABLES))
    symbols = np.zeros((16, 2, 2), np.int16)
    blocks, levels = np.full((2, 2), 2, np.uint8), np.zeros(2, np.uint8)
    temporal = np.zeros((2, 2), np.uint8)
    map_bytes, body = coder.encode(symbols, blocks, levels, temporal)
    np.testing.assert_array_equal(coder.decode_map(map_bytes, 2, 2), blocks)
    np.testing.assert_array_equal(coder.decode_body(body, blocks, levels, temporal), symbols)
    with pytest.raises(ValueError, match="expected"):
        coder.encode(symbols[:3], blocks, levels, temporal)
    for bad in (
        (blocks[:1], levels, temporal),
        (blocks + np.uint8(2), levels, temporal),
        (blocks, levels[:1], temporal),
        (blocks, levels + np.uint8(3), temporal),
        (blocks, levels, temporal[:1]),
        (blocks, levels, temporal[0]),
    ):
        with pytest.raises(ValueError, match="expected"):
            coder.encode(symbols, *bad)
        with pytest.raises(ValueError, match="expected"):
            coder.decode_body(body, *bad)
    with pytest.raises(ValueError, match="expected blocks"):
        coder.decode_body(body, blocks[0], levels, temporal[0])


@each_implementation
def test_symbols_that_go_on_as_the_blocks_around_take_few_bits(implementation):
    """One channel, predicted as left + above - above left; contexts are below 1, and more."""
    shape = [1e-4, 1e-4, 0.9994, 1e-4, 1e-4]
    flat = [0.2] * 5
    rows = [flat] + [shape] + [flat] * 4  # only what is quiet and well predicted is steep
    tables = EntropyTables.from_pmfs(
        rows,
        [1e-4] * 6,
        [-2] * 6,
        [1],
        ladder=np.ones((1, 1), int),
        predictor=np.array([(0, 1, 0, 1024), (0, 2, 0, 1024), (0, 3, 0, -1024)]),
    )
    y, x = np.mgrid[:24, :24]
    plane = (3 * x - 2 * y + 100)[None].astype(np.int16)
    rough = np.random.default_rng(1).permutation(plane.ravel()).reshape(plane.shape)
    coder = RansCoder(tables, implementation)
    sizes = [len(coder.encode(symbols)[1]) for symbols in (plane, rough)]
    assert sizes[0] < 0.1 * sizes[1]
    for symbols, size in zip((plane, rough), sizes, strict=True):
        assert 8 * size == pytest.approx(code_length_bits(tables, symbols).sum(), rel=0.02, abs=40)
        np.testing.assert_array_equal(coder.decode(*coder.encode(symbols), 24, 24)[0], symbols)


@each_implementation
def test_neighbours_are_predicted_from_in_the_steps_of_their_level(implementation):
    """The block to the right of a symbol s is coded as the difference to s in its own steps."""
    tables = EntropyTables.from_pmfs(
        [[1.0]] * 6,
        [1e-3] * 6,
        [0] * 6,
        (),
        [1, 1],
        np.array([[256], [640]]),
        np.array([(0, 1, 0, 1024)]),
        neighbourly_map_cdf(2),
    )
    blocks = np.array([[2, 3]], np.uint8)
    for levels, expected in (((0, 0), 10), ((1, 1), 10), ((1, 0), 25), ((0, 1), 4)):
        symbols = np.array([[[10, 12]]], np.int16)
        coded = coded_symbols(tables, symbols, blocks, levels)
        assert coded.differences.ravel().tolist() == [10, 12 - expected], levels
        coder = RansCoder(tables, implementation)
        received = coder.decode(*coder.encode(symbols, blocks, levels), 1, 2, levels)
        np.testing.assert_array_equal(received.symbols, symbols)


@each_implementation
def test_differences_to_an_earlier_frame_are_neither_predicted_nor_predicted_from(implementation):
    tables = EntropyTables.from_pmfs(
        [[1.0]] * 3,
        [1e-3] * 3,
        [0] * 3,
        ladder=np.ones((1, 1), int),
        predictor=np.array([(0, 1, 0, 1024)]),
        map_cdf=neighbourly_map_cdf(2),
        coded_channels=[1],
    )
    symbols = np.array([[[10, 3, 12, 13]]], np.int16)
    temporal = np.array([[False, True, False, False]])
    coded = coded_symbols(tables, symbols, None, None, temporal)
    assert coded.differences.ravel().tolist() == [10, 3, 12, 1]
    assert coded_symbols(tables, symbols).differences.ravel().tolist() == [10, -7, 9, 1]
    coder = RansCoder(tables, implementation)
    plain, marked = coder.encode(symbols), coder.encode(symbols, None, None, temporal)
    assert plain != marked
