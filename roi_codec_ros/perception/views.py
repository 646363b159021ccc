# SPDX-License-Identifier: Apache-2.0
"""What a camera with a known lens and pose sees of the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.coverage import ViewWedge
from roi_codec_ros.perception.ground import BORDER_SHARE, HORIZON_MARGIN_RAD, CameraPose

CELL_M = 0.25


@dataclass(frozen=True, eq=False)
class GroundView:
    """The part of the ground (z = 0) on which a camera sees where feet stand; a `Coverage`."""

    camera: CameraModel
    pose: CameraPose
    max_range_m: float
    cell_m: float = CELL_M

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool [N]: feet at float64 [N, 2] lie in the image, in range and below the horizon.

        People whose feet the lower border cuts are found by their heads, with less certainty:
        that strip does not count.
        """
        feet = np.column_stack([xy, np.zeros(len(xy))])
        u, v = self.camera.project(self.pose.to_camera(feet)).T
        x, y, z = self.pose.translation
        distance = np.hypot(xy[:, 0] - x, xy[:, 1] - y)
        lowest = self.camera.height * (1.0 - BORDER_SHARE)
        with np.errstate(invalid="ignore"):
            inside = (u >= 0) & (u < self.camera.width) & (v >= 0) & (v < lowest)
            below = np.arctan2(z, distance) >= HORIZON_MARGIN_RAD
        return np.asarray(inside & below & (distance <= self.max_range_m))

    def hidden(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool [N]: persons whom others of these N probably hide."""
        return self._wedge.hidden(xy)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """int64 [K, 2]: the cells whose middle is covered; cell (i, j) begins at (i, j)·cell_m."""
        middle = np.floor(self.pose.translation[:2] / self.cell_m).astype(np.int64)
        reach = math.ceil(self.max_range_m / self.cell_m)
        around = np.arange(-reach, reach + 1)
        across, along = np.meshgrid(middle[0] + around, middle[1] + around)
        cells = np.column_stack([across.ravel(), along.ravel()])
        return cells[self.covers((cells + 0.5) * self.cell_m)]

    def same_as(self, camera: CameraModel, pose: CameraPose, max_range_m: float) -> bool:
        """Whether a view of these would be this one, so that its cells need not be found again."""
        return (
            self.camera == camera
            and self.max_range_m == max_range_m
            and np.array_equal(self.pose.rotation, pose.rotation)
            and np.array_equal(self.pose.translation, pose.translation)
        )

    @cached_property
    def _wedge(self) -> ViewWedge:
        x, y, _ = self.pose.translation
        ahead = self.pose.rotation[:, 2]
        heading = math.atan2(ahead[1], ahead[0])
        return ViewWedge(float(x), float(y), heading, math.pi / 2, self.max_range_m)
