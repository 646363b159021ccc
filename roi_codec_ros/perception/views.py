# SPDX-License-Identifier: Apache-2.0
"""The ground that a camera with known lens and pose sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.coverage import ViewWedge
from roi_codec_ros.perception.ground import (
    BORDER_SHARE,
    HORIZON_MARGIN_RAD,
    CameraPose,
    ground_positions,
)

CELL_M = 0.25
CELLS_AT_ONCE = 1 << 16  # evaluated per step, to bound the memory for a wide and fine grid
PROBES = (24, 18)  # sample points of the image, across and down


@dataclass(frozen=True, eq=False)
class GroundView:
    """The part of the ground (z = 0) on which a camera sees where feet stand; a `Coverage`."""

    camera: CameraModel
    pose: CameraPose
    max_range_m: float
    cell_m: float = CELL_M

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool [N]: feet at float64 [N, 2] lie in the image, in range and below the horizon.

        People whose feet are below the image are located by their heads, with less certainty: that
        strip is not included.
        """
        u, v = self.pixels(xy)
        x, y, z = self.pose.translation
        distance = np.hypot(xy[:, 0] - x, xy[:, 1] - y)
        lowest = self.camera.height * (1.0 - BORDER_SHARE)
        with np.errstate(invalid="ignore"):
            inside = (u >= 0) & (u < self.camera.width) & (v >= 0) & (v < lowest)
            below = np.arctan2(z, distance) >= HORIZON_MARGIN_RAD
        return np.asarray(inside & below & (distance <= self.max_range_m))

    def hidden(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """bool [N]: persons probably occluded by others of these N."""
        return self._wedge.hidden(xy)

    def pixels(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """[2, N]: u and v of feet at [N, 2]; NaN for what is behind the camera."""
        feet = np.column_stack([xy, np.zeros(len(xy))])
        return np.asarray(self.camera.project(self.pose.to_camera(feet)).T)

    @cached_property
    def cell_pixels(self) -> NDArray[np.float64]:
        """[2, K]: image positions of the centres of `cells`."""
        return self.pixels((self.cells + 0.5) * self.cell_m)

    def shown(self, unknown: NDArray[np.bool_] | None) -> ShownView | GroundView:
        """The part of the view shown by an image with unknown parts.

        unknown: bool [rows, columns], a grid over the image; None: all of it is known.
        """
        return self if unknown is None else ShownView(self, unknown)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """int64 [K, 2]: the cells whose centre is covered; cell (i, j) begins at (i, j)·cell_m."""
        middle = np.floor(self.pose.translation[:2] / self.cell_m).astype(np.int64)
        reach = math.ceil(self.max_range_m / self.cell_m)
        around = np.arange(-reach, reach + 1)
        rows = max(1, CELLS_AT_ONCE // len(around))
        covered = []
        for first in range(0, len(around), rows):
            across, along = np.meshgrid(middle[0] + around, middle[1] + around[first:][:rows])
            cells = np.column_stack([across.ravel(), along.ravel()])
            covered.append(cells[self.covers((cells + 0.5) * self.cell_m)])
        return np.concatenate(covered)

    @cached_property
    def blindness(self) -> str:
        """Why the camera sees no floor in range; empty if it sees some.

        The most frequent `Reason` over the image.
        """
        across, down = (
            (np.arange(count) + 0.5) / count * size
            for count, size in zip(PROBES, (self.camera.width, self.camera.height), strict=True)
        )
        u, v = (axis.ravel() for axis in np.meshgrid(across, down))
        feet = np.column_stack([u - 1.0, v - 1.0, u + 1.0, v])
        places = ground_positions(feet, self.camera, self.pose, max_range_m=self.max_range_m)
        if places.valid.any():
            return ""
        reasons, counts = np.unique(places.reason, return_counts=True)
        return str(reasons[counts.argmax()])

    def same_as(self, camera: CameraModel, pose: CameraPose, max_range_m: float) -> bool:
        """Whether a view with these arguments would be equal, so that its cells can be reused."""
        return (
            self.camera == camera and self.max_range_m == max_range_m and self.pose.same_as(pose)
        )

    @cached_property
    def _wedge(self) -> ViewWedge:
        x, y, _ = self.pose.translation
        ahead = self.pose.rotation[:, 2]
        heading = math.atan2(ahead[1], ahead[0])
        return ViewWedge(float(x), float(y), heading, math.pi / 2, self.max_range_m)


@dataclass(frozen=True, eq=False)
class ShownView:
    """The ground shown by an image with unknown parts; a `Coverage`."""

    view: GroundView
    unknown: NDArray[np.bool_]

    def covers(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """As `GroundView.covers`, and the feet are in a known part of the image."""
        return self.view.covers(xy) & self._known(self.view.pixels(xy))

    def hidden(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """As `GroundView.hidden`."""
        return self.view.hidden(xy)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """The cells of `GroundView.cells` that are shown."""
        return self.view.cells[self._known(self.view.cell_pixels)]

    @cached_property
    def _around(self) -> NDArray[np.bool_]:
        """Unknown cells and their neighbours: the grid may extend beyond the image."""
        return cv2.dilate(self.unknown.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0

    def _known(self, pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
        rows, columns = self.unknown.shape
        u, v = np.nan_to_num(pixels, nan=-1.0)
        column = np.clip(u * columns / self.view.camera.width, 0, columns - 1).astype(np.int64)
        row = np.clip(v * rows / self.view.camera.height, 0, rows - 1).astype(np.int64)
        return np.asarray(~self._around[row, column], np.bool_)
