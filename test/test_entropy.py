# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roi_codec_ros.codec.entropy import (
    FIRST_CLASS,
    HIDDEN,
    SKIPPED,
    EntropyTables,
    map_contexts_of,
)
from roi_codec_ros.codec.frequencies import map_cdf_of, neighbourly_map_cdf
from roi_codec_ros.common.errors import ModelFileError

CDF = [[0, 10, 65535, 65536, 0], [0, 1, 2, 3, 65536]]
LENGTHS = [4, 5]
OFFSETS = [-1, 3]


def make(cdf=CDF, lengths=LENGTHS, offsets=OFFSETS) -> EntropyTables:
    return EntropyTables(np.array(cdf), np.array(lengths), np.array(offsets))


def test_tables_are_frozen_int32_copies():
    cdf = np.array(CDF)
    tables = EntropyTables(cdf, np.array(LENGTHS), np.array(OFFSETS))
    cdf[0, 1] = 77
    assert tables.channels == 2
    assert tables.cdf.dtype == tables.lengths.dtype == tables.offsets.dtype == np.int32
    assert tables.cdf[0, 1] == 10
    with pytest.raises(ValueError, match="read-only"):
        tables.cdf[0, 1] = 0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"cdf": [0, 65536]}, r"found \[2\]"),
        ({"cdf": np.array(CDF, float)}, "found float64"),
        ({"cdf": [[0, 10, 65535, 65537, 0], CDF[1]]}, "found 0 to 65537"),
        ({"cdf": [[1, 10, 65535, 65536, 0], CDF[1]]}, "found 1 to 65536"),
        ({"cdf": [[0, 65535, 65535, 65536, 0], CDF[1]]}, "a step of 0 or less"),
        ({"cdf": [[0, 2**31 - 1, -(2**31), 65536, 0], CDF[1]]}, "a step of 0 or less"),
        ({"cdf": [[0, 10, 65535, 65536, 1], CDF[1]]}, "found others"),
        ({"cdf": [[0, 10, 2**40, 65536, 0], CDF[1]]}, "found larger"),
        ({"lengths": [4, 6]}, "found 6"),
        ({"lengths": [4, 2]}, "found 2"),
        ({"lengths": [4]}, r"found \[1\]"),
        ({"offsets": [-1, 3, 4]}, r"found \[3\]"),
        ({"offsets": [-32769, 3]}, "found -32769 to -32768"),
        ({"offsets": [-1, 32766]}, "found 32766 to 32768"),
    ],
)
def test_invalid_tables_are_refused(change, found):
    with pytest.raises(ModelFileError, match=found) as caught:
        make(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ([0, 1], "expected rows for 3 contexts of each channel, found 2$"),
        ([128], r"found \[128\]"),
        ([[0]], r"found \[1, 1\]"),
        ([1.0], "found float64"),
    ],
)
def test_invalid_contexts_are_refused(bounds, found):
    with pytest.raises(ModelFileError, match=found):
        EntropyTables(np.array(CDF), np.array(LENGTHS), np.array(OFFSETS), np.array(bounds))
    with pytest.raises(ModelFileError, match=r"expected rising bounds .*found \[2, 2\]"):
        EntropyTables.from_pmfs([[1.0]] * 3, [0.1] * 3, [0] * 3, [2, 2])


def test_the_context_of_a_symbol_is_that_of_a_plane_through_its_neighbours():
    tables = EntropyTables(np.array(CDF), np.array(LENGTHS), np.array(OFFSETS), np.array([3]))
    assert (tables.channels, tables.contexts) == (1, 2)
    symbols = np.array([[[1, 1, 9], [0, 1, 9]]])
    # 2 · left + 2 · above − above left: 0, 2, 2 in the first row; 2, 2 − 1, 2 + 18 − 1 below.
    assert tables.contexts_of(symbols).tolist() == [[[0, 0, 0], [0, 0, 1]]]
    assert tables.contexts_of(2 * symbols).tolist() == [[[0, 1, 1], [1, 0, 1]]]


STEPPED = EntropyTables.from_pmfs(
    [[0.2, 0.5, 0.2]] * 8, [0.1] * 8, [-1] * 8, [3], [1, 3], [256, 640], neighbourly_map_cdf(2)
)


