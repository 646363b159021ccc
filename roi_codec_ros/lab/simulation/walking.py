# SPDX-License-Identifier: Apache-2.0
"""Simulated people who walk through a hall: between waypoints, in by a door and out by another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP_S = 0.05
SLOWEST, FASTEST = 0.3, 1.6  # m/s
_STRONGEST = 2.5  # m/s², the most that people speed up, brake or swerve
_ADAPT_S = 0.5  # time constant in which a walker takes up a new velocity
_AHEAD_S = 0.6  # how far walkers look ahead
_SPACE_M = 1.2  # walkers who will be closer than this push each other away
_PUSH = 5.0  # m/s² at no distance
_WALL_M = 0.7  # waypoints keep this distance from the walls
_ARRIVED_M = 0.4


@dataclass(frozen=True)
class Floor:
    """The hall from above: x from -width_m / 2 to width_m / 2, y from 0 to depth_m."""

    width_m: float = 20.0
    depth_m: float = 14.0

    @property
    def doors(self) -> NDArray[np.float64]:
        """float64 [4, 2], the middle of each wall."""
        half, depth = self.width_m / 2, self.depth_m
        return np.array([[-half, depth / 2], [half, depth / 2], [0.0, 0.0], [0.0, depth]])

    def place(self, random: np.random.Generator) -> NDArray[np.float64]:
        """A point [2] inside, off the walls."""
        half = self.width_m / 2 - _WALL_M
        return random.uniform([-half, _WALL_M], [half, self.depth_m - _WALL_M])


@dataclass(frozen=True, eq=False)
class Walk:
    """Where everybody was: step t is at t · STEP_S seconds.

    xy: float64 [T, P, 2], m, NaN in an empty slot. ids: int64 [T, P], 0 in an empty slot; who
    leaves by a door does not come back, the next in the slot is a new person.
    """

    xy: NDArray[np.float64]
    ids: NDArray[np.int64]

    def at(self, seconds: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids [N] and places [N, 2] of those present, between two steps on a straight line."""
        position = min(max(seconds / STEP_S, 0.0), len(self.ids) - 1.0)
        before = min(int(position), len(self.ids) - 2)
        share = position - before
        here = (self.ids[before] > 0) & (self.ids[before] == self.ids[before + 1])
        xy = (1 - share) * self.xy[before, here] + share * self.xy[before + 1, here]
        return self.ids[before, here], xy


class _Walkers:
    """P slots, each with a person or, for some seconds, without."""

    def __init__(self, floor: Floor, persons: int, random: np.random.Generator) -> None:
        self.floor, self.random = floor, random
        self.xy = np.zeros((persons, 2))
        self.velocity = np.zeros((persons, 2))
        self.speed = np.zeros(persons)
        self.goal = np.zeros((persons, 2))
        self.ids = np.zeros(persons, np.int64)
        self.waypoints_left = np.zeros(persons, np.int64)
        self.away_s = np.zeros(persons)
        self.last_id = 0
        for slot in range(persons):
            self._enter(slot, floor.place(random))

    def _enter(self, slot: int, xy: NDArray[np.float64]) -> None:
        self.last_id += 1
        self.ids[slot] = self.last_id
        self.xy[slot] = xy
        self.speed[slot] = self.random.uniform(SLOWEST + 0.2, FASTEST - 0.1)
        self.waypoints_left[slot] = self.random.integers(2, 7)
        self.goal[slot] = self.floor.place(self.random)
        self.velocity[slot] = self._wanted()[slot]

    def _wanted(self) -> NDArray[np.float64]:
        way = self.goal - self.xy
        length = np.linalg.norm(way, axis=1, keepdims=True)
        return np.asarray(way / np.maximum(length, 1e-9) * self.speed[:, None])

    def _next_goal(self, slot: int) -> None:
        self.waypoints_left[slot] -= 1
        if self.waypoints_left[slot] > 0:
            self.goal[slot] = self.floor.place(self.random)
        elif self.waypoints_left[slot] == 0:
            self.goal[slot] = self.floor.doors[self.random.integers(4)]
        else:
            self.ids[slot] = 0
            self.away_s[slot] = self.random.uniform(1.0, 5.0)

    def _push(self) -> NDArray[np.float64]:
        """Accelerations [P, 2] away from those who will soon be near."""
        ahead = self.xy + _AHEAD_S * self.velocity
        between = ahead[:, None] - ahead[None]
        distance = np.linalg.norm(between, axis=2)
        there = self.ids > 0
        near = (distance < _SPACE_M) & there[:, None] & there[None]
        np.fill_diagonal(near, False)
        strength = np.where(near, _PUSH * (1 - distance / _SPACE_M), 0.0)
        away = between / np.maximum(distance, 1e-6)[..., None]
        # A little to the right as well: two who meet head-on would else stand face to face.
        aside = np.stack([away[..., 1], -away[..., 0]], axis=-1)
        return np.asarray((strength[..., None] * (away + 0.5 * aside)).sum(axis=1))

    def advance(self) -> None:
        acceleration = (self._wanted() - self.velocity) / _ADAPT_S + self._push()
        strength = np.linalg.norm(acceleration, axis=1, keepdims=True)
        acceleration *= np.minimum(1.0, _STRONGEST / np.maximum(strength, 1e-9))
        self.velocity += STEP_S * acceleration
        speed = np.linalg.norm(self.velocity, axis=1, keepdims=True)
        self.velocity *= np.clip(speed, SLOWEST, FASTEST) / np.maximum(speed, 1e-9)
        self.xy += STEP_S * self.velocity
        arrived = np.linalg.norm(self.goal - self.xy, axis=1) < _ARRIVED_M
        for slot in np.flatnonzero(arrived & (self.ids > 0)):
            self._next_goal(int(slot))
        self.away_s -= STEP_S
        for slot in np.flatnonzero((self.ids == 0) & (self.away_s <= 0)):
            self._enter(int(slot), self.floor.doors[self.random.integers(4)])


def walk(floor: Floor, persons: int, seconds: float, random: np.random.Generator) -> Walk:
    """Simulate people, `persons` at a time, who walk for this duration."""
    walkers = _Walkers(floor, persons, random)
    steps = round(seconds / STEP_S) + 1
    xy = np.full((steps, persons, 2), np.nan)
    ids = np.zeros((steps, persons), np.int64)
    for step in range(steps):
        here = walkers.ids > 0
        xy[step, here], ids[step] = walkers.xy[here], walkers.ids
        walkers.advance()
    return Walk(xy, ids)
