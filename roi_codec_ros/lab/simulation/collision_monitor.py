# SPDX-License-Identifier: Apache-2.0
"""A collision monitor by the rules of Nav2's, read from the same parameters, without ROS.

    wanted velocity, points of each source ─► zones, one after another ─► the slowest velocity

A source that is silent or too old stops the robot (Jazzy and later). A zone acts when at least
`min_points` points lie in it: `stop`; `slowdown` by a ratio; `limit` to a speed; `approach` such
that a collision would always be `time_before_collision` away. A stop ends the search.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roi_codec_ros.common.errors import UsageError

ACTIONS = ("stop", "slowdown", "limit", "approach")
INVALID_SOURCE = "invalid source"


@dataclass(frozen=True)
class Velocity:
    """m/s ahead and to the left, and rad/s to the left."""

    x: float = 0.0
    y: float = 0.0
    turn: float = 0.0

    def __mul__(self, share: float) -> Velocity:
        return Velocity(self.x * share, self.y * share, self.turn * share)

    def slower_than(self, other: Velocity) -> bool:
        """By the sum of squares, as Nav2 compares them."""
        return self._square < other._square

    @property
    def _square(self) -> float:
        return self.x**2 + self.y**2 + self.turn**2


@dataclass(frozen=True)
class Decision:
    """What becomes of a velocity. zone: whose action it is, INVALID_SOURCE, or empty."""

    velocity: Velocity
    action: str = ""
    zone: str = ""


@dataclass(frozen=True, eq=False)
class Zone:
    """One of `polygons`. corners: [N, 2] in the robot's frame; none for a circle."""

    name: str
    action: str
    radius_m: float = 0.0
    corners: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    min_points: int = 4
    slowdown_ratio: float = 0.5
    linear_limit: float = 0.5
    angular_limit: float = 0.5
    time_before_collision_s: float = 2.0
    step_s: float = 0.1

    def acts_on(self, points: NDArray[np.float64]) -> bool:
        """points: [N, 2] in the robot's frame."""
        return int(self._inside(points).sum()) >= self.min_points

    def _inside(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        if not len(self.corners):
            return np.asarray((points**2).sum(axis=1) < self.radius_m**2)
        x, y = points[:, :1], points[:, 1:]
        x0, y0 = self.corners.T
        x1, y1 = np.roll(self.corners, -1, axis=0).T
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return np.asarray(crossed.sum(axis=1) % 2 == 1)

    def of(self, wanted: Velocity, points: NDArray[np.float64]) -> Velocity | None:
        """What this zone lets through of a velocity; None where it does not act."""
        if self.action == "approach":
            ahead_s = self._collision_s(wanted, points)
            return None if ahead_s is None else wanted * (ahead_s / self.time_before_collision_s)
        if not self.acts_on(points):
            return None
        if self.action == "stop":
            return Velocity()
        if self.action == "slowdown":
            return wanted * self.slowdown_ratio
        shares = [1.0]
        if speed := math.hypot(wanted.x, wanted.y):
            shares.append(self.linear_limit / speed)
        if wanted.turn:
            shares.append(self.angular_limit / abs(wanted.turn))
        return wanted * min(shares)

    def _collision_s(self, velocity: Velocity, points: NDArray[np.float64]) -> float | None:
        """Time until points enter the zone at this velocity; None if they do not."""
        if self.acts_on(points):
            return 0.0
        x = y = yaw = 0.0
        for step in range(int(self.time_before_collision_s / self.step_s + 1e-9) + 1):
            x += (velocity.x * math.cos(yaw) - velocity.y * math.sin(yaw)) * self.step_s
            y += (velocity.x * math.sin(yaw) + velocity.y * math.cos(yaw)) * self.step_s
            yaw += velocity.turn * self.step_s
            if self.acts_on(in_frame(points, x, y, yaw)):
                return step * self.step_s
        return None


def in_frame(points: ArrayLike, x: float, y: float, yaw: float) -> NDArray[np.float64]:
    """Points [N, 2] as they are seen from a place that looks along yaw."""
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    return (np.asarray(points, np.float64).reshape(-1, 2) - (x, y)) @ turn


def limited(
    wanted: Velocity, zones: Sequence[Zone], sources: Mapping[str, NDArray[np.float64] | None]
) -> Decision:
    """What becomes of a velocity.

    sources: points [N, 2] in the robot's frame, None of a source that is silent or too old.
    """
    if any(points is None for points in sources.values()):
        return Decision(Velocity(), "stop", INVALID_SOURCE)
    points = np.concatenate([np.zeros((0, 2)), *(p for p in sources.values() if p is not None)])
    decision = Decision(wanted)
    for zone in zones:
        safe = zone.of(wanted, points)
        if safe is None or not (zone.action == "stop" or safe.slower_than(decision.velocity)):
            continue
        decision = Decision(safe, zone.action, zone.name)
        if zone.action == "stop":
            break
    return decision


def zones_of(parameters: Mapping[str, Any]) -> list[Zone]:
    """The zones of a collision monitor's `ros__parameters`. Raises UsageError."""
    return [_zone(name, parameters.get(name, {})) for name in parameters.get("polygons", [])]


def _zone(name: str, given: Mapping[str, Any]) -> Zone:
    action, kind = given.get("action_type"), given.get("type")
    if action not in ACTIONS:
        raise UsageError(f"{name}: expected action_type of {', '.join(ACTIONS)}, found {action!r}")
    if kind not in ("circle", "polygon"):
        raise UsageError(f"{name}: expected type circle or polygon, found {kind!r}")
    corners = given.get("points", [])
    if isinstance(corners, str):  # from Jazzy on
        corners = ast.literal_eval(corners)
    return Zone(
        name,
        action,
        radius_m=float(given.get("radius", 0.0)) if kind == "circle" else 0.0,
        corners=np.array(corners if kind == "polygon" else [], np.float64).reshape(-1, 2),
        min_points=int(given.get("min_points", given.get("max_points", 3) + 1)),
        slowdown_ratio=float(given.get("slowdown_ratio", 0.5)),
        linear_limit=float(given.get("linear_limit", 0.5)),
        angular_limit=float(given.get("angular_limit", 0.5)),
        time_before_collision_s=float(given.get("time_before_collision", 2.0)),
        step_s=float(given.get("simulation_time_step", 0.1)),
    )
