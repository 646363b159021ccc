# SPDX-License-Identifier: Apache-2.0
"""Replays and stale frames are refused, and no camera is locked out. No ROS, no waiting."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from roi_codec_ros.stream.freshness import (
    AHEAD,
    DUPLICATE,
    LATE,
    REPLAYED,
    SECOND_ENCODER,
    STALE,
    STAMP_NOT_NEWER,
    FreshnessGuard,
)

PERIOD_S = 0.1
RECOVERY_S = 2.0  # what any camera may be refused for at most


@dataclass
class Camera:
    """An encoder and its clock: `frame` gives the stamp and sequence of its next frame."""

    clock_s: float = 1000.0
    sequence: int = 0

    def frame(self) -> tuple[int, int]:
        self.clock_s += PERIOD_S
        self.sequence += 1
        return round(self.clock_s * 1e9), self.sequence


@dataclass
class Server:
    """A guard and the time at which frames reach it."""

    guard: FreshnessGuard = field(default_factory=FreshnessGuard)
    now_s: float = 50.0
    limits: dict[str, float] = field(default_factory=dict)

    def cause(self, frame: tuple[int, int], age_s: float = 0.0) -> str:
        """Why a frame is refused; empty if it is taken."""
        refusal = self.guard.check(*frame, heard_s=self.now_s, age_s=age_s, **self.limits).refusal
        return refusal.cause if refusal else ""

    def seconds_until_taken(self, camera: Camera) -> float:
        """How long a camera at PERIOD_S is refused from now on."""
        started_s = self.now_s
        while self.cause(camera.frame()):
            self.now_s += PERIOD_S
            assert self.now_s - started_s < 60.0, "locked out"
        return self.now_s - started_s


def following(camera: Camera, frames: int = 20, **limits: float) -> tuple[Server, list]:
    """A server that has taken some frames of a camera, and these frames."""
    server, recorded = Server(limits=limits), []
    for _ in range(frames):
        recorded.append(camera.frame())
        server.now_s += PERIOD_S
        assert server.cause(recorded[-1]) == ""
    return server, recorded


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_loss_and_jitter_cost_frames_but_neither_order_nor_silence(loss: float):
    """200 ms of jitter at ten frames a second: some overtake others, which are then too old."""
    noise, camera, server = random.Random(3), Camera(), Server()
    arrivals = []
    for _ in range(2000):
        frame = camera.frame()
        if noise.random() >= loss:
            arrivals.append((frame[0] / 1e9 + noise.uniform(0.0, 0.2), frame))
    taken, causes = [], set()
    for server.now_s, frame in sorted(arrivals):
        cause = server.cause(frame)
        causes.add(cause)
        if not cause:
            taken.append((server.now_s, frame))

    stamps = [frame[0] for _, frame in taken]
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(taken)]
    assert stamps == sorted(set(stamps))
    assert server.guard.restarts == 0
    assert causes == {"", LATE}
    assert abs(server.guard.lost - (2000 - len(arrivals))) <= 2  # the last ones may be on the way
    assert len(taken) > 0.6 * len(arrivals)
    assert max(gaps) < 1.0


def test_a_late_joiner_is_served_at_once():
    camera = Camera(sequence=12345)

    assert Server().cause(camera.frame()) == ""


def test_lost_frames_are_no_reason_to_refuse():
    camera = Camera()
    server, _ = following(camera)
    for _ in range(7):
        camera.frame()

    assert server.cause(camera.frame()) == ""
    assert server.guard.restarts == 0


def test_what_never_came_is_counted_and_what_came_late_is_not():
    camera = Camera()
    server, recorded = following(camera)
    skipped = [camera.frame() for _ in range(7)]
    assert server.cause(camera.frame()) == ""
    assert server.guard.lost == 7

    assert [server.cause(frame) for frame in skipped[:2]] == [LATE, LATE]
    assert server.cause(skipped[0]) == REPLAYED, "it has come by now"
    assert server.cause(recorded[3]) == REPLAYED
    assert server.guard.lost == 5


def test_an_encoder_that_begins_anew_has_lost_nothing():
    camera = Camera()
    server, _ = following(camera)
    camera.sequence = 0
    assert server.seconds_until_taken(camera) < RECOVERY_S

    assert server.guard.lost == 0


def test_a_sequence_far_ahead_is_not_remembered_frame_by_frame():
    camera = Camera()
    server, _ = following(camera)
    sequence, camera.sequence = camera.sequence, 2**63

    assert server.cause(camera.frame()) == ""
    assert server.guard.lost == 2**63 - sequence
    assert len(server.guard._skipped) <= 256


def test_the_last_frame_again_is_never_taken_however_long_it_is_sent():
    server, recorded = following(Camera())

    for _ in range(100):
        assert server.cause(recorded[-1]) == DUPLICATE
        server.now_s += 1.0


def test_a_recording_is_refused_while_the_camera_is_live_and_the_camera_never():
    camera = Camera()
    server, recorded = following(camera)

    causes = []
    for frame in recorded[:-1]:
        causes += [server.cause(frame) for _ in range(20)]  # 200 a second
        server.now_s += PERIOD_S
        assert server.cause(camera.frame()) == ""

    assert set(causes) == {REPLAYED}


def test_a_recording_from_before_the_encoder_restarted_is_refused_while_it_is_live():
    """Its sequence is then newer than the camera's, its stamps are not."""
    camera = Camera()
    server, recorded = following(camera, frames=50)
    camera.sequence, server.now_s, camera.clock_s = 0, server.now_s + 5, camera.clock_s + 5
    assert server.seconds_until_taken(camera) == 0

    assert server.cause(recorded[-10]) == STAMP_NOT_NEWER
    server.now_s += PERIOD_S
    assert server.cause(camera.frame()) == ""


