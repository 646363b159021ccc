# SPDX-License-Identifier: Apache-2.0
"""Which part of the floor a camera sees, and which persons occlude each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError

Cells: TypeAlias = NDArray[np.int64]  # [K, 2], columns and rows of a grid over the map

MAX_GRID_CELLS = 1 << 22  # one camera's widest view in its finest cells, and 4 MiB in a message
BODY_M = 0.3  # half the width of an occluding person, with a margin
BEHIND_M = 0.3  # a person at most this far behind another is still visible


class Coverage(Protocol):
    """Coverage of a camera, as used by the tracker. xy: float64 [N, 2], metres in the map."""

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool [N]: True where the camera would see an unoccluded person."""

    def hidden(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool [N]: True for persons probably occluded by others of these N."""


@dataclass(frozen=True)
class ViewWedge:
    """A camera's view from above: a wedge of the floor.

    x_m, y_m: the camera in the map. heading_rad: its axis, counter-clockwise from the map's x.
    hfov_rad: the whole angle of the wedge, below π. range_m: detection range.
    """

    x_m: float
    y_m: float
    heading_rad: float
    hfov_rad: float
    range_m: float

    def __post_init__(self) -> None:
        if not (0 < self.hfov_rad < math.pi and self.range_m > 0):
            raise RoiCodecError(
                "expected a field of view of 0 to 180 degrees and a positive range, found "
                f"{math.degrees(self.hfov_rad):g} degrees and {self.range_m:g} m"
            )

    def polar(self, xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Range in metres and bearing from the camera's axis in (-π, π], each float64 [N]."""
        x, y = xy[:, 0] - self.x_m, xy[:, 1] - self.y_m
        bearing = np.arctan2(y, x) - self.heading_rad
        return np.hypot(x, y), np.arctan2(np.sin(bearing), np.cos(bearing))

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """True where a point of float64 [N, 2] lies in the wedge; never for a NaN."""
        distance, bearing = self.polar(xy)
        return (distance <= self.range_m) & (np.abs(bearing) <= self.hfov_rad / 2)

    def hidden(
        self, xy: NDArray[np.float64], body_m: float = BODY_M, behind_m: float = BEHIND_M
    ) -> NDArray[np.bool_]:
        """True for those whose centre is behind a nearer person of half width body_m."""
        distance, bearing = self.polar(xy)
        turn = np.abs(bearing[:, None] - bearing[None, :])
        in_line = turn < np.arctan2(body_m, distance)[None, :]
        nearer = distance[None, :] < distance[:, None] - behind_m
        return np.asarray((in_line & nearer).any(axis=1))


def fitting(areas: Mapping[str, Cells], max_cells: int = MAX_GRID_CELLS) -> tuple[str, ...]:
    """Names of the areas that fit into one rectangle of at most this many cells.

    Those farthest from the common centre are dropped, so that a mistyped coordinate cannot create
    a huge grid.
    """
    corners = {
        name: np.array([cells.min(axis=0), cells.max(axis=0)])
        for name, cells in areas.items()
        if len(cells)
    }
    if not corners:
        return tuple(areas)
    middles = {name: box.mean(axis=0) for name, box in corners.items()}
    centre = np.median(list(middles.values()), axis=0)
    nearest = sorted(corners, key=lambda name: float(np.abs(middles[name] - centre).max()))
    kept: set[str] = set()
    low, high = corners[nearest[0]]
    for name in nearest:
        wider_low = np.minimum(low, corners[name][0])
        wider_high = np.maximum(high, corners[name][1])
        if math.prod((wider_high - wider_low + 1).tolist()) <= max_cells:
            low, high = wider_low, wider_high
            kept.add(name)
    return tuple(name for name in areas if name in kept or name not in corners)
