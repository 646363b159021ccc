# SPDX-License-Identifier: Apache-2.0
"""Results of a drive through the hall: near misses, stops, time lost, and covered lenses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.simulation.driving import MOVING_M_S, Encounters, Robot
from roi_codec_ros.lab.simulation.filmed_hall import Stage

STEP_S = 0.05
OLD_CLOUD_S = 0.5  # seconds of the hall; a collision monitor takes none of twice that


@dataclass(frozen=True)
class Cover:
    """Lenses that are covered for a while. Seconds of the hall from the drive's beginning."""

    cameras: tuple[str, ...]
    from_s: float
    to_s: float


class Step(Protocol):
    """A step of the drive, as of `robot_node.Moment`."""

    seconds: float
    speed: float
    action: str


def covers_of(texts: Sequence[str], cameras: Sequence[str], seconds: float) -> list[Cover]:
    """From "camera1@20-28" or "all@40-48"; none given: one camera, then all of them.

    Raises UsageError.
    """
    if not texts:
        third = seconds / 3.0
        return [
            Cover((cameras[0],), third, third * 1.4),
            Cover(tuple(cameras), 2 * third, third * 2.4),
        ]
    covers = []
    for text in texts:
        name, _, span = text.partition("@")
        try:
            from_s, to_s = map(float, span.split("-"))
        except ValueError:
            from_s = to_s = 0.0
        if not (0 <= from_s < to_s <= seconds and (name in cameras or name == "all")):
            raise UsageError(
                f"--cover: expected CAMERA@FROM-TO with {', '.join(cameras)} or all, and seconds "
                f"up to {seconds:g}, found {text!r}"
            )
        covers.append(Cover(tuple(cameras) if name == "all" else (name,), from_s, to_s))
    return covers


def unhindered(stage: Stage, from_s: float, seconds: float) -> tuple[Robot, Encounters]:
    """The same robot in the same hall without a collision monitor."""
    robot, encounters = Robot.at_start(stage.floor), Encounters()
    for step in range(round(seconds / STEP_S)):
        robot.drive(robot.wanted(), STEP_S)
        encounters.look(robot, *stage.at(from_s + step * STEP_S))
    return robot, encounters


def drive_result(
    moments: Sequence[Step],
    encounters: Encounters,
    driven_m: float,
    free: tuple[Robot, Encounters],
    covers: Sequence[Cover],
) -> dict[str, Any]:
    """The figures of a drive, in seconds of the hall and metres."""
    began_s = moments[0].seconds
    seconds = moments[-1].seconds - began_s
    spans = list(np.diff([m.seconds for m in moments], append=moments[-1].seconds))
    robot, without = free
    return {
        "seconds": seconds,
        "driven_m": driven_m,
        "time_lost_s": seconds * max(0.0, 1.0 - driven_m / robot.driven_m),
        "near_misses": encounters.near_misses,
        "nearest_m": encounters.nearest_m,
        "stops": sum(
            1
            for action, _ in itertools.groupby(moment.action for moment in moments)
            if action == "stop"
        ),
        "stopped_s": sum(s for m, s in zip(moments, spans, strict=True) if m.action == "stop"),
        "slowed_s": sum(s for m, s in zip(moments, spans, strict=True) if m.action == "slowdown"),
        "unhindered": {
            "driven_m": robot.driven_m,
            "near_misses": without.near_misses,
            "nearest_m": without.nearest_m,
        },
        "covers": [_after(cover, moments, began_s) for cover in covers],
    }


def _after(cover: Cover, moments: Sequence[Step], began_s: float) -> dict[str, Any]:
    """Reaction of the robot to a covered lens.

    stands_after_s, goes_on_after_s: None if it does not. stood_already: it had stopped for a
    person when the lens was covered.
    """
    since = [m for m in moments if m.seconds - began_s >= cover.from_s]
    dark = [m for m in since if m.seconds - began_s <= cover.to_s]
    light = [m for m in since if m.seconds - began_s > cover.to_s]
    stopped = next((m for m in dark if m.action == "stop" and m.speed <= MOVING_M_S), None)
    stood = dark[-1].speed <= MOVING_M_S if dark else False
    moving = next((m for m in light if m.speed > MOVING_M_S), None)
    return {
        "cameras": list(cover.cameras),
        "from_s": cover.from_s,
        "to_s": cover.to_s,
        "stood_already": bool(dark) and dark[0].speed <= MOVING_M_S,
        "stands_after_s": stopped.seconds - began_s - cover.from_s if stopped and stood else None,
        "goes_on_after_s": moving.seconds - began_s - cover.to_s if moving and stood else None,
    }


def _slow_machine(result: dict[str, Any]) -> str:
    """What to do where the robot stands because this machine cannot keep up with the hall."""
    age_s, pace = result["cloud_age_s"], result["pace"]
    if not age_s > OLD_CLOUD_S:
        return ""
    better = pace * OLD_CLOUD_S / age_s
    return f": too old to drive by, this machine is slow; try --pace {better:.1g}"


def table_lines(result: dict[str, Any]) -> list[str]:
    """The figures as people read them."""
    free = result["unhindered"]
    rows = [
        ("driven", f"{result['driven_m']:.1f} m of {free['driven_m']:.1f} m unhindered"),
        ("time lost", f"{result['time_lost_s']:.1f} s of {result['seconds']:.1f} s"),
        ("near misses", f"{result['near_misses']}, unhindered {free['near_misses']}"),
        ("nearest, moving", f"{result['nearest_m']:.2f} m, unhindered {free['nearest_m']:.2f} m"),
        ("stops", f"{result['stops']}, for {result['stopped_s']:.1f} s together"),
        ("slowed down", f"{result['slowed_s']:.1f} s"),
        ("age of clouds", f"{result['cloud_age_s']:.2f} s{_slow_machine(result)}"),
    ]
    for cover in result["covers"]:
        after_s, on_s = cover["stands_after_s"], cover["goes_on_after_s"]
        said = "goes on" if after_s is None else f"stands after {after_s:.1f} s"
        if after_s is not None and cover["stood_already"]:
            said = "stands, as it did before"
        said += "" if on_s is None else f", goes on {on_s:.1f} s after it is uncovered"
        name = f"{' '.join(cover['cameras'])} covered"
        rows.append((name, f"{cover['from_s']:.0f} to {cover['to_s']:.0f} s: {said}"))
    return [f"{name:<26}{figure}" for name, figure in rows]
