# SPDX-License-Identifier: Apache-2.0
"""Recordings that loop, clocks that are wrong or set, pauses: who is followed. No ROS."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from roi_codec_ros.stream.clocks import CommonClock, Ruling

RECOVERY_S = 1.0  # what any camera may be left out for at most once its stamps are good
EPOCH_S = 1.7e9


@dataclass
class Site:
    """Cameras and a server. offset_s: of each camera's clock. latency_s: until a frame arrives."""

    names: str = "abc"
    rate_hz: float = 10.0
    latency_s: Callable[[], float] = lambda: 0.05
    live: bool = True  # the server's clock is that of the cameras; else stamps are a recording's
    clock: CommonClock = field(default_factory=CommonClock)
    now_s: float = 0.0
    offset_s: dict[str, float] = field(default_factory=dict)
    taken: list[tuple[float, str]] = field(default_factory=list)
    left_out: list[tuple[float, str]] = field(default_factory=list)

    def send(self, camera: str, extra_s: float = 0.0) -> Ruling:
        stamp_s = EPOCH_S + self.now_s + self.offset_s.get(camera, 0.0) + extra_s
        arrival_s = self.now_s + self.latency_s()
        age_s = EPOCH_S + arrival_s - stamp_s + (0.0 if self.live else 86400.0)
        ruling = self.clock.judge(camera, stamp_s, heard_s=arrival_s, age_s=age_s)
        (self.taken if ruling.taken else self.left_out).append((self.now_s, camera))
        return ruling

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * self.rate_hz)):
            for camera in self.names:
                self.now_s += 1.0 / (self.rate_hz * len(self.names))
                self.send(camera)

    def since(self, then_s: float, cameras: str = "") -> tuple[int, int]:
        """How many frames of cameras were taken and left out."""
        return tuple(  # type: ignore[return-value]
            sum(at_s > then_s and (not cameras or name in cameras) for at_s, name in frames)
            for frames in (self.taken, self.left_out)
        )

    def blind_s(self, then_s: float) -> float:
        """Seconds from a moment to the first frame that was taken."""
        return min(at_s for at_s, _ in self.taken if at_s > then_s) - then_s


def test_frames_of_good_clocks_are_all_taken():
    chance = random.Random(3)
    site = Site(latency_s=lambda: chance.uniform(0.02, 0.4))

    site.run(20.0)

    assert not site.left_out
    assert site.clock.restarts == 0


@pytest.mark.parametrize("names", ["a", "abc"])
@pytest.mark.parametrize("rate_hz", [1.0, 10.0])
@pytest.mark.parametrize("loop_s", [0.3, 0.8, 2.0, 4.0, 10.0])
@pytest.mark.parametrize("live", [True, False])
def test_a_recording_that_loops_is_blind_for_less_than_a_second_each_time(
    names, rate_hz, loop_s, live
):
    site = Site(names, rate_hz, live=live)
    site.run(5.0)
    for _ in range(5):
        site.offset_s = {name: site.offset_s.get(name, 0.0) - loop_s for name in names}
        ended_s = site.now_s
        site.run(max(loop_s, 1.0 / rate_hz))
        if loop_s >= RECOVERY_S:
            assert site.blind_s(ended_s) <= RECOVERY_S + 1e-6

    final_s = site.now_s
    site.run(3.0)
    assert site.blind_s(final_s) <= RECOVERY_S + 1e-6
    assert site.since(final_s + RECOVERY_S)[1] == 0


def test_a_loop_shorter_than_the_spread_goes_on():
    """Two frames, again and again: neither is ever newer than the newest."""
    clock = CommonClock()
    taken = [
        clock.judge("a", 100.0 + index % 2 / 10, heard_s=index / 10, age_s=0.0).restart
        for index in range(100)
    ]

    assert 5 <= sum(taken) <= 25


@pytest.mark.parametrize("ahead_s", [0.7, 3.0, 4.5, 60.0])
@pytest.mark.parametrize("names", ["a", "ab", "abc"])
@pytest.mark.parametrize("live", [True, False])
def test_one_frame_ahead_of_the_others_costs_itself(names, ahead_s, live):
    site = Site(names, live=live)
    site.run(3.0)

    assert not site.send("a", ahead_s).taken
    before_s = site.now_s
    site.run(3.0)

    assert site.since(before_s) == (30 * len(names), 0)
    assert site.clock.restarts == 0


@pytest.mark.parametrize("ahead_s", [0.7, 3.0, 4.5, 60.0])
@pytest.mark.parametrize("live", [True, False])
def test_a_camera_that_stays_ahead_is_left_out_and_named(ahead_s, live):
    site = Site("abc", live=live)
    site.run(3.0)
    site.offset_s["a"] = ahead_s
    before_s = site.now_s

    site.run(5.0)

    assert site.since(before_s, "bc") == (100, 0)
    assert site.since(before_s, "a") == (0, 50)
    assert "ahead of others'" in site.send("a").reason


@pytest.mark.parametrize("offset_s", [-60.0, -4.5, 4.5, 60.0])
@pytest.mark.parametrize("live", [True, False])
def test_a_camera_with_a_wrong_clock_that_was_there_first_gives_way_to_two_that_agree(
    offset_s, live
):
    site = Site("a", live=live, offset_s={"a": offset_s})
    site.run(3.0)
    site.names = "abc"
    before_s = site.now_s
    site.run(4.0)

    assert site.since(before_s + RECOVERY_S, "bc")[1] == 0
    assert site.since(before_s + RECOVERY_S, "a")[0] == 0


