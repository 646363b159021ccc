# SPDX-License-Identifier: Apache-2.0
"""Cameras that stand still send what has changed; decoders show what they have, and no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from roi_codec_ros.codec import (
    HIDDEN,
    SKIPPED,
    Decoder,
    EncodedFrame,
    Encoder,
    Payload,
    Place,
    StreamState,
    load_encoder,
    load_model,
)
from roi_codec_ros.codec.bitstream import MAX_NUMBER
from roi_codec_ros.codec.decoding import NEUTRAL
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.common.errors import BitstreamError, UsageError
from roi_codec_ros.regions import Regions, Thresholds
from roi_codec_ros.regions.finder import Faces

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

SIDE = 160  # px, ten blocks
RATE_HZ = 10.0


class Finder:
    """Finds persons and heads where it is told; nobody where it is not."""

    name, thresholds = "onnxruntime", Thresholds()

    def __init__(self) -> None:
        self.persons: tuple[slice, slice] | None = None
        self.heads: tuple[slice, slice] | None = None

    def find(self, image: np.ndarray) -> Regions:
        rows, columns = (-(-side // 16) for side in image.shape[:2])
        heads, persons = np.zeros((2, rows, columns), np.float32)
        if self.persons is not None:
            persons[self.persons] = 0.9
        if self.heads is not None:
            heads[self.heads] = 0.95
        return Regions(heads, persons, Faces())


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("fast")


@pytest.fixture(scope="module")
def decoder(model) -> Decoder:
    return Decoder(model, threads=1)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()[-SIDE:, :SIDE].copy()


@pytest.fixture
def finder() -> Finder:
    return Finder()


@pytest.fixture
def encoder(model, finder) -> Encoder:
    return Encoder(model, regions=finder, skip=True)


@pytest.fixture
def predicting(model, finder) -> Encoder:
    return Encoder(model, regions=finder, skip=True, predict=True)


def noisy(scene: np.ndarray, count: int, sigma: float = 2.0) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, sigma, (count, *scene.shape))
    return [(scene + n).round().clip(0, 255).astype(np.uint8) for n in noise]


def film(
    encoder: Encoder, frames: Iterable[np.ndarray], first_s: float = 100.0, hz: float = RATE_HZ
) -> list[EncodedFrame]:
    return [encoder.encode(f, stamp_s=first_s + i / hz) for i, f in enumerate(frames)]


def known(
    decoder: Decoder, coded: Sequence[EncodedFrame], state: StreamState | None = None
) -> list[np.ndarray]:
    """What is there after each frame; nothing is synthesised."""
    state = state or StreamState()
    return [decoder.read(frame.data, state).picture.known for frame in coded]


def sent(coded: Sequence[EncodedFrame]) -> np.ndarray:
    """bool [frames, h, w]."""
    return np.stack([frame.blocks for frame in coded]) != SKIPPED


# ---------------------------------------------------------------------------------- the encoder


def test_what_stands_still_is_sent_once_a_second_and_in_turns(encoder, scene):
    coded = sent(film(encoder, noisy(scene, 40)))

    assert coded[0].all()
    assert coded[1:].mean() < 0.13
    assert coded[1:].sum(axis=(1, 2)).max() <= 15  # of 100, in nine or ten turns
    for first in range(1, len(coded) - 10):
        assert coded[first : first + 10].any(axis=0).all()


@pytest.mark.parametrize("hz", [0.8, 1.5, 3.0, 30.0])
def test_every_block_is_sent_once_a_second_at_any_rate(encoder, scene, hz):
    coded = sent(film(encoder, noisy(scene, 8 + int(3 * hz)), hz=hz))

    in_a_second = max(1, int(hz))
    for first in range(len(coded) - in_a_second):
        assert coded[first : first + in_a_second].any(axis=0).all()


def test_what_changes_is_sent_at_once(encoder, scene):
    frames = noisy(scene, 6)
    for frame in frames[3:]:
        frame[64:80, 96:112] = 255 - frame[64:80, 96:112]

    coded = sent(film(encoder, frames))

    assert coded[3, 4, 6]
    assert coded[3].sum() <= 15


@pytest.mark.parametrize(("brighter", "at_once"), [(10, False), (40, True)])
def test_a_faint_change_of_the_background_waits_for_its_turn(encoder, brighter, at_once):
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    changed = grey.copy()
    changed[:64] += np.uint8(brighter)

    coded = sent(film(encoder, [*[grey] * 3, *[changed] * 10]))

    assert coded[3, :4].mean() > 0.9 if at_once else coded[3, :4].mean() < 0.5
    assert coded[3:, :4].any(axis=0).all()


def test_a_slow_change_is_followed(encoder, decoder, scene):
    encoder.quality = 2.0
    frames = [(scene * (0.5 + 0.01 * i)).astype(np.uint8) for i in range(30)]

    coded = film(encoder, frames)

    state = StreamState()
    known(decoder, coded[:-1], state)
    seen = decoder.decode(coded[-1].data, state).image
    alone = Encoder(encoder.model, regions=Finder())
    alone.quality = encoder.quality
    anew = decoder.decode(alone.encode(frames[-1]).data).image
    assert abs(seen.mean() - anew.mean()) < 4.0  # of the 20 that the change makes


def test_a_block_with_a_person_is_sent_and_half_a_second_longer(encoder, finder, scene):
    finder.persons = np.s_[2:8, 3:6]
    with_person = sent(film(encoder, noisy(scene, 10)))
    finder.persons = None
    after = sent(film(encoder, noisy(scene, 10), first_s=101.0))

    assert with_person[:, 2:8, 3:6].all()
    assert after[:4, 2:8, 3:6].all()
    assert after[5:, 2:8, 3:6].mean() < 0.3


def test_hidden_blocks_are_never_skipped_and_come_back_at_once(encoder, finder, scene):
    finder.heads = np.s_[2:4, 3:5]
    hidden = film(encoder, noisy(scene, 4))
    finder.heads = None
    free = film(encoder, noisy(scene, 1), first_s=100.4)

    assert all((frame.blocks[2:4, 3:5] == HIDDEN).all() for frame in hidden)
    assert sent(free)[0, 2:4, 3:5].all()


def test_another_quality_comes_in_turns_and_within_a_second(encoder, scene):
    film(encoder, [scene] * 12)
    encoder.quality = 6.0
    coded = sent(film(encoder, [scene] * 10, first_s=101.2))

    assert coded.sum(axis=(1, 2)).max() <= 15
    assert coded.any(axis=0).all()


def test_another_size_a_pause_and_a_clock_set_back_begin_anew(encoder, scene):
    streams = [encoder.encode(scene, stamp_s=s).place for s in (100.0, 100.1, 101.2, 101.3, 50.0)]
    smaller = encoder.encode(scene[:, :96], stamp_s=50.1)

    assert [place.number for place in streams] == [0, 1, 0, 1, 0]
    assert len({place.stream for place in streams} | {smaller.place.stream}) == 4
    assert (smaller.blocks != SKIPPED).all()


def test_a_picture_of_no_film_stands_alone(encoder, scene):
    encoder.encode(scene, stamp_s=100.0)

    assert encoder.encode(scene).place == Place()


@pytest.mark.parametrize("predict", [False, True])
def test_given_the_maps_a_film_says_nothing_of_what_is_hidden(model, scene, predict):
    """Neither do its skips: they are decided by what is sent alone."""
    rng = np.random.default_rng(3)
    films = []
    for content in range(4):
        finder = Finder()
        finder.persons, finder.heads = np.s_[2:8, 3:6], np.s_[2:4, 3:5]
        frames = noisy(scene, 12)
        for frame in frames if content else ():
            frame[32:64, 48:80] = rng.integers(0, 256, (32, 32, 3), np.uint8)
        coded = film(Encoder(model, regions=finder, skip=True, predict=predict), frames)
        payloads = [Payload.from_bytes(frame.data) for frame in coded]
        films.append([dataclasses.replace(payload, stream=1) for payload in payloads])

    assert films[0] == films[1] == films[2] == films[3]
    assert any(payload.temporal for payload in films[0]) == predict
    assert (coded[5].blocks == SKIPPED).any()


def test_models_without_blocks_skip_nothing():
    with pytest.raises(UsageError, match=r"expected to send all of every frame with paper-128-2"):
        load_encoder("paper-128-2", backend="torch", skip=True)


# ---------------------------------------------------------------------------------- the decoder


def test_what_was_skipped_is_shown_as_it_was_sent(encoder, decoder, scene):
    coded = film(encoder, [scene] * 3)

    state = StreamState()
    seen = [decoder.decode(frame.data, state) for frame in coded]

    assert (coded[2].blocks == SKIPPED).mean() > 0.8
    assert all(frame.known_share == 1.0 for frame in seen)
    np.testing.assert_array_equal(seen[0].image, seen[2].image)


def test_after_a_gap_nothing_is_shown_that_was_not_sent_since(encoder, decoder, finder, scene):
    finder.persons = np.s_[2:8, 3:6]
    coded = film(encoder, noisy(scene, 25))
    state = StreamState()
    assert known(decoder, coded[:9], state)[-1].all()

    picture = decoder.decode(coded[10].data, state)

    arrived = coded[10].blocks != SKIPPED
    assert arrived[2:8, 3:6].all() and 0.2 < picture.known_share < 0.5
    assert (picture.image[(~arrived).repeat(16, 0).repeat(16, 1)] == NEUTRAL).all()
    for frame, there in zip(coded[11:], known(decoder, coded[11:], state), strict=True):
        arrived |= frame.blocks != SKIPPED
        np.testing.assert_array_equal(there, arrived)
    assert arrived.all() and known(decoder, coded[10:20])[-1].all()


def test_who_comes_late_sees_everything_within_a_second(encoder, decoder, scene):
    coded = film(encoder, noisy(scene, 35))

    for first in (1, 7, 20):
        seen = known(decoder, coded[first : first + 10])
        assert 0.0 < seen[0].mean() < 0.2
        assert seen[-1].all()


def test_a_frame_of_a_stream_by_itself_shows_what_it_brings(encoder, decoder, scene):
    coded = film(encoder, noisy(scene, 3))[2]

    frame = decoder.decode(coded.data)

    np.testing.assert_array_equal(frame.known, coded.blocks != SKIPPED)
    (batched,) = decoder.decode_batch([coded.data])
    np.testing.assert_array_equal(batched.known, frame.known)


def test_a_damaged_payload_is_a_gap(encoder, decoder, scene):
    coded = film(encoder, noisy(scene, 4))
    state = StreamState()
    known(decoder, coded[:2], state)
    with pytest.raises(BitstreamError):
        decoder.read(coded[2].data[:-1] + b"?", state)

    assert known(decoder, coded[3:], state)[0].mean() < 0.2


def test_another_stream_and_numbers_that_go_back_are_gaps(encoder, decoder, scene):
    blocks = np.full((10, 10), SKIPPED, np.uint8)
    blocks[0] = 2
    levels = encoder.encode(scene).levels
    state = StreamState()
    shares = [
        known(decoder, [encoder.encode_planned(scene, b, levels, place)], state)[0].mean()
        for b, place in [
            (np.full_like(blocks, 2), Place(7, MAX_NUMBER)),
            (blocks, Place(7, 0)),  # numbers go round
            (blocks, Place(8, 1)),
            (np.full_like(blocks, 2), Place(8, 2)),
            (blocks, Place(8, 2)),
            (np.full_like(blocks, 2), Place(8, 3)),
            (blocks, Place(8, 2)),
        ]
    ]

    assert shares == [1.0, 1.0, 0.1, 1.0, 0.1, 1.0, 0.1]


# ------------------------------------------------------------------------------------ prediction


def test_a_person_who_stands_takes_fewer_bits_for_the_same_picture(
    encoder, predicting, decoder, finder, scene
):
    finder.persons = np.s_[2:8, 3:6]
    frames = noisy(scene, 12)
    films = [film(e, frames) for e in (encoder, predicting)]

    pictures = []
    for coded in films:
        state = StreamState()
        pictures.append([decoder.decode(frame.data, state).image for frame in coded][-1])

    whole, less = (sum(len(frame.data) for frame in coded[1:]) for coded in films)
    assert less < 0.75 * whole
    errors = [abs(picture.astype(np.float32) - scene).mean() for picture in pictures]
    assert errors[1] < 1.1 * errors[0]
    assert (films[1][5].blocks[2:8, 3:6] != SKIPPED).all()


@pytest.mark.parametrize("hz", [3.0, 10.0, 30.0])
def test_who_comes_late_to_a_film_that_predicts_sees_everything_within_a_second(
    predicting, decoder, finder, scene, hz
):
    finder.persons = np.s_[2:8, 3:6]
    coded = film(predicting, noisy(scene, 6 + int(2 * hz)), hz=hz)

    for first in (1, 5, len(coded) - int(hz)):
        seen = known(decoder, coded[first : first + int(hz)])
        assert not seen[0].all()
        assert seen[-1].all()


def test_after_a_gap_what_is_predicted_is_not_shown_until_it_comes_whole(
    predicting, decoder, finder, scene
):
    finder.persons = np.s_[2:8, 3:6]
    coded = film(predicting, noisy(scene, 25))
    state = StreamState()
    assert known(decoder, coded[:9], state)[-1].all()

    picture = decoder.decode(coded[10].data, state)

    unknown = ~picture.known
    assert unknown[2:8, 3:6].mean() > 0.5
    assert (picture.image[unknown.repeat(16, 0).repeat(16, 1)] == NEUTRAL).all()
    there = known(decoder, coded[11:], state)
    assert there[8].all()
    held = decoder.read(coded[-1].data, state)  # out of order: nothing is made of it
    assert not held.picture.known.all()


def test_bits_of_prediction_that_are_none_of_the_frame_are_refused(
    predicting, decoder, finder, scene
):
    finder.persons = np.s_[2:8, 3:6]
    payload = Payload.from_bytes(film(predicting, noisy(scene, 3))[2].data)
    assert payload.temporal

    for wrong in (payload.temporal + b"\0", b"\x80", bytes(len(payload.temporal))):
        frame = dataclasses.replace(payload, temporal=wrong).to_bytes()
        with pytest.raises(BitstreamError, match=r"expected a bit for each of .* blocks that may"):
            decoder.read(frame, StreamState())
