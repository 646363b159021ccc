# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import math

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
from roi_codec_ros.codec.spatial import activities, code_length_bits, coded_symbols
from roi_codec_ros.codec.stored_tables import table_tensors, tables_of_tensors
from roi_codec_ros.codec.table_checks import (
    GROUP,
    NEIGHBOURS,
    REACH,
    equal_activity_weights,
)
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
        ([1, 2], "expected rows for 3 contexts of each channel .*, found 2$"),
        ([256], r"expected rising bounds of 1 to 255, found \[256\]"),
        ([0], r"expected rising bounds of 1 to 255, found \[0\]"),
        ([[0]], r"found \[1, 1\]"),
        ([1.0], "found float64"),
    ],
)
def test_invalid_contexts_are_refused(bounds, found):
    with pytest.raises(ModelFileError, match=found):
        EntropyTables(np.array(CDF), np.array(LENGTHS), np.array(OFFSETS), np.array(bounds))
    with pytest.raises(ModelFileError, match=r"expected rising bounds .*found \[2, 2\]"):
        EntropyTables.from_pmfs([[1.0]] * 3, [0.1] * 3, [0] * 3, [2, 2])


STEPPED = EntropyTables.from_pmfs(
    [[0.2, 0.5, 0.2]] * 20,
    [0.1] * 20,
    [-1] * 20,
    [3],
    [1, 3],
    np.array([[256, 100], [640, 300]]),
    np.array([(0, 1, 0, 1024), (1, 0, 0, 512)]),
    neighbourly_map_cdf(2),
)


