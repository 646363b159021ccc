# SPDX-License-Identifier: Apache-2.0
"""A run with cameras of known pose: the map over its time, and the truth where it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.demo.map_book import MapMoment, WatchedFloor, map_at
from roi_codec_ros.lab.demo.map_picture import Area
from roi_codec_ros.lab.demo.panels import PersonMark
from roi_codec_ros.lab.simulation.walking import Floor
from roi_codec_ros.perception.coverage import ViewWedge
from roi_codec_ros.perception.ground import ground_positions
from roi_codec_ros.perception.views import GroundView

SAME_PERSON_M = 1.0  # a box whose foot is this near to a track may be that person
SAME_TIME_NS = 1_500_000_000
MARGIN_M = 1.0

# A time, ns → ids [N] and places [N, 2], m.
Truth = Callable[[int], tuple[NDArray[np.int64], NDArray[np.float64]]]


@dataclass(frozen=True, eq=False)
class Twin:
    """A run in the map.

    views: of each camera, its lens for the camera's own images. moments, watched: by time. truth:
    everybody, where that is known. floor: of the hall, where there is one. figures: names and
    values of the scores, as they stand under the title of the contact sheet.
    """

    views: Mapping[str, GroundView]
    moments: list[MapMoment]
    watched: list[WatchedFloor]
    truth: Truth | None = None
    floor: Floor | None = None
    figures: Sequence[tuple[str, str]] = field(default=())

    def wedges(self) -> dict[str, ViewWedge]:
        """The cameras as the map draws them."""
        return {name: wedge_of(view) for name, view in self.views.items()}

    def area(self) -> Area:
        """What of the map is worth to be seen: the hall, else cameras and people with a margin."""
        if self.floor is not None:
            return Area.of_floor(self.floor)
        cameras = [view.pose.translation[:2] for view in self.views.values()]
        people = [person.position for moment in self.moments for person in moment.persons]
        places = np.array([*cameras, *_without_outliers(people)], np.float64).reshape(-1, 2)
        low, high = places.min(axis=0) - MARGIN_M, places.max(axis=0) + MARGIN_M
        return Area(float(low[0]), float(low[1]), float(high[0]), float(high[1]))

    def named(
        self, camera: str, persons: Sequence[PersonMark], stamp_ns: int
    ) -> tuple[PersonMark, ...]:
        """The persons of a camera's frame under the numbers of their tracks; 0 without one."""
        moment = self._around(stamp_ns)
        if moment is None or not persons or not moment.persons:
            return tuple(replace(person, track_id=0) for person in persons)
        view = self.views[camera]
        boxes = np.array([person.box for person in persons], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        feet = ground_positions(boxes, view.camera, view.pose, max_range_m=view.max_range_m).xy
        tracks = np.array([person.position for person in moment.persons], np.float64)
        numbers = np.zeros(len(persons), np.int64)
        for row, column in _pairs(np.linalg.norm(feet[:, None] - tracks[None], axis=2)):
            numbers[row] = moment.persons[column].track_id
        return tuple(
            replace(person, track_id=int(number))
            for person, number in zip(persons, numbers, strict=True)
        )

    def _around(self, stamp_ns: int) -> MapMoment | None:
        """Everyone at a stamp: the next moment moved back, or the last one moved on."""
        later = next((m for m in self.moments if m.stamp_ns >= stamp_ns), None)
        moment = later or map_at(self.moments, stamp_ns)
        if moment is None or abs(moment.stamp_ns - stamp_ns) > SAME_TIME_NS:
            return None
        return moment.moved_to(stamp_ns)


def _pairs(distance: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Rows and columns of float [N, M] that belong together, all nearer than SAME_PERSON_M."""
    from scipy.optimize import linear_sum_assignment

    near = distance <= SAME_PERSON_M  # never for a NaN
    rows, columns = linear_sum_assignment(np.where(near, distance, 1e3))
    return [(row, column) for row, column in zip(rows, columns, strict=True) if near[row, column]]


def _without_outliers(
    places: Sequence[tuple[float, float] | None],
) -> NDArray[np.float64]:
    known = np.array([place for place in places if place is not None], np.float64).reshape(-1, 2)
    if not len(known):
        return known
    low, high = np.percentile(known, [1, 99], axis=0)
    return np.clip(known, low, high)


def wedge_of(view: GroundView) -> ViewWedge:
    """A camera's view from above, as if it looked straight ahead."""
    ahead = view.pose.rotation[:, 2]
    half_width = view.camera.width / 2 / view.camera.fx
    x, y, _ = view.pose.translation
    return ViewWedge(
        float(x),
        float(y),
        float(np.arctan2(ahead[1], ahead[0])),
        2.0 * float(np.arctan(half_width)),
        view.max_range_m,
    )
