# SPDX-License-Identifier: Apache-2.0
"""What the tracker published, by time: where people were, and which floor was watched."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import dropwhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.demo.moments import KEPT_SECONDS
from roi_codec_ros.lab.demo.panels import PersonMark

WATCHED = 0  # in a nav_msgs/OccupancyGrid of coverage


@dataclass(frozen=True)
class MapMoment:
    """Everyone in the map under one stamp; their positions and velocities are x, y of the map."""

    stamp_ns: int
    persons: tuple[PersonMark, ...]

    def moved_to(self, stamp_ns: int) -> MapMoment:
        """The same persons, moved on at their velocities."""
        seconds = (stamp_ns - self.stamp_ns) / 1e9
        return MapMoment(stamp_ns, tuple(_gone_on(person, seconds) for person in self.persons))


def _gone_on(person: PersonMark, seconds: float) -> PersonMark:
    assert person.position is not None
    (x, y), (x_m_s, y_m_s) = person.position, person.velocity
    return replace(person, position=(x + seconds * x_m_s, y + seconds * y_m_s))


@dataclass(frozen=True, eq=False)
class WatchedFloor:
    """Which cells cameras watched from a time on. cells: bool [rows along y, columns along x].

    x_m, y_m: where the first cell begins.
    """

    stamp_ns: int
    x_m: float
    y_m: float
    cell_m: float
    cells: NDArray[np.bool_]


class MapBook:
    """The last `kept_s` seconds of the map. Not for several threads at a time."""

    def __init__(self, kept_s: float = KEPT_SECONDS) -> None:
        self._kept_ns = round(kept_s * 1e9)
        self._moments: deque[MapMoment] = deque()
        self._watched: list[WatchedFloor] = []

    def add_tracks(self, message: Any) -> None:
        """Tracks of all cameras (fields of PersonArray)."""
        stamp_ns = stamp_of(message)
        persons = tuple(_mark(person) for person in message.persons)
        self._moments.append(MapMoment(stamp_ns, persons))
        while self._moments[0].stamp_ns < stamp_ns - self._kept_ns:
            self._moments.popleft()

    def add_coverage(self, message: Any) -> None:
        """Coverage (fields of OccupancyGrid); repetitions are skipped."""
        info = message.info
        cells = np.asarray(message.data, np.int8).reshape(info.height, info.width) == WATCHED
        origin = info.origin.position
        floor = WatchedFloor(stamp_of(message), origin.x, origin.y, info.resolution, cells)
        if not self._watched or not np.array_equal(self._watched[-1].cells, cells):
            self._watched.append(floor)

    def clear(self) -> None:
        """Forget everything but which floor is watched now."""
        self._moments.clear()
        del self._watched[:-1]

    def moments(self) -> list[MapMoment]:
        """All of them by time."""
        return sorted(self._moments, key=lambda moment: moment.stamp_ns)

    def watched(self) -> list[WatchedFloor]:
        """Every change of the watched floor, by time."""
        return list(self._watched)


def stamp_of(message: Any) -> int:
    """A message's stamp in ns."""
    stamp = message.header.stamp
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


def _mark(person: Any) -> PersonMark:
    xx, xy, yx, yy = (float(value) for value in person.position_covariance)
    return PersonMark(
        box=(0.0, 0.0, 0.0, 0.0),
        track_id=person.track_id,
        position=(person.position.x, person.position.y),
        velocity=(person.velocity.x, person.velocity.y),
        covariance=(xx, xy, yx, yy),
    )


def map_at(moments: list[MapMoment], stamp_ns: int) -> MapMoment | None:
    """The map's newest moment that is not later than the stamp; `moments` in order of time."""
    later = dropwhile(lambda moment: moment.stamp_ns > stamp_ns, reversed(moments))
    return next(later, None)


def watched_at(watched: list[WatchedFloor], stamp_ns: int) -> WatchedFloor | None:
    """What was watched at a time; before the first message, what that one says."""
    earlier = [floor for floor in watched if floor.stamp_ns <= stamp_ns]
    return earlier[-1] if earlier else next(iter(watched), None)