def test_tables_of_one_level_and_one_class_need_not_say_so():
    tables = make()
    assert (tables.levels, tables.classes) == (1, 1)
    assert (tables.coded_channels.tolist(), tables.predicted) == ([2], 0)
    assert (tables.ladder.shape, tables.predictor.shape) == ((1, 0), (0, 4))
    np.testing.assert_array_equal(tables.map_cdf, neighbourly_map_cdf(1))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"coded_channels": [1, 0]}, r"expected 1 coded channel or more .*found \[1, 0\]"),
        ({"coded_channels": [[1, 3]]}, r"levels, found \[1, 2\]"),
        ({"coded_channels": [1] * 65}, r"expected coded_channels of 1 to 64 levels, found \[65\]"),
        ({"coded_channels": [2**31 - 1] * 2}, "expected 8589934604 rows"),
        ({"coded_channels": [1, 2]}, "expected 18 rows, one for each .*, found 20"),
        ({"ladder": np.zeros(0, int)}, r"expected a predictor of 0 channels"),
        ({"ladder": [[1, 1]]}, r"expected a ladder \[2, 0..3\], found \[1, 2\]"),
        ({"ladder": [[1] * 4] * 2}, r"expected a ladder \[2, 0..3\], found \[2, 4\]"),
        ({"ladder": [[0, 1], [1, 1]]}, "expected a ladder of steps of 1 to 65535, found 0 to 1"),
        ({"ladder": [[1, 65536], [1, 1]]}, "found 1 to 65536"),
        ({"predictor": [[0, 1, 0]]}, r"expected a predictor \[n, 4\], found \[1, 3\]"),
        ({"predictor": [[0, 0, 0, 1]]}, r"found \[0, 0, 0, 1\] in row 0"),
        ({"predictor": [[0, 5, 0, 1]]}, r"found \[0, 5, 0, 1\] in row 0"),
        ({"predictor": [[0, 1, 2, 1]]}, r"found \[0, 1, 2, 1\] in row 0"),
        ({"predictor": [[0, 1, 0, 8193]]}, r"found \[0, 1, 0, 8193\] in row 0"),
        ({"predictor": [[1, 1, 0, 1], [0, 1, 0, 1]]}, r"found \[0, 1, 0, 1\] in row 1"),
        ({"predictor": [[0, 1, 0, 1]] * 17}, "expected at most 16 inputs of a channel, found 17"),
        ({"map_cdf": neighbourly_map_cdf(1)[1:]}, r"1 to 6 classes, found \[15, 4\]"),
        ({"map_cdf": neighbourly_map_cdf(7)}, r"1 to 6 classes, found \[100, 10\]"),
        ({"map_cdf": neighbourly_map_cdf(1)[0]}, r"1 to 6 classes, found \[4\]"),
        ({"map_cdf": neighbourly_map_cdf(1) * 2}, "found an error in row 0"),
        ({"map_cdf": np.sort(neighbourly_map_cdf(1) // 30000 * 32768)}, "found an error in row"),
        ({"map_cdf": neighbourly_map_cdf(1) * 1.0}, "expected integers in map_cdf"),
    ],
)
def test_invalid_levels_and_maps_are_refused(change, found):
    fields = {name: getattr(STEPPED, name) for name in TABLES}
    with pytest.raises(ModelFileError, match=found) as caught:
        EntropyTables(**{**fields, **{k: np.array(v) for k, v in change.items()}})
    assert "\n" not in str(caught.value)


def test_rows_are_counted_by_level_then_channel_then_context():
    assert (STEPPED.channels, STEPPED.contexts, STEPPED.levels, STEPPED.classes) == (3, 2, 2, 2)
    assert STEPPED.predicted == 2
    assert STEPPED.first_row(np.array([0, 1])).tolist() == [0, 6]
    assert STEPPED.row_of_channel.tolist() == [0, 6, 12]
    symbols = np.full((3, 1, 5), 2)
    blocks = np.array([[FIRST_CLASS, FIRST_CLASS + 1, SKIPPED, FIRST_CLASS + 1, HIDDEN]])
    coded = coded_symbols(STEPPED, symbols, blocks, (0, 1))
    # The first and the fourth block have nothing to be predicted from: the last context of each
    # channel, a prediction of 0. The second follows a 2 of 256, which is 0.8 of 640, 1 from below.
    # Of its mean of 2, 640 · 2 / 2 are predicted of the next channel, 2.13 of 300.
    assert coded.rows[:, 0].T.tolist() == [
        [4, -1, -1],
        [6 + 3 + 0, 12 + 1, 18],
        [-1, -1, -1],
        [6 + 4, 12 + 4, 18],
        [-1, -1, -1],
    ]
    assert coded.differences[:, 0].T.tolist() == [
        [2, 0, 0],
        [1, 0, 2],
        [0, 0, 0],
        [2, 2, 2],
        [0, 0, 0],
    ]


def test_predictions_are_rounded_down_from_halves_and_limited():
    tables = EntropyTables.from_pmfs(
        [[1.0]] * 6,
        [0.1] * 6,
        [0] * 6,
        (),
        [1, 1],
        np.array([[65535], [1]]),
        np.array([(0, 1, 0, 1024)]),
        neighbourly_map_cdf(2),
    )
    blocks = np.array([[FIRST_CLASS, FIRST_CLASS + 1]])
    for symbol, levels, difference, fraction in (
        (1, (0, 1), -4095, 2),
        (-1, (0, 1), 4095, 0),
        (32767, (1, 0), 0, 2),  # 32767 / 65535 is just below a half
        (-32768, (1, 0), 1, 2),  # just below minus a half: one step down, and up from there
        (-32768, (0, 0), 4095, 0),
    ):
        symbols = np.array([[[symbol, 0]]], np.int16)
        coded = coded_symbols(tables, symbols, blocks, levels)
        assert coded.differences[0, 0].tolist() == [symbol, difference]
        assert (coded.rows[0, 0, 1] - 3 * levels[1]) == fraction, symbol


def test_an_unknown_neighbour_is_replaced_by_a_known_one():
    """Of four places with weights that tell them apart; what is above right comes last."""
    weights = [(0, place, 0, 1024 * 4**n) for n, place in enumerate((1, 2))]
    weights += [(0, 3, 0, 64), (0, 4, 0, 4)]
    tables = EntropyTables.from_pmfs(
        [[1.0]] * 3, [0.1] * 3, [0] * 3, ladder=np.array([[1]]), predictor=np.array(weights)
    )
    left, above, above_left, above_right = 16, 256, 1024, 4096

    def predicted(*known: bool) -> int:
        around = np.array([[above_left, above, above_right], [left, 0, 0]], np.int16)
        blocks = np.full((2, 3), SKIPPED)
        for place, there in zip(((1, 0), (0, 1), (0, 0), (0, 2)), known, strict=True):
            blocks[place] = FIRST_CLASS if there else SKIPPED
        blocks[1, 1] = FIRST_CLASS
        return -int(coded_symbols(tables, around[None], blocks).differences[0, 1, 1])

    def sum_of(at_left: int, at_above: int, at_above_left: int, at_above_right: int) -> int:
        total = 1024 * at_left + 4096 * at_above + 64 * at_above_left + 4 * at_above_right
        return min(4095, (2 * total + 1024) // 2048)

    assert predicted(True, True, True, True) == sum_of(left, above, above_left, above_right)
    assert predicted(False, True, True, True) == sum_of(above, above, above_left, above_right)
    assert predicted(True, False, True, True) == sum_of(left, left, above_left, above_right)
    assert predicted(True, True, False, False) == sum_of(left, above, above, above)
    assert predicted(True, False, False, False) == sum_of(left, left, left, left)
    assert predicted(False, False, True, False) == sum_of(*[above_left] * 4)
    assert predicted(False, False, False, True) == sum_of(*[above_right] * 4)
    assert predicted(False, False, False, False) == 0


def test_what_is_coded_around_a_symbol_is_its_activity():
    differences = np.zeros((50, 2, 2), np.int64)
    differences[0] = 9  # three for each later group within reach
    differences[39, 1, 1] = -2
    differences[7, 0, 1], differences[7, 1, 0] = 20, -4
    activity = activities(differences, equal_activity_weights(50))[:, 1, 1].tolist()
    assert activity[0] == 2 * (9 + 9)
    assert activity[7] == 2 * (15 + 4)
    assert activity[8:32] == [3] * 24
    assert activity[32:40] == [3] * 8
    assert activity[40:] == [2] * 10


def test_what_counts_in_an_activity_is_weighted():
    differences = np.zeros((50, 1, 2), np.int64)
    differences[2, 0, 1], differences[9, 0, 1], differences[12, 0, 0] = 1, -5, 2
    weights = np.zeros((50, REACH + NEIGHBOURS), np.int32)
    weights[12, [26, 33, 40]] = 8, 20, 100  # channel 2, channel 9 of its own group, left
    weights[20, 25] = 255  # channel 9
    activity = activities(differences, weights)[:, 0, 1].tolist()
    assert activity[12] == (8 * 1 + 20 * 3 + 100 * 2) // 16
    assert activity[20] == 255 * 3 // 16
    assert sum(activity) == activity[12] + activity[20]
    weights[12, [26, 41]] = 255
    assert activities(np.full((50, 2, 1), 99), weights)[12, 1, 0] == 255


def test_activity_weights_are_of_what_is_decoded_before():
    def tables(weights: np.ndarray) -> EntropyTables:
        return dataclasses.replace(STEPPED, activity_weights=weights)

    predicted, channels = STEPPED.predicted, STEPPED.channels
    assert 0 < predicted < channels
    weights = equal_activity_weights(channels)
    np.testing.assert_array_equal(STEPPED.activity_weights, weights)
    for wrong, found in (
        (weights[1:], rf"expected activity_weights \[{channels}, 42\]"),
        (weights + 255, "of 0 to 255, found 255 to 287"),
        (weights - 1, "of 0 to 255, found -1 to 31"),
    ):
        with pytest.raises(ModelFileError, match=found):
            tables(wrong)
    own_group = slice(REACH - GROUP, REACH)
    for channel in (0, predicted):  # the first knows nothing, those not predicted only groups
        early = weights.copy()
        early[channel, own_group] = 1
        with pytest.raises(ModelFileError, match=f"before, found others of channel {channel}"):
            tables(early)
    early = weights.copy()
    early[predicted - 1, own_group][: predicted - 1] = 1
    assert tables(early).activity_weights[predicted - 1, own_group].sum() == predicted - 1


def test_activity_weights_are_stored_only_where_they_differ():
    assert "entropy.activity_weights" not in table_tensors(STEPPED)
    weights = equal_activity_weights(STEPPED.channels)
    weights[1, -1] = 77
    for tables in (STEPPED, dataclasses.replace(STEPPED, activity_weights=weights)):
        read = tables_of_tensors(table_tensors(tables), "a file")
        for name in TABLES:
            np.testing.assert_array_equal(getattr(read, name), getattr(tables, name))


def test_blocks_and_levels_are_checked():
    symbols = np.zeros((3, 2, 2), int)
    for blocks in (np.full((2, 2), 4), np.full((2, 2), -1), np.full((2, 1), 2)):
        with pytest.raises(ValueError, match=r"expected blocks \[2, 2\] of 0 to 3"):
            coded_symbols(STEPPED, symbols, blocks)
    for levels in ((0,), (0, 2), (-1, 0)):
        with pytest.raises(ValueError, match="expected a level of 0 to 1 for each of 2 classes"):
            coded_symbols(STEPPED, symbols, None, levels)


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
    bits = code_length_bits(STEPPED, symbols, blocks, (0, 1)).sum(axis=0)
    np.testing.assert_allclose(bits, [[1, 0], [0, 3]], atol=1e-3)


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
    bits = code_length_bits(make(), np.array([[[-1, 0, 1, -32768]], [[3, 4, 5, 6]]]))
    assert bits.shape == (2, 1, 4)
    first, common = 16 - math.log2(10), 16 - math.log2(65525)
    np.testing.assert_allclose(bits[0, 0], [first, common, 32, 32])
    np.testing.assert_allclose(bits[1, 0], [16, 16, 16, 32 - math.log2(65533)])


def test_code_length_checks_the_shape():
    with pytest.raises(ValueError, match=r"expected symbols \[2, H, W\]"):
        code_length_bits(make(), np.zeros((3, 1, 1), int))


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
