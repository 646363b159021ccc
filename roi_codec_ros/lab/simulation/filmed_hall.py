# SPDX-License-Identifier: Apache-2.0
"""A hall in which the truth is known: people who walk, and calibrated cameras that film them.

Everything follows from the seed and the seconds since its beginning, so that two processes see the
same hall without a word between them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.simulation.cutouts import Cutout, wardrobe
from roi_codec_ros.lab.simulation.photograph_cameras import render_film
from roi_codec_ros.lab.simulation.rendering import Figure, draw_figures, draw_room
from roi_codec_ros.lab.simulation.walking import Floor, Walk, walk
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose
from roi_codec_ros.perception.views import GroundView

FLOOR = Floor(width_m=8.0, depth_m=6.0)
PERSONS = 4
FRAME_SIZE = (480, 640)
HFOV_DEG = 78.0
CAMERA_HEIGHT_M = 2.6
LOOK_AT_HEIGHT_M = 0.5  # cameras look at a point so high above the middle of the floor
MAX_RANGE_M = 10.0  # all of the hall
WALK_S = 300.0  # then everybody walks back the way they came, and so on
SHORTEST_M, TALLEST_M = 1.62, 1.86
_TURN_S = 0.2  # a person faces the position after this time
MAX_CAMERAS = 8
FILM_HZ = 10.0
NOISE = 2.0  # grey levels, the standard deviation of a pixel of a film


@dataclass(frozen=True)
class HallClock:
    """Which hall it is, and how its seconds follow from the system's time.

    epoch_ns: when it began. pace: seconds of the hall in one of the system's.
    """

    seed: int
    epoch_ns: int
    pace: float = 1.0

    def seconds(self, stamp_ns: int) -> float:
        """Seconds since the hall's beginning at a time of the system's clock, ns."""
        return (stamp_ns - self.epoch_ns) / 1e9 * self.pace


class Stage:
    """The hall, its cameras and everybody in it.

    names: of the cameras. Raises UsageError for more than MAX_CAMERAS.
    """

    def __init__(
        self, names: Sequence[str], *, seed: int = 0, persons: int = PERSONS, floor: Floor = FLOOR
    ) -> None:
        if len(names) > MAX_CAMERAS:
            raise UsageError(
                f"expected at most {MAX_CAMERAS} cameras in the hall, found {len(names)}"
            )
        self.floor, self.seed, self.persons = floor, seed, persons
        height, width = FRAME_SIZE
        self.lens = CameraModel.from_hfov(width, height, HFOV_DEG)
        places = dict(zip(names, _camera_places(floor), strict=False))
        self.pose_numbers = {name: _look_at_the_middle(floor, *at) for name, at in places.items()}
        self.poses = {
            name: CameraPose.from_xyz_rpy(*numbers) for name, numbers in self.pose_numbers.items()
        }
        self.views = {
            name: GroundView(self.lens, pose, MAX_RANGE_M) for name, pose in self.poses.items()
        }
        self._rooms: dict[str, NDArray[np.uint8]] = {}

    @cached_property
    def _walk(self) -> Walk:
        return walk(self.floor, self.persons, WALK_S, np.random.default_rng(self.seed))

    def at(self, seconds: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids [N] and places float64 [N, 2], m, of everybody in the hall."""
        return self._walk.at(_to_and_fro(seconds))

    def in_view(self, seconds: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Those of them whose feet some camera's image shows, also if another hides them."""
        ids, xy = self.at(seconds)
        seen = np.any([view.covers(xy) for view in self.views.values()], axis=0)
        return ids[seen], xy[seen]

    def film(self, camera: str, seconds: float) -> NDArray[np.uint8]:
        """What a camera sees, uint8 [*FRAME_SIZE, 3] RGB."""
        pose = self.poses[camera]
        if camera not in self._rooms:
            self._rooms[camera] = draw_room(self.lens, pose, self.floor)
        return draw_figures(self._rooms[camera], self._figures(seconds, pose), self.lens, pose)

    def _figures(self, seconds: float, pose: CameraPose) -> list[Figure]:
        ids, xy = self.at(seconds)
        later = dict(zip(*(part.tolist() for part in self.at(seconds + _TURN_S)), strict=True))
        to_the_right = pose.rotation[:2, 0]
        figures = []
        for person, place in zip(ids.tolist(), xy, strict=True):
            ahead = np.subtract(later.get(person, place), place)
            cutout = self._cutout(person, walks_right=bool(ahead @ to_the_right >= 0))
            figures.append(Figure(cutout, (float(place[0]), float(place[1])), _height_m(person)))
        return figures

    def _cutout(self, person: int, *, walks_right: bool) -> Cutout:
        people = wardrobe()
        cutout = people[(person - 1) % len(people)]
        return cutout if walks_right else cutout.mirrored()  # the photograph's walk to the right


def write_film(path: Path, seed: int, seconds: float) -> None:
    """What one camera sees of a hall, as an AVI file of JPEGs with a sensor's noise.

    Raises UsageError for a file of another suffix, RoiCodecError where it cannot be written.
    """
    if path.suffix.lower() != ".avi":
        raise UsageError(f"expected a film's name to end with .avi, found {path.name!r}")
    stage, noise = Stage(["camera"], seed=seed), np.random.default_rng(seed)

    def frames() -> Iterator[NDArray[np.uint8]]:
        for number in range(max(1, round(seconds * FILM_HZ))):
            seen = stage.film("camera", number / FILM_HZ)[..., ::-1]
            yield (
                np.rint(seen + noise.normal(0.0, NOISE, seen.shape)).clip(0, 255).astype(np.uint8)
            )

    render_film(path, frames(), frame_size=FRAME_SIZE, frames_per_second=FILM_HZ)


def _height_m(person: int) -> float:
    """Height of a person; the golden ratio spreads those of consecutive ones."""
    return SHORTEST_M + (TALLEST_M - SHORTEST_M) * (person * 0.618 % 1.0)


def _to_and_fro(seconds: float) -> float:
    turn = max(seconds, 0.0) % (2 * WALK_S)
    return turn if turn <= WALK_S else 2 * WALK_S - turn


def _camera_places(floor: Floor) -> list[tuple[float, float]]:
    """Corners first, opposite ones after each other, then between corners and doors."""
    half, depth = floor.width_m / 2, floor.depth_m
    corners = [(-half, 0.0), (half, depth), (half, 0.0), (-half, depth)]
    between = [(-half / 2, 0.0), (half / 2, depth), (half / 2, 0.0), (-half / 2, depth)]
    return corners + between


def _look_at_the_middle(
    floor: Floor, x_m: float, y_m: float
) -> tuple[float, float, float, float, float, float]:
    """x, y, z, roll, pitch, yaw of a camera that hangs on the wall."""
    ahead_x, ahead_y = -x_m, floor.depth_m / 2 - y_m
    away = math.hypot(ahead_x, ahead_y)
    pitch = math.atan2(CAMERA_HEIGHT_M - LOOK_AT_HEIGHT_M, away)
    yaw = math.atan2(ahead_y, ahead_x)
    return x_m, y_m, CAMERA_HEIGHT_M, 0.0, round(pitch, 4), round(yaw, 4)
