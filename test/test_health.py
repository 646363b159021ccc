# SPDX-License-Identifier: Apache-2.0
"""When a camera is OK, WARN, ERROR or STALE, and when it is blind. No ROS, no waiting."""

from __future__ import annotations

import pytest

from roi_codec_ros.stream.health import CameraHealth, Judgement, Level, Words, unplaceable

WORDS = Words("no latent", "payloads refused", "latents arrive, none decoded")
PATIENCE_S = 2.0


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return CameraHealth(WORDS, clock)


def level(health: CameraHealth) -> Level:
    return health.judge(PATIENCE_S).level


def test_before_anything_came_it_is_stale_and_sees_nothing(health):
    assert health.judge(PATIENCE_S) == Judgement(Level.STALE, "no latent yet")
    assert not health.sees(PATIENCE_S)


def test_a_first_frame_that_is_on_its_way_is_no_error(health, clock):
    health.heard()
    clock.now_s += 1.0

    assert health.judge(PATIENCE_S) == Judgement(Level.STALE, "no latent yet")


def test_frames_of_use_are_ok_until_the_patience_is_over(health, clock):
    health.heard()
    health.used(age_s=0.25)
    clock.now_s += PATIENCE_S

    assert health.judge(PATIENCE_S) == Judgement(Level.OK)
    assert health.sees(PATIENCE_S)
    assert health.age_ms.mean == 250.0

    clock.now_s += 0.5
    assert health.judge(PATIENCE_S) == Judgement(Level.STALE, "no latent for 2.5 s")
    assert not health.sees(PATIENCE_S)


def test_a_refusal_among_frames_of_use_is_a_warning_and_is_forgotten(health, clock):
    health.heard()
    health.used()
    assert [health.refuse("bad_payload", "found noise") for _ in range(2)] == [1, 2]

    assert health.judge(PATIENCE_S) == Judgement(
        Level.WARN, "payloads refused: bad_payload: found noise"
    )
    clock.now_s += PATIENCE_S + 0.1
    health.heard()
    health.used()
    assert level(health) is Level.OK
    assert health.refusals.as_dict() == {"bad_payload": 2}


def test_refusals_alone_are_an_error_and_blind(health, clock):
    health.heard()
    health.used()
    for _ in range(30):
        clock.now_s += 0.1
        health.heard()
        health.refuse("unknown_model", "found another")

    assert level(health) is Level.ERROR
    assert not health.sees(PATIENCE_S)


def test_refusals_from_the_start_are_an_error(health):
    health.heard()
    health.refuse("unknown_model", "found another")

    assert level(health) is Level.ERROR


def test_frames_that_come_and_are_not_used_are_an_error(health, clock):
    for _ in range(31):
        clock.now_s += 0.1
        health.heard()

    assert health.judge(PATIENCE_S) == Judgement(
        Level.ERROR, "latents arrive, none decoded for 3.0 s: overloaded"
    )
    health.used()
    assert level(health) is Level.OK


def test_an_activation_waits_anew_and_counts_on(health, clock):
    health.heard()
    health.used()
    health.refuse("late", "found an old one")

    health.restart()

    assert health.judge(PATIENCE_S) == Judgement(Level.STALE, "no latent yet")
    assert health.refusals["late"] == 1


@pytest.mark.parametrize(
    ("placed", "refused", "told"),
    [
        (0, {}, True),  # nobody is there
        (2, {}, True),
        (1, {"above_horizon": 3}, True),  # an obstacle is one, whatever else is there
        (0, {"above_horizon": 1}, False),
        (0, {"camera_below_ground": 2, "empty_box": 1}, False),
    ],
)
def test_a_frame_whose_every_person_is_refused_tells_nothing_of_the_floor(placed, refused, told):
    assert (unplaceable(placed, refused) == "") == told


def test_the_reason_names_what_became_of_the_persons():
    assert unplaceable(0, {"above_horizon": 1}) == (
        "the one person that it sees cannot be placed (above_horizon 1)"
    )
    assert unplaceable(0, {"out_of_range": 1, "above_horizon": 2}) == (
        "none of 3 persons that it sees can be placed (above_horizon 2, out_of_range 1)"
    )