def test_a_camera_that_comes_back_beats_a_recording_of_it_at_once():
    camera = Camera()
    server, recorded = following(camera)
    server.now_s += 10.0
    assert server.cause(recorded[0]) == ""  # nobody else speaks: without max_age_s it is taken
    camera.clock_s += 10.0
    camera.sequence = 0

    assert server.seconds_until_taken(camera) == 0
    assert server.cause(recorded[1]) in (REPLAYED, STAMP_NOT_NEWER)


@pytest.mark.parametrize("down_s", [0.0, 0.3, 5.0])
def test_an_encoder_that_begins_anew_is_served_in_time(down_s: float):
    camera = Camera()
    server, _ = following(camera, frames=200)
    server.now_s, camera.clock_s, camera.sequence = (
        server.now_s + down_s,
        camera.clock_s + down_s,
        0,
    )

    assert server.seconds_until_taken(camera) < RECOVERY_S
    assert server.guard.restarts == 1
    assert server.cause(camera.frame()) == ""


@pytest.mark.parametrize("step_s", [-0.05, -1.0, -3600.0, -1e9, 0.5, 3600.0])
def test_a_clock_that_is_set_recovers_in_time(step_s: float):
    camera = Camera(clock_s=2e9)
    server, _ = following(camera)
    camera.clock_s += step_s

    assert server.seconds_until_taken(camera) < RECOVERY_S
    assert server.seconds_until_taken(camera) == 0


def test_a_clock_set_back_and_a_new_encoder_at_once_recover_in_time():
    camera = Camera()
    server, _ = following(camera)
    camera.clock_s, camera.sequence = 3.0, 0

    assert server.seconds_until_taken(camera) < RECOVERY_S


def test_a_second_encoder_of_the_same_name_is_refused_and_named():
    first, second = Camera(), Camera(clock_s=1000.05)
    server, _ = following(first)
    second.clock_s = first.clock_s + 0.05

    outcomes = []
    for _ in range(50):
        server.now_s += PERIOD_S
        outcomes.append((server.cause(first.frame()), server.cause(second.frame())))

    assert set(outcomes) == {("", SECOND_ENCODER)}


def test_a_forged_newer_frame_costs_the_camera_no_more_than_the_silence():
    """The limit of the rule: a forger who goes on and on is for DDS security."""
    camera = Camera()
    server, _ = following(camera)
    assert server.cause((2**62, 2**63)) == ""

    assert 0 < server.seconds_until_taken(camera) < RECOVERY_S


def test_ages_are_refused_only_when_a_limit_is_set():
    camera = Camera()
    server, _ = following(camera, max_age_s=1.0)

    assert server.cause(camera.frame(), age_s=1.5) == STALE
    assert server.cause(camera.frame(), age_s=-1.5) == AHEAD
    assert server.cause(camera.frame(), age_s=0.9) == ""
    server.limits = {}
    assert server.cause(camera.frame(), age_s=1e6) == ""


def test_a_recording_is_refused_for_its_age_while_the_camera_is_silent():
    server, recorded = following(Camera(), max_age_s=1.0)
    server.now_s += 60.0

    assert {server.cause(frame, age_s=60.0) for frame in recorded} == {STALE}


def test_without_a_silence_frames_come_in_any_order():
    server, recorded = following(Camera(), restart_after_s=0.0)

    assert server.cause(recorded[3]) == ""
    assert server.cause(recorded[3]) == DUPLICATE


def test_a_reason_says_what_was_expected_and_found():
    server, recorded = following(Camera())

    refusal = server.guard.check(*recorded[9], heard_s=server.now_s).refusal

    assert refusal is not None
    assert refusal.reason == "expected a newer frame, found one 1.000 s older and 10 frames back"
