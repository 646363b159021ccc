# SPDX-License-Identifier: Apache-2.0
"""A person's position from the height of the box.

Axes of a camera's optical frame: x right, y down, z forward, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roi_codec_ros.perception.cameras import CameraModel

PERSON_HEIGHT_M = 1.7
HEIGHT_SPREAD = 0.1  # relative standard deviation of people's heights, children left out
CUT_OFF_SPREAD = 0.5  # the same for a box that may be clipped by the image border
BOX_EDGE_SPREAD_PX = 4.0  # standard deviation of a detector's box height and centre
BORDER_PX = 1.0  # px; a box that ends this close to the upper or lower border counts as clipped


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions of N persons in a camera's optical frame.

    feet: float64 [N, 3] metres, the middle of the box's lower edge.
    covariance: float64 [N, 2, 2] m², over (x, z): the ground plane of a level camera.
    range_m: float64 [N], distance along the optical axis.
    valid: bool [N], False for a box without height or outside the lens model; the other fields are
        0 there.
    """

    feet: NDArray[np.float64]
    covariance: NDArray[np.float64]
    range_m: NDArray[np.float64]
    valid: NDArray[np.bool_]


def position_from_height(
    boxes_xyxy: ArrayLike, camera: CameraModel, person_height_m: float = PERSON_HEIGHT_M
) -> Positions:
    """Estimate positions from box heights: without distortion, range = f_y · person height / box
    height.

    boxes_xyxy: [N, 4] in pixels of the image that the camera describes. A box clipped by the upper
        or lower border makes the person appear too far away; its covariance is larger.
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    height_px = boxes[:, 3] - boxes[:, 1]
    middle = (boxes[:, 0] + boxes[:, 2]) / 2.0
    foot, head = (camera.undistort(np.stack([middle, boxes[:, row]], axis=1)) for row in (3, 1))
    foot, head = foot / foot[:, 2:], head / head[:, 2:]  # at z = 1
    per_depth = foot[:, 1] - head[:, 1]
    valid = np.isfinite(per_depth) & (height_px > 0) & (per_depth > 0)
    foot, height_px = np.where(valid[:, None], foot, 0.0), np.where(valid, height_px, 1.0)

    depth = np.where(valid, person_height_m / np.where(valid, per_depth, 1.0), 0.0)
    feet = foot * depth[:, None]

    cut = (boxes[:, 1] <= BORDER_PX) | (boxes[:, 3] >= camera.height - BORDER_PX)
    height_spread = np.where(cut, CUT_OFF_SPREAD, HEIGHT_SPREAD)
    depth_sd = depth * np.hypot(height_spread, BOX_EDGE_SPREAD_PX / height_px)
    across_sd = depth * BOX_EDGE_SPREAD_PX / camera.fx
    along = foot[:, [0, 2]]  # d(x, z) / d(depth)
    covariance = depth_sd[:, None, None] ** 2 * along[:, :, None] * along[:, None, :]
    covariance[:, 0, 0] += across_sd**2
    covariance[~valid] = 0.0
    return Positions(feet, covariance, depth, valid)