def test_tables_of_one_level_and_one_class_need_not_say_so():
    tables = make()
    assert (tables.levels, tables.classes) == (1, 1)
    assert (tables.coded_channels.tolist(), tables.ladder.tolist()) == ([2], [1])
    np.testing.assert_array_equal(tables.map_cdf, neighbourly_map_cdf(1))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"coded_channels": [1, 0]}, r"expected 1 coded channel or more .*found \[1, 0\]"),
        ({"coded_channels": [[1, 3]]}, r"levels, found \[1, 2\]"),
        ({"coded_channels": [1] * 65}, r"expected coded_channels of 1 to 64 levels, found \[65\]"),
        ({"coded_channels": [2**31 - 1] * 2}, "expected 8589934588 rows"),
        ({"coded_channels": [1, 2]}, "expected 6 rows, 2 for each channel of each level, found 8"),
        ({"ladder": np.zeros(0, int)}, r"expected a ladder of 2 steps, found \[0\]"),
        ({"ladder": [1]}, r"expected a ladder of 2 steps, found \[1\]"),
        ({"ladder": [0, 1]}, r"expected a ladder of steps of 1 to 16777216, found \[0, 1\]"),
        ({"ladder": [1, 2**24 + 1]}, r"found \[1, 16777217\]"),
        ({"map_cdf": neighbourly_map_cdf(1)[1:]}, r"1 to 6 classes, found \[15, 4\]"),
        ({"map_cdf": neighbourly_map_cdf(7)}, r"1 to 6 classes, found \[100, 10\]"),
        ({"map_cdf": neighbourly_map_cdf(1)[0]}, r"1 to 6 classes, found \[4\]"),
        ({"map_cdf": neighbourly_map_cdf(1) * 2}, "found an error in row 0"),
        ({"map_cdf": np.sort(neighbourly_map_cdf(1) // 30000 * 32768)}, "found an error in row"),
        ({"map_cdf": neighbourly_map_cdf(1) * 1.0}, "expected integers in map_cdf"),
    ],
)
def test_invalid_levels_and_maps_are_refused(change, found):
    names = ("cdf", "lengths", "offsets", "bounds", "coded_channels", "ladder", "map_cdf")
    fields = {name: getattr(STEPPED, name) for name in names}
    with pytest.raises(ModelFileError, match=found) as caught:
        EntropyTables(**{**fields, **{k: np.array(v) for k, v in change.items()}})
    assert "\n" not in str(caught.value)


def test_rows_are_counted_by_level_then_channel_then_context():
    assert (STEPPED.channels, STEPPED.contexts, STEPPED.levels, STEPPED.classes) == (3, 2, 2, 2)
    assert STEPPED.first_rows.tolist() == [0, 2]
    symbols = np.full((3, 1, 5), 2)
    blocks = np.array([[FIRST_CLASS, FIRST_CLASS + 1, SKIPPED, FIRST_CLASS + 1, HIDDEN]])
    rows = STEPPED.rows_of(symbols, blocks, (0, 1))[:, 0].T.tolist()
    # Of two symbols of 2 the one to the left is 0.8 ≈ 1 in steps of 640: 2·1 does not reach 3.
    assert rows == [[0, -1, -1], [2, 4, 6], [-1] * 3, [2, 4, 6], [-1] * 3]
    rows = STEPPED.rows_of(symbols, blocks, (1, 1))[:, 0].T.tolist()
    assert rows == [[2, 4, 6], [3, 5, 7], [-1] * 3, [2, 4, 6], [-1] * 3]


def test_a_neighbours_symbol_is_rounded_evenly_and_limited():
    tables = EntropyTables.from_pmfs(
        [[1.0]] * 256, [0.1] * 256, [0] * 256, range(-127, 0), [1, 1], [2**24, 1]
    )
    assert tables.ratios.tolist() == [[256, 65535], [0, 256]]
    tables = EntropyTables(
        tables.cdf, tables.lengths, tables.offsets, tables.bounds, [1, 1], [3, 2], STEPPED.map_cdf
    )
    assert tables.ratios.tolist() == [[256, 384], [171, 256]]
    blocks = np.array([[FIRST_CLASS, FIRST_CLASS + 1]])
    for symbol, scaled in ((-1, -2), (-3, -5), (-2, -3), (-30, -45), (-32768, -4095)):
        contexts = tables.contexts_of(np.array([[[symbol, 0]]]), blocks, (0, 1))
        assert contexts[0, 0, 1] == max(0, 128 + 2 * scaled), symbol


def test_blocks_and_levels_are_checked():
    symbols = np.zeros((3, 2, 2), int)
    for blocks in (np.full((2, 2), 4), np.full((2, 2), -1), np.full((2, 1), 2)):
        with pytest.raises(ValueError, match=r"expected blocks \[2, 2\] of 0 to 3"):
            STEPPED.rows_of(symbols, blocks)
    for levels in ((0,), (0, 2), (-1, 0)):
        with pytest.raises(ValueError, match="expected a level of 0 to 1 for each of 2 classes"):
            STEPPED.rows_of(symbols, None, levels)


@pytest.mark.parametrize("classes", range(1, 7))
def test_an_uncounted_map_is_believed_to_be_as_its_neighbours(classes):
    steps = np.diff(neighbourly_map_cdf(classes))
    assert steps.min() > 0
    assert set(steps.sum(axis=1).tolist()) == {65536}
    blocks = np.full((2, 2), FIRST_CLASS)
    left_and_above = map_contexts_of(blocks, classes)[1, 1]
    outside = map_contexts_of(blocks, classes)[0, 0]
    assert outside == len(steps) - 1
    assert steps[left_and_above].argmax() == FIRST_CLASS
    assert steps[left_and_above, FIRST_CLASS] > 16 * steps[left_and_above, SKIPPED]
    np.testing.assert_allclose(steps[outside], 65536 / (classes + 2), rtol=1e-3)


def test_counted_maps_keep_every_value_and_the_sum():
    counts = np.random.default_rng(1).integers(0, 9, (25, 4)) ** 3
    counts[:, 0] += 1
    cdf = map_cdf_of(counts)
    assert cdf.shape == (25, 5)
    assert (np.diff(cdf).min(), cdf[:, -1].tolist()) == (1, [65536] * 25)
    np.testing.assert_allclose(
        np.diff(cdf) / 65536, counts / counts.sum(axis=1, keepdims=True), atol=1e-4
    )
    with pytest.raises(ModelFileError, match="expected row 3 to have mass"):
        map_cdf_of(counts * (np.arange(25) != 3)[:, None])


def test_code_lengths_of_blocks_are_of_what_is_coded():
    symbols = np.zeros((3, 2, 2), int)
    blocks = np.array([[FIRST_CLASS, SKIPPED], [HIDDEN, FIRST_CLASS + 1]])
    bits = STEPPED.code_length_bits(symbols, blocks, (0, 1)).sum(axis=0)
    np.testing.assert_allclose(bits, [[1, 0], [0, 3]], atol=1e-3)
    map_bits = STEPPED.map_code_length_bits(blocks)
    steps = np.diff(STEPPED.map_cdf)
    assert map_bits[1, 1] == 16 - math.log2(steps[5 * HIDDEN + SKIPPED, FIRST_CLASS + 1])
    assert (map_bits > 0).all()
    assert not STEPPED.map_code_length_bits(np.full((2, 2), FIRST_CLASS)).any()
    with pytest.raises(ValueError, match="expected blocks"):
        STEPPED.map_code_length_bits(np.full((2, 2), 4))


def test_values_may_reach_both_ends_of_int16():
    tables = make(offsets=[-32768, 32765])
    assert tables.offsets.tolist() == [-32768, 32765]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=300), st.floats(1e-9, 1))
