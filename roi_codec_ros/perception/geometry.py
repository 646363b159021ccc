# SPDX-License-Identifier: Apache-2.0
"""Where a person stands, from the height of its box in a pinhole camera.

Axes of a camera's optical frame: x right, y down, z forward, metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roi_codec_ros.codec.errors import RoiCodecError

PERSON_HEIGHT_M = 1.7
HEIGHT_SPREAD = 0.1  # relative standard deviation of people's heights, children left out
CUT_OFF_SPREAD = 0.5  # the same for a box that the image's border may have cut
BOX_EDGE_SPREAD_PX = 4.0  # standard deviation of a detector's box height and centre
BORDER_PX = 1.0  # a box that ends this close to the upper or lower border counts as cut


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera: focal lengths and principal point in pixels of a width × height image."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0 and self.width > 0 and self.height > 0):
            raise RoiCodecError(
                "expected positive focal lengths and image size, found "
                f"fx {self.fx:g}, fy {self.fy:g}, {self.width}×{self.height}"
            )

    @classmethod
    def from_hfov(cls, width: int, height: int, hfov_deg: float) -> Intrinsics:
        """Square pixels and a centred axis: fx = fy = width / (2 tan(hfov / 2))."""
        if not 0 < hfov_deg < 180:
            raise RoiCodecError(
                f"expected a field of view of 0 to 180 degrees, found {hfov_deg:g}"
            )
        focal = width / (2.0 * math.tan(math.radians(hfov_deg) / 2.0))
        return cls(focal, focal, width / 2.0, height / 2.0, width, height)

    def scale_to(self, width: int, height: int) -> Intrinsics:
        """The same camera seen at another image size; x and y scale apart."""
        x, y = width / self.width, height / self.height
        return Intrinsics(self.fx * x, self.fy * y, self.cx * x, self.cy * y, width, height)


@dataclass(frozen=True, eq=False)
class Positions:
    """Where N persons stand in a camera's optical frame.

    feet: float64 [N, 3] metres, the middle of the box's lower edge.
    covariance: float64 [N, 2, 2] m², over (x, z): the ground plane of a level camera.
    range_m: float64 [N], distance along the optical axis.
    valid: bool [N], False where a box has no height; the other fields are 0 there.
    """

    feet: NDArray[np.float64]
    covariance: NDArray[np.float64]
    range_m: NDArray[np.float64]
    valid: NDArray[np.bool_]


def position_from_height(
    boxes_xyxy: ArrayLike, intrinsics: Intrinsics, person_height_m: float = PERSON_HEIGHT_M
) -> Positions:
    """Estimate positions from box heights: range = f_y · person height / box height.

    boxes_xyxy: [N, 4] in pixels of the image that the intrinsics describe. A box that the upper or
    lower border cuts shows too little of the person, which then looks too far away: its covariance
    says so.
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    height_px = boxes[:, 3] - boxes[:, 1]
    valid = np.isfinite(boxes).all(axis=1) & (height_px > 0)
    boxes = np.where(valid[:, None], boxes, 0.0)
    height_px = np.where(valid, height_px, 1.0)

    depth = np.where(valid, intrinsics.fy * person_height_m / height_px, 0.0)
    x_per_z = ((boxes[:, 0] + boxes[:, 2]) / 2.0 - intrinsics.cx) / intrinsics.fx
    y_per_z = (boxes[:, 3] - intrinsics.cy) / intrinsics.fy
    feet = np.stack([x_per_z * depth, y_per_z * depth, depth], axis=1)

    cut = (boxes[:, 1] <= BORDER_PX) | (boxes[:, 3] >= intrinsics.height - BORDER_PX)
    height_spread = np.where(cut, CUT_OFF_SPREAD, HEIGHT_SPREAD)
    depth_sd = depth * np.hypot(height_spread, BOX_EDGE_SPREAD_PX / height_px)
    across_sd = depth * BOX_EDGE_SPREAD_PX / intrinsics.fx
    along = np.stack([x_per_z, np.ones_like(x_per_z)], axis=1)  # d(x, z) / d(depth)
    covariance = depth_sd[:, None, None] ** 2 * along[:, :, None] * along[:, None, :]
    covariance[:, 0, 0] += across_sd**2
    covariance[~valid] = 0.0
    return Positions(feet, covariance, depth, valid)
