# SPDX-License-Identifier: Apache-2.0
"""A robot in the hall: Nav2's rules of a collision monitor, and the drive by the whole graph."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.demo.drive_report import (
    covers_of,
    drive_result,
    table_lines,
    unhindered,
)
from roi_codec_ros.lab.simulation.collision_monitor import (
    INVALID_SOURCE,
    Velocity,
    in_frame,
    limited,
    zones_of,
)
from roi_codec_ros.lab.simulation.driving import Encounters, Robot
from roi_codec_ros.lab.simulation.filmed_hall import FLOOR, Stage

AHEAD = Velocity(0.6, 0.0, 0.3)
ZONES = {
    "polygons": ["Stop", "Slow", "Limit", "Approach"],
    "Stop": {"type": "circle", "radius": 0.5, "action_type": "stop", "min_points": 2},
    "Slow": {
        "type": "polygon",
        "points": "[[1.0, 0.5], [1.0, -0.5], [-1.0, -0.5], [-1.0, 0.5]]",
        "action_type": "slowdown",
        "slowdown_ratio": 0.5,
        "max_points": 1,  # Humble: acts on more
    },
    "Limit": {
        "type": "circle",
        "radius": 2.0,
        "action_type": "limit",
        "linear_limit": 0.4,
        "angular_limit": 0.1,
        "min_points": 2,
    },
    "Approach": {
        "type": "circle",
        "radius": 0.3,
        "action_type": "approach",
        "time_before_collision": 2.0,
        "simulation_time_step": 0.1,
        "min_points": 2,
    },
}


def decided(points, *names, wanted=AHEAD):
    zones = zones_of({**ZONES, "polygons": names or ZONES["polygons"]})
    return limited(wanted, zones, {"persons": np.array(points, np.float64).reshape(-1, 2)})


def pair(x, y):
    return [[x, y], [x, y + 0.01]]


def test_nobody_near_lets_the_robot_go():
    assert decided([]).velocity == AHEAD
    assert decided(pair(5.0, 0.0)).action == ""


def test_a_stop_ends_the_search_and_one_point_is_too_few():
    assert decided(pair(0.4, 0.0)).velocity == Velocity()
    assert decided(pair(0.4, 0.0)).zone == "Stop"
    assert decided([[0.4, 0.0]], "Stop").action == ""


def test_a_slowdown_is_a_share_inside_of_a_polygon():
    assert decided(pair(0.9, 0.4), "Slow").velocity == AHEAD * 0.5
    assert decided(pair(0.9, 0.6), "Slow").action == ""


def test_a_limit_keeps_the_curve_by_its_tightest_share():
    velocity = decided(pair(1.5, 0.0), "Limit").velocity

    assert velocity.turn == pytest.approx(0.1)
    assert velocity.x == pytest.approx(0.2)


def test_an_approach_slows_as_the_collision_comes_nearer():
    straight = Velocity(0.5)

    far = decided(pair(1.1, 0.0), "Approach", wanted=straight).velocity.x
    near = decided(pair(0.6, 0.0), "Approach", wanted=straight).velocity.x

    assert 0 < near < far < 0.5
    assert far == pytest.approx(0.5 * 1.6 / 2.0)  # 0.8 m at 0.5 m/s, begun to be counted at 0
    assert decided(pair(1.1, 1.0), "Approach", wanted=straight).action == ""


def test_the_slowest_of_several_zones_holds():
    assert decided(pair(0.9, 0.0), "Slow", "Limit").zone == "Limit"
    assert decided(pair(0.9, 0.0), "Slow", "Limit", wanted=Velocity(0.6)).zone == "Slow"


def test_a_silent_source_stops():
    decision = limited(AHEAD, zones_of(ZONES), {"persons": None, "scan": np.zeros((0, 2))})

    assert (decision.velocity, decision.zone) == (Velocity(), INVALID_SOURCE)


@pytest.mark.parametrize(
    ("change", "found"), [({"action_type": "halt"}, "halt"), ({"type": "sphere"}, "sphere")]
)
def test_a_zone_that_nav2_does_not_know_is_refused(change, found):
    with pytest.raises(UsageError, match=found):
        zones_of({"polygons": ["Stop"], "Stop": {**ZONES["Stop"], **change}})


def test_points_of_the_map_are_seen_from_the_robot():
    seen = in_frame([[1.0, 3.0]], 1.0, 2.0, math.pi / 2)

    assert seen[0] == pytest.approx([1.0, 0.0])


def test_a_robot_that_nobody_limits_drives_its_rounds_inside_of_the_hall():
    robot = Robot.at_start(FLOOR)
    for _ in range(2000):
        robot.drive(robot.wanted(), 0.05)
        assert abs(robot.x) < FLOOR.width_m / 2 - 0.5
        assert 0.5 < robot.y < FLOOR.depth_m - 0.5

    assert robot.driven_m > 0.4 * 100


def test_only_a_robot_that_moves_has_near_misses():
    robot, encounters = Robot.at_start(FLOOR), Encounters()
    beside = np.array([[robot.x + 0.5, robot.y]])
    encounters.look(robot, np.array([1]), beside)
    assert encounters.near_misses == 0

    robot.velocity = Velocity(0.5)
    for _ in range(5):
        encounters.look(robot, np.array([1]), beside)
    assert (encounters.near_misses, encounters.nearest_m) == (1, 0.5)


@dataclass
class Step:
    seconds: float
    speed: float
    action: str


def test_the_report_says_when_it_stood_and_went_on():
    covers = covers_of(["all@2-4"], ["camera1"], 6.0)
    steps = [
        Step(0.1 * n, 0.0 if 30 <= n < 45 else 0.5, "stop" if 28 <= n < 44 else "")
        for n in range(61)
    ]
    free = unhindered(Stage(["camera1"], persons=1), 0.0, 6.0)

    result = drive_result(steps, Encounters(), 1.0, free, covers)

    (cover,) = result["covers"]
    assert cover["stands_after_s"] == pytest.approx(1.0)
    assert not cover["stood_already"]
    assert cover["goes_on_after_s"] == pytest.approx(0.5)
    assert result["stops"] == 1
    assert result["stopped_s"] == pytest.approx(1.6)
    assert result["time_lost_s"] == pytest.approx(6.0 * (1 - 1.0 / free[0].driven_m))

    quick, slow = (
        table_lines({**result, "cloud_age_s": age_s, "pace": 1.0}) for age_s in (0.2, 2.5)
    )
    assert "this machine" not in "".join(quick)
    assert "2.50 s: too old to drive by, this machine is slow; try --pace 0.2" in "".join(slow)


@pytest.mark.parametrize("text", ["camera9@1-2", "camera1@4-2", "camera1", "all@0-99"])
def test_a_cover_that_can_not_be_is_refused(text):
    with pytest.raises(UsageError, match="--cover: expected CAMERA@FROM-TO"):
        covers_of([text], ["camera1"], 60.0)


@pytest.mark.graph
def test_the_robot_stands_while_all_lenses_are_covered(tmp_path, monkeypatch):
    pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
    pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")
    from roi_codec_ros import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    words = "simulate --drive --cameras 1 --rate 1 --minutes 0.06 --cover all@1-3.2"

    for pace in ("0.15", "0.05"):  # a robot stands all the time where clouds come too late for it
        drive = [*words.split(), "--pace", pace, "--json", "drive.json"]
        assert cli.main(drive) == 0
        result = json.loads((tmp_path / "drive.json").read_text())
        if result["driven_m"] > 0.0:
            break

    (cover,) = result["covers"]
    assert cover["stands_after_s"] is not None
    assert result["unhindered"]["driven_m"] > result["driven_m"] > 0.0
