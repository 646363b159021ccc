# SPDX-License-Identifier: Apache-2.0
"""A small robot that drives laps through the hall, with plain kinematics, and its near misses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.simulation.collision_monitor import Velocity
from roi_codec_ros.lab.simulation.walking import Floor

ROBOT_M = 0.25  # its radius
PERSON_M = 0.25
NEAR_MISS_M = ROBOT_M + PERSON_M + 0.2  # between both middles, while the robot moves
MOVING_M_S = 0.05
FASTEST_M_S, FASTEST_RAD_S = 0.6, 1.2
FASTER_M_S2, SLOWER_M_S2, TURN_RAD_S2 = 0.5, 1.5, 3.0
FROM_WALL_M = 1.3
REACHED_M = 0.3


def rounds(floor: Floor) -> NDArray[np.float64]:
    """Corners [4, 2] of the way around the hall."""
    half = floor.width_m / 2 - FROM_WALL_M
    low, high = FROM_WALL_M, floor.depth_m - FROM_WALL_M
    return np.array([[half, low], [half, high], [-half, high], [-half, low]])


@dataclass
class Robot:
    """Where it is, how fast, and what it drives to. Commands are followed as fast as it can."""

    way: NDArray[np.float64]
    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0
    velocity: Velocity = field(default_factory=Velocity)
    driven_m: float = 0.0
    goal: int = 0

    @classmethod
    def at_start(cls, floor: Floor) -> Robot:
        """At the last corner of its rounds, looking at the first."""
        way = rounds(floor)
        (x, y), ahead = way[-1], way[0] - way[-1]
        return cls(way, float(x), float(y), math.atan2(ahead[1], ahead[0]))

    def wanted(self) -> Velocity:
        """The velocity without people: to the next corner, turning first."""
        if math.dist((self.x, self.y), self.way[self.goal]) < REACHED_M:
            self.goal = (self.goal + 1) % len(self.way)
        ahead = self.way[self.goal] - (self.x, self.y)
        off = math.remainder(math.atan2(ahead[1], ahead[0]) - self.yaw, math.tau)
        turn = min(max(2.0 * off, -FASTEST_RAD_S), FASTEST_RAD_S)
        return Velocity(FASTEST_M_S * max(0.0, math.cos(off)) ** 3, 0.0, turn)

    def drive(self, command: Velocity, seconds: float) -> None:
        """Follow a command for a time step."""
        now = self.velocity
        slowest, fastest = now.x - SLOWER_M_S2 * seconds, now.x + FASTER_M_S2 * seconds
        speed = min(max(command.x, slowest), fastest)
        most = TURN_RAD_S2 * seconds
        turn = min(max(command.turn, now.turn - most), now.turn + most)
        self.velocity = Velocity(speed, 0.0, turn)
        self.x += speed * seconds * math.cos(self.yaw)
        self.y += speed * seconds * math.sin(self.yaw)
        self.yaw = math.remainder(self.yaw + turn * seconds, math.tau)
        self.driven_m += abs(speed) * seconds

    @property
    def moves(self) -> bool:
        """Whether it moves at all."""
        return abs(self.velocity.x) > MOVING_M_S


@dataclass
class Encounters:
    """Near misses: each lasts while a person is near the moving robot."""

    near_misses: int = 0
    nearest_m: float = math.inf
    _near: set[int] = field(default_factory=set)

    def look(self, robot: Robot, ids: NDArray[np.int64], xy: NDArray[np.float64]) -> None:
        """ids [N] and places [N, 2] of everybody, in the map."""
        away_m = np.hypot(*(xy - (robot.x, robot.y)).T)
        near = set(ids[away_m < NEAR_MISS_M].tolist())
        if robot.moves:
            self.near_misses += len(near - self._near)
            self._near = near
            self.nearest_m = min(self.nearest_m, float(away_m.min(initial=math.inf)))
        else:
            self._near &= near  # who comes to a robot that stands is no miss of its