@pytest.mark.parametrize("first", ["ab", "ba"])
def test_of_two_cameras_the_servers_clock_tells_which_is_right(first):
    site = Site(first[0], offset_s={"a": 4.5})
    site.run(3.0)
    site.names = first
    before_s = site.now_s
    site.run(4.0)

    assert site.since(before_s + RECOVERY_S) == (30, 30)
    assert {name for at_s, name in site.taken if at_s > before_s + RECOVERY_S} == {"b"}


def test_of_two_cameras_in_a_recording_the_first_goes_on():
    site = Site("ba", live=False)
    site.run(3.0)
    site.offset_s["a"] = -3.0
    before_s = site.now_s
    site.run(4.0)

    assert site.since(before_s, "b") == (40, 0)
    assert site.since(before_s, "a") == (0, 40)


@pytest.mark.parametrize("pause_s", [0.6, 2.0, 6.0, 30.0])
@pytest.mark.parametrize("stamps_pause", [False, True])
def test_the_first_frame_after_a_pause_is_taken(pause_s, stamps_pause):
    site = Site("abc")
    site.run(3.0)
    site.now_s += pause_s
    if stamps_pause:  # a player that was paused
        site.offset_s = dict.fromkeys("abc", -pause_s)

    assert site.send("a").taken
    site.run(3.0)
    assert not site.left_out


@pytest.mark.parametrize("period_s", [2.0, 6.0, 60.0])
def test_every_frame_of_a_slow_camera_is_taken(period_s):
    site = Site("a", 1.0 / period_s)

    site.run(20 * period_s)

    assert not site.left_out


@pytest.mark.parametrize("period_s", [0.1, 2.0, 6.0])
@pytest.mark.parametrize("jump_s", [-3600.0, -0.7, 0.7, 3600.0])
def test_one_cameras_clock_that_is_set_is_followed(period_s, jump_s):
    site = Site("a", 1.0 / period_s)
    site.run(10 * period_s)
    site.offset_s["a"] = jump_s
    before_s = site.now_s
    site.run(max(3.0, 3 * period_s))

    assert site.blind_s(before_s) <= max(period_s, RECOVERY_S) + 1e-6
    assert site.clock.restarts == (site.clock.last_restart != "")


def test_when_the_others_die_the_one_whose_clock_is_set_is_followed():
    site = Site("abc")
    site.run(3.0)
    site.names, site.offset_s = "a", {"a": -100.0}
    before_s = site.now_s
    site.run(3.0)

    assert site.blind_s(before_s) <= RECOVERY_S + 1e-6
    assert "back" in site.clock.last_restart


def test_a_fast_camera_with_a_wrong_clock_does_not_push_two_slow_ones_out():
    site = Site("bc", 0.5)
    site.run(10.0)
    began_s = site.now_s
    for tick in range(200):  # 20 s
        site.now_s += 0.1
        site.send("a", 30.0)
        if tick % 20 == 10:
            site.send("b")
            site.send("c")

    assert site.since(began_s, "a")[0] == 0
    assert site.since(began_s, "bc") == (20, 0)


def test_stamps_that_stand_still_are_not_taken_again():
    clock = CommonClock()
    rulings = [clock.judge("a", 7.0, heard_s=index / 10, age_s=index / 10) for index in range(50)]

    assert [ruling.taken for ruling in rulings] == [True] + [False] * 49
    assert rulings[-1].reason == "their stamps stand still"


def test_a_backlog_that_is_worked_off_counts_as_no_jump():
    """A stall of 3 s: what waited comes late and at once, then fresh frames again."""
    site = Site("ab")
    site.run(3.0)
    site.now_s += 0.05
    sent_s = site.now_s
    site.latency_s = lambda: 3.0
    late = [site.send(name) for name in "ab"]
    site.now_s, site.latency_s = sent_s + 3.05, lambda: 0.05
    site.run(2.0)

    assert all(ruling.taken for ruling in late)
    assert not site.left_out


def test_a_restart_says_from_where_to_where():
    site = Site("a")
    site.run(2.0)
    site.offset_s["a"] = -50.0
    site.run(2.0)

    assert site.clock.restarts == 1
    assert site.clock.last_restart.startswith("stamps jumped 49.")
    assert " back, from 1700000002.0" in site.clock.last_restart


@pytest.mark.parametrize("seed", range(5))
def test_whatever_came_before_good_stamps_are_followed_within_a_second(seed):
    """Random loops, jumps, dead and late cameras; then all is well."""
    chance = random.Random(seed)
    site = Site("abcd", live=chance.random() < 0.5)
    for _ in range(30):
        site.names = "".join(chance.sample("abcd", chance.randint(1, 4)))
        site.offset_s = {name: chance.choice([0, 0, -4, 4.5, -0.8, 900]) for name in "abcd"}
        site.run(chance.uniform(0.2, 3.0))
    site.names, site.offset_s = "abcd", {}
    before_s = site.now_s
    site.run(4.0)

    assert site.since(before_s + RECOVERY_S)[1] == 0
