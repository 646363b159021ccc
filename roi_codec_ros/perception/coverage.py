# SPDX-License-Identifier: Apache-2.0
"""Which part of the floor a camera looks at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.errors import RoiCodecError

# float64 [N, 2], metres in the map → bool [N], True where the camera would see a person.
Coverage = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class ViewWedge:
    """A camera's view from above: a wedge of the floor. Calling it makes it a `Coverage`.

    x_m, y_m: the camera in the map. heading_rad: its axis, counter-clockwise from the map's x.
    hfov_rad: the whole angle of the wedge, below π. range_m: how far it tells persons.
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

    def __call__(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """True where a point of float64 [N, 2] lies in the wedge; never for a NaN."""
        distance, bearing = self.polar(xy)
        return (distance <= self.range_m) & (np.abs(bearing) <= self.hfov_rad / 2)