def test_quantised_tables_keep_every_symbol_and_the_sum(pmf, tail):
    tables = EntropyTables.from_pmfs([np.array(pmf)], [tail], [-100])
    steps = np.diff(tables.cdf[0])
    assert steps.min() >= 1
    assert steps.sum() == 65536
    assert tables.lengths[0] == len(pmf) + 2


def test_quantisation_is_exact_where_it_can_be():
    pmf = np.array([1, 40000, 25000, 500]) / 65536
    tables = EntropyTables.from_pmfs([pmf], [35 / 65536], [-1])
    assert np.diff(tables.cdf[0]).tolist() == [1, 40000, 25000, 500, 35]


def test_quantisation_costs_little_of_a_steep_pmf():
    pmf = np.concatenate([np.full(300, 1e-12), [1.0], np.full(300, 1e-12)])
    tables = EntropyTables.from_pmfs([pmf], [1e-12], [-300])
    assert np.diff(tables.cdf[0])[300] == 65536 - 601


@pytest.mark.parametrize(
    ("pmf", "tail"),
    [([0.5, math.nan], 0.1), ([0.5, -0.1], 0.1), ([0.0], 0.0), ([], 0.1), ([math.inf], 0.1)],
)
def test_invalid_probabilities_are_refused(pmf, tail):
    with pytest.raises(ModelFileError, match="row 0"):
        EntropyTables.from_pmfs([np.array(pmf)], [tail], [0])


def test_mismatched_arguments_are_refused():
    with pytest.raises(ModelFileError, match="found 1, 2 and 1"):
        EntropyTables.from_pmfs([np.ones(2)], [0.1, 0.1], [0])
    with pytest.raises(ModelFileError, match="found none"):
        EntropyTables.from_pmfs([], [], [])


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 20.0, 100.0])
def test_laplace_tables_are_symmetric_and_peak_at_zero(scale):
    tables = EntropyTables.laplace(3, scale)
    middle = -int(tables.offsets[0])
    steps = np.diff(tables.cdf[0])[:-1]
    assert tables.channels == 3
    assert len(steps) == 2 * middle + 1
    assert steps.argmax() == middle
    assert abs(steps - steps[::-1]).max() <= 1


def test_code_length_counts_escapes_with_their_raw_value():
    bits = make().code_length_bits(np.array([[[-1, 0, 1, -32768]], [[3, 4, 5, 6]]]))
    assert bits.shape == (2, 1, 4)
    first, common = 16 - math.log2(10), 16 - math.log2(65525)
    np.testing.assert_allclose(bits[0, 0], [first, common, 32, 32])
    np.testing.assert_allclose(bits[1, 0], [16, 16, 16, 32 - math.log2(65533)])


def test_code_length_checks_the_shape():
    with pytest.raises(ValueError, match=r"expected symbols \[2, H, W\]"):
        make().code_length_bits(np.zeros((3, 1, 1), int))


def test_compressai_tables_can_be_taken_over():
    models = pytest.importorskip("compressai.entropy_models")
    bottleneck = models.EntropyBottleneck(5)
    bottleneck.update()
    tables = EntropyTables(
        bottleneck._quantized_cdf.numpy(),
        bottleneck._cdf_length.numpy(),
        bottleneck._offset.numpy(),
    )
    assert tables.channels == 5
