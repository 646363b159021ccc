# SPDX-License-Identifier: Apache-2.0
"""Models that code blocks: heads leave no bit, persons get the fine steps, quality moves both."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from roi_codec_ros.codec import Decoder, Encoder, load_encoder, load_model
from roi_codec_ros.codec.block_transform import MEANS, STEPS, fill_hidden
from roi_codec_ros.codec.entropy import FIRST_CLASS, HIDDEN
from roi_codec_ros.codec.ladder import LEVELS, coded_channels, ladder_steps
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.policy import BACKGROUND, NEAR, PERSON, SMALL_PERSON, StepPolicy
from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, UsageError
from roi_codec_ros.lab.tools.hidden_guarantee import check
from roi_codec_ros.regions import Regions, Thresholds, load_regions
from roi_codec_ros.regions.finder import Faces

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("fast")


@pytest.fixture(scope="module")
def encoder(model) -> Encoder:
    return Encoder(model, threads=1)


def test_given_the_maps_a_payload_says_nothing_of_what_is_hidden(encoder, astronaut):
    coded = check(encoder, astronaut, count=200)

    assert 0.02 < coded.hidden_share < 0.4


def test_a_pixel_that_is_not_hidden_does_change_the_payload(encoder, astronaut):
    coded = encoder.encode(astronaut)
    row, column = np.argwhere(coded.blocks == FIRST_CLASS + PERSON)[0]
    other = astronaut.copy()
    other[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] ^= 255

    assert encoder.encode_planned(other, coded.blocks, coded.levels).data != coded.data


def test_the_decoded_head_is_no_function_of_the_real_one(model, encoder, astronaut):
    coded = encoder.encode(astronaut)
    hidden = (coded.blocks == HIDDEN).repeat(16, 0).repeat(16, 1)
    empty = astronaut.copy()
    empty[hidden] = 0
    decoder = Decoder(model, threads=1)

    images = [
        decoder.decode(encoder.encode_planned(frame, coded.blocks, coded.levels).data).image
        for frame in (astronaut, empty)
    ]

    np.testing.assert_array_equal(*images)


def test_a_photograph_comes_back_with_its_person_sharp(model, encoder, astronaut):
    coded = encoder.encode(astronaut)

    frame = Decoder(model, threads=1).decode(coded.data)

    np.testing.assert_array_equal(frame.blocks, coded.blocks)
    assert frame.levels == coded.levels
    assert frame.image.shape == astronaut.shape
    of_class = coded.blocks.repeat(16, 0).repeat(16, 1)
    error = (frame.image.astype(float) - astronaut) ** 2
    persons = error[of_class == FIRST_CLASS + PERSON].mean()
    assert 10 * np.log10(255**2 / persons) > 21
    assert coded.bits_per_pixel < 0.25


def test_more_quality_is_more_bits_and_a_better_picture(model, astronaut):
    encoder, decoder = Encoder(model, threads=1), Decoder(model, threads=1)
    bits, errors = [], []
    for quality in (-4.0, 0.0, 4.0):
        encoder.quality = quality
        coded = encoder.encode(astronaut)
        bits.append(coded.bits_per_pixel)
        seen = (coded.blocks == FIRST_CLASS + PERSON).repeat(16, 0).repeat(16, 1)
        image = decoder.decode(coded.data).image
        errors.append(((image.astype(float) - astronaut)[seen] ** 2).mean())

    assert bits[0] * 1.3 < bits[1] < bits[2] / 1.3
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("quality", [float("nan"), 17.0, -17.0])
def test_a_quality_that_there_is_none_of_is_refused(encoder, quality):
    with pytest.raises(UsageError, match="expected a quality of -16 to 16"):
        encoder.quality = quality


def test_models_without_levels_take_no_quality():
    encoder = load_encoder("paper-128-2")

    with pytest.raises(UsageError, match="expected quality 0 for paper-128-2"):
        encoder.quality = 2.0


def test_a_model_that_codes_blocks_runs_no_network_in_torch():
    with pytest.raises(UsageError, match="expected a backend among auto, onnxruntime"):
        load_encoder("fast", backend="torch")


def test_frames_of_any_size_are_coded_to_their_border(model, encoder, astronaut):
    odd = astronaut[:245, :333]

    frame = Decoder(model, threads=1).decode(encoder.encode(odd).data)

    assert frame.image.shape == odd.shape


class ForgetfulFinder:
    """Sees a head in the first frame only, and a person in each."""

    name, thresholds = "onnxruntime", Thresholds()

    def __init__(self) -> None:
        self._frames = 0

    def find(self, image: np.ndarray) -> Regions:
        heads, persons = np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32)
        persons[4:30, 8:20] = 0.9
        heads[4:10, 10:16] = 0.9 if self._frames == 0 else 0.05
        self._frames += 1
        return Regions(heads, persons, Faces())


@pytest.mark.parametrize(("memory_s", "stays"), [(0.5, True), (0.05, False), (0.0, False)])
def test_a_head_found_in_the_frame_before_stays_hidden(memory_s, stays, model, astronaut):
    encoder = Encoder(model, regions=ForgetfulFinder(), hide_memory_s=memory_s)
    first = encoder.encode(astronaut, stamp_s=10.0)

    second = encoder.encode(astronaut, stamp_s=10.1)

    was = first.blocks == HIDDEN
    assert was.sum() == 36
    assert (second.blocks[was] == HIDDEN).all() == stays


def test_between_two_frames_judged_whole_heads_are_hidden_and_what_is_beside_them(
    model, astronaut
):
    class Film(ForgetfulFinder):
        def find_faces(self, image: np.ndarray) -> Regions:
            nothing = np.zeros((32, 32), np.float32)
            return Regions(nothing, nothing, Faces(box(16, 16, 80, 80), np.ones(1, np.float32)))

    encoder = Encoder(model, regions=Film(), persons_every=2, hide_memory_s=0.5)
    whole = encoder.encode(astronaut, stamp_s=10.0).blocks
    between = encoder.encode(astronaut, stamp_s=10.05).blocks
    next_one = encoder.encode(astronaut, stamp_s=10.10).blocks

    was = (whole == HIDDEN)[4:10, 10:16]
    assert was.all() and (between[4:10, 9:17] == HIDDEN).all()
    assert (between[1:4, 1:4] == HIDDEN).all()  # a face that came in between
    assert (next_one[4:10, 10:16] == HIDDEN).all() and not (next_one[4:10, 9] == HIDDEN).any()
    assert (between[20:29, 9:19] != HIDDEN).all()


def box(*sides: float) -> np.ndarray:
    return np.array([sides], np.float32)


class BlindFinder:
    """Regions that can judge nothing."""

    name = "onnxruntime"
    thresholds = None

    def find(self, image: np.ndarray) -> None:
        raise RoiCodecError("expected finite numbers from regions.onnx, found others")


def test_a_frame_that_regions_can_not_judge_is_not_coded(model, astronaut):
    encoder = Encoder(model, regions=BlindFinder())

    with pytest.raises(RoiCodecError, match="expected finite numbers"):
        encoder.encode(astronaut)


# ---------------------------------------------------------------------------------------- policy


def test_small_persons_are_finest_then_large_ones_then_what_is_around_them_or_doubtful():
    persons = np.zeros((26, 12), np.float32)
    persons[1:25, 2:4] = 0.9
    persons[4:6, 9] = 0.9
    doubtful = np.zeros((26, 12), bool)
    doubtful[1, 2] = doubtful[0, 11] = True

    policy = StepPolicy()
    classes = policy.classes(policy.person_blocks(persons), doubtful)

    assert classes[5, 2] == PERSON and classes[4, 9] == SMALL_PERSON
    assert classes[5, 1] == NEAR and classes[0, 0] == BACKGROUND
    assert classes[1, 2] == classes[0, 11] == NEAR, "no face is sent in the steps of a person"
    background, near, person, small = policy.levels
    assert background > near > person > small


def test_few_doubtful_blocks_are_a_person_far_away_and_many_are_not():
    scores = np.zeros((14, 30), np.float32)
    scores[2:6, 2] = 0.25
    scores[4, 2] = 0.35  # far away: one block is surer than the others
    scores[2:6, 8] = 0.25  # none is
    scores[2:8, 14] = 0.35  # too high to be far away
    scores[2:8, 20] = [0.35, 0.35, 0.6, 0.6, 0.35, 0.35]
    scores[2, 27] = 0.15

    found = StepPolicy(person=0.5).person_blocks(scores)

    wanted = np.zeros_like(found)
    wanted[2:6, 2] = wanted[4:6, 20] = True
    np.testing.assert_array_equal(found, wanted)
    assert not StepPolicy().person_blocks(np.zeros((3, 4), np.float32)).any()
    assert StepPolicy().person_blocks(np.full((3, 4), 0.25, np.float32)).sum() == 0
    everywhere = StepPolicy().person_blocks(np.full((3, 4), 0.31, np.float32))
    assert everywhere.all(), "a group may fill a small frame"


def test_quality_moves_all_classes_and_stops_at_the_ends_of_the_ladder():
    policy = StepPolicy(levels=(22.0, 15.0, 6.0, 5.0))

    assert policy.levels_at(0).tolist() == [22, 15, 6, 5]
    assert policy.levels_at(4).tolist() == [18, 11, 2, 1]
    assert policy.levels_at(16).tolist() == [6, 0, 0, 0]
    assert policy.levels_at(-16).tolist() == [LEVELS - 1] * 2 + [22, 21]


def test_coarser_levels_have_larger_steps_and_fewer_channels():
    steps, coded = ladder_steps(128, 16), coded_channels(128)

    assert (np.diff(steps, axis=0) > 0).all()
    assert (np.diff(coded) <= 0).all() and coded[0] == 128 and coded[-1] == 8
    assert (coded % 8 == 0).all()
    assert steps[-1, 0] < 0.4 * steps[-1, 127]  # means stay finer than details


def across_borders(image: np.ndarray, chosen: np.ndarray) -> float:
    """Differences of neighbouring pixels across borders of chosen blocks, relative to the rest."""
    steps = np.abs(np.diff(image.astype(np.float32), axis=1)).mean(axis=2)
    pixels = chosen.repeat(16, 0).repeat(16, 1)
    both = pixels[:, 1:] & pixels[:, :-1]
    border = np.zeros(steps.shape, bool)
    border[:, 15::16] = True
    return float(steps[both & border].mean() / steps[both & ~border].mean())


def test_a_background_is_soft_and_shows_no_blocks(model, encoder, astronaut):
    coded = encoder.encode(astronaut)
    decoded = Decoder(model, threads=1).decode(coded.data).image
    background = coded.blocks == FIRST_CLASS + BACKGROUND

    assert background.mean() > 0.15
    assert across_borders(decoded, background) < 1.4  # a spline is steepest there
    mosaic = astronaut.reshape(32, 16, 32, 16, 3).mean((1, 3), keepdims=True)
    tiled = np.broadcast_to(mosaic, (32, 16, 32, 16, 3)).reshape(astronaut.shape)
    assert across_borders(tiled + 0.1 * astronaut, background) > 3


def test_hidden_blocks_get_the_means_of_those_around_and_others_stay():
    coefficients = np.random.default_rng(0).normal(size=(8, 4, 6)).astype(np.float32)
    coefficients[:MEANS, :, :3], coefficients[:MEANS, :, 3:] = 1.0, 3.0
    hidden = np.zeros((4, 6), np.bool_)
    hidden[1:3, 1] = hidden[1:3, 4] = True
    given = coefficients.copy()
    coefficients[:, hidden] = 0

    filled = fill_hidden(coefficients, hidden)

    assert np.array_equal(filled[:, ~hidden], given[:, ~hidden])
    assert filled[:MEANS, 1:3, 1] == pytest.approx(1.0, abs=0.6)
    assert filled[:MEANS, 1:3, 4] == pytest.approx(3.0, abs=0.6)
    assert (filled[MEANS:, hidden] == 0).all()


def test_a_model_file_without_steps_or_policy_is_refused(model):
    tensors = {k: v for k, v in model.tensors.items() if k != STEPS}
    stripped = Model.build(model.name, model.preset, tensors, model.tables, model.header)
    with pytest.raises(ModelFileError, match="to hold steps float32"):
        Encoder(stripped, regions=load_regions())

    header = {k: v for k, v in model.header.items() if k != "policy"}
    lawless = Model.build(model.name, model.preset, model.tensors, model.tables, header)
    with pytest.raises(ModelFileError, match="to hold a policy"):
        Encoder(lawless, regions=load_regions())


def test_bits_at_the_reported_quality_are_those_of_the_payload(encoder, astronaut):
    coded = encoder.encode(astronaut)

    assert coded.bits_per_pixel == pytest.approx(8 * len(coded.data) / astronaut[..., 0].size)
    assert dataclasses.asdict(coded)["timings_ms"]["regions"] >= 0
