# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roi_codec_ros.codec.entropy import EntropyTables
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
        ([0, 1], r"found 2$"),
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
