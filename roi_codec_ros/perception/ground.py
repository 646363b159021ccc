# SPDX-License-Identifier: Apache-2.0
"""Persons' positions in the map: from the pixels of their boxes to the ground plane.

    foot of the box ─► undistorted ray ─► map frame ─► meets the ground ─► x, y and covariance

Axes, metres and radians: the map frame has z up and a level ground. A camera's body frame has x
forward, y left, z up; its optical frame has x right, y down, z forward (REP 103).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.geometry import (
    HEIGHT_SPREAD,
    PERSON_HEIGHT_M,
    position_from_height,
)

MAX_RANGE_M = 30.0
HORIZON_MARGIN_RAD = math.radians(2.0)
BORDER_SHARE = 0.005  # of the image: a box this close to a border counts as clipped there
BEYOND_SHARE = 0.75  # of the range: minimum distance by height of a person out of range
CREDIBLE_HEIGHTS = (0.15, 4.0)  # box height relative to that of a standing person at the position
BODY_WIDTH_M = 0.4  # minimum for a person seen from above
MAX_TRANSLATION_M = 1e8  # farther away from a map's origin than anything on Earth
SCALE_STEP_M = 0.01  # for the scale of the image at a place
SLOPE_STEP_PX = 0.5  # for the slope of a ray over its pixel
BODY_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True, eq=False)
class CameraPose:
    """A camera's pose in the map: point in map = rotation · point in optical frame + translation.

    rotation: float64 [3, 3]. translation: float64 [3], metres.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    def __post_init__(self) -> None:
        rotation = np.asarray(self.rotation, np.float64)
        translation = np.asarray(self.translation, np.float64)
        if rotation.shape != (3, 3) or translation.shape != (3,):
            raise RoiCodecError(
                "expected a rotation of shape [3, 3] and a translation of [3], "
                f"found {list(rotation.shape)} and {list(translation.shape)}"
            )
        if not (np.abs(translation) <= MAX_TRANSLATION_M).all():
            raise RoiCodecError(
                f"expected a finite translation, at most {MAX_TRANSLATION_M:g} m, "
                f"found {translation.tolist()}"
            )
        orthonormal = np.allclose(rotation @ rotation.T, np.eye(3), rtol=0, atol=1e-6)
        if not orthonormal or np.linalg.det(rotation) < 0:
            raise RoiCodecError(f"expected a rotation matrix, found {rotation.tolist()}")
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @classmethod
    def from_xyz_rpy(
        cls, x: float, y: float, z: float, roll: float, pitch: float, yaw: float
    ) -> CameraPose:
        """From the pose of the camera's *body* in the map, metres and radians.

        Angles about the fixed axes x, y, z in this order, as in URDF: yaw turns left, a positive
        pitch looks down.
        """
        (sr, sp, sy), (cr, cp, cy) = np.sin([roll, pitch, yaw]), np.cos([roll, pitch, yaw])
        map_from_body = np.array(
            [
                [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                [-sp, cp * sr, cp * cr],
            ]
        )
        return cls(map_from_body @ BODY_FROM_OPTICAL, np.array([x, y, z], np.float64))

    @classmethod
    def from_transform(cls, translation: ArrayLike, quaternion_xyzw: ArrayLike) -> CameraPose:
        """From TF's transform of the *optical* frame in the map. Raises RoiCodecError."""
        quaternion = np.asarray(quaternion_xyzw, np.float64)
        norm = float(np.linalg.norm(quaternion))
        if quaternion.shape != (4,) or not abs(norm - 1.0) < 0.01:
            raise RoiCodecError(f"expected a unit quaternion, found {quaternion.tolist()}")
        *vector, w = quaternion / norm
        x, y, z = vector
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        rotation = np.eye(3) + 2.0 * w * cross + 2.0 * cross @ cross
        return cls(rotation, np.asarray(translation, np.float64))

    def to_xyz_rpy(self) -> tuple[float, float, float, float, float, float]:
        """The body's x, y, z, roll, pitch, yaw; no roll where it looks straight up or down."""
        r = self.rotation @ BODY_FROM_OPTICAL.T
        level = math.hypot(r[0, 0], r[1, 0])
        pitch = math.atan2(-r[2, 0], level)
        if level < 1e-9:
            roll, yaw = 0.0, math.atan2(-r[0, 1], r[1, 1])
        else:
            roll, yaw = math.atan2(r[2, 1], r[2, 2]), math.atan2(r[1, 0], r[0, 0])
        x, y, z = self.translation.tolist()
        return x, y, z, roll, pitch, yaw

    def same_as(self, other: CameraPose) -> bool:
        """Whether all numbers are equal."""
        return np.array_equal(self.rotation, other.rotation) and np.array_equal(
            self.translation, other.translation
        )

    def to_camera(self, points_map: ArrayLike) -> NDArray[np.float64]:
        """Map coordinates, float64 [N, 3], of points [N, 3] in the optical frame."""
        places = np.asarray(points_map, np.float64).reshape(-1, 3)
        return (places - self.translation) @ self.rotation


class Reason(str, Enum):
    """Why a box has a position on the ground, or none."""

    OK = "ok"
    EMPTY_BOX = "empty_box"  # no height, or not finite
    CAMERA_BELOW_GROUND = "camera_below_ground"
    CUT_AT_BOTTOM = "cut_at_bottom"  # and at the top: neither foot nor head is seen
    HEAD_AT_CAMERA_HEIGHT = "head_at_camera_height"  # clipped, and the head gives no range
    OUTSIDE_LENS_MODEL = "outside_lens_model"
    ABOVE_HORIZON = "above_horizon"  # the ray never meets the ground plane (or a head plane below)
    BELOW_HORIZON = "below_horizon"  # the ray never meets the head plane above the camera
    NEAR_HORIZON = "near_horizon"
    OUT_OF_RANGE = "out_of_range"


# Reasons that mean too far away, if camera and pose are right.
FAR = (Reason.OUT_OF_RANGE.value, Reason.NEAR_HORIZON.value, Reason.ABOVE_HORIZON.value)


@dataclass(frozen=True)
class GroundNoise:
    """Standard deviations behind a covariance.

    Those of the camera are systematic: they do not average out over frames.
    """

    edge_px: float = 1.0  # of a box's edge, at least
    edge_share: float = 0.03  # of a box's edge, per box height: added in quadrature
    camera_height_m: float = 0.02
    tilt_rad: float = math.radians(0.5)  # about each of the map's x and y axes
    person_height_share: float = HEIGHT_SPREAD  # per person height; where the head is used


@dataclass(frozen=True, eq=False)
class GroundPositions:
    """Positions of N persons in the map; NaN where the reason is not "ok".

    xy: float64 [N, 2] metres.
    covariance: float64 [N, 2, 2] m², over (x, y).
    reason: str [N], values of `Reason`.
    method: str [N], "foot" or "head": the end of the box that was used.
    """

    xy: NDArray[np.float64]
    covariance: NDArray[np.float64]
    reason: NDArray[np.str_]
    method: NDArray[np.str_]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """bool [N]."""
        return self.reason == Reason.OK.value


def ground_positions(
    boxes_xyxy: ArrayLike,
    camera: CameraModel,
    pose: CameraPose,
    *,
    ground_z_m: float = 0.0,
    person_height_m: float = PERSON_HEIGHT_M,
    noise: GroundNoise | None = None,
    max_range_m: float = MAX_RANGE_M,
    horizon_margin_rad: float = HORIZON_MARGIN_RAD,
) -> GroundPositions:
    """Intersect the rays through the boxes' feet with the ground.

    boxes_xyxy: [N, 4] in pixels of the image that the camera describes. The foot is the middle of
    the lower edge. For a box clipped by the lower border, the head (the middle of the upper edge)
        is intersected with the plane at person height instead. Positions that cannot be determined
        are refused with a
    `Reason`: a ray less than `horizon_margin_rad` off the horizon, a position farther than
        `max_range_m` from the camera along the ground, …

    The covariance is that of `noise` to first order; for a box clipped by the left or right
    border, half of its width is added to its edges' deviation.
    """
    noise = noise or GroundNoise()
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    left, top, right, bottom = boxes.T
    width_px, height_px = right - left, bottom - top
    empty = ~(np.isfinite(boxes).all(axis=1) & (width_px >= 0) & (height_px > 0))
    border_x, border_y = BORDER_SHARE * camera.width, BORDER_SHARE * camera.height
    cut_bottom, cut_top = bottom >= camera.height - border_y, top <= border_y
    cut_side = (left <= border_x) | (right >= camera.width - border_x)
    by_head = cut_bottom & ~cut_top
    person_sd = np.where(by_head, noise.person_height_share * person_height_m, 0.0)

    pixels = np.stack([(left + right) / 2.0, np.where(by_head, top, bottom)], axis=1)
    optical, optical_slopes = _rays_with_slopes(pixels, camera)
    rays, slopes = optical @ pose.rotation.T, pose.rotation @ optical_slopes
    # Metres from the camera up to the head or ground plane, and the sine of the angle between the
    # ray and that plane.
    camera_z = pose.translation[2]
    rise = ground_z_m + np.where(by_head, person_height_m, 0.0) - camera_z
    towards = rays[:, 2] * np.where(rise > 0, 1.0, -1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        lean = rays[:, :2] / rays[:, 2:]
        offset = rise[:, None] * lean
        reach = rise / rays[:, 2]
        out_of_range = ~(np.hypot(offset[:, 0], offset[:, 1]) <= max_range_m)

    refusals = {
        Reason.EMPTY_BOX: empty,
        Reason.CAMERA_BELOW_GROUND: np.full(len(boxes), camera_z <= ground_z_m),
        Reason.CUT_AT_BOTTOM: cut_bottom & cut_top,
        Reason.HEAD_AT_CAMERA_HEIGHT: by_head & (np.abs(rise) <= 2.0 * person_sd),
        Reason.OUTSIDE_LENS_MODEL: ~np.isfinite(optical_slopes).all(axis=(1, 2)),
        Reason.BELOW_HORIZON: (rise > 0) & (towards <= 0),
        Reason.ABOVE_HORIZON: towards <= 0,
        Reason.NEAR_HORIZON: towards < math.sin(horizon_margin_rad),
        Reason.OUT_OF_RANGE: out_of_range,
    }
    reason = np.select(
        list(refusals.values()), [key.value for key in refusals], default=Reason.OK.value
    )
    refused = reason != Reason.OK.value

    edge_px = np.hypot(noise.edge_px, noise.edge_share * height_px)
    across_px = np.hypot(edge_px, np.where(cut_side, width_px / 2.0, 0.0))
    height_sd = np.hypot(noise.camera_height_m, person_sd)
    with np.errstate(invalid="ignore", over="ignore"):
        spread = _spread(
            rays, slopes, lean, reach, np.stack([across_px, edge_px], 1), height_sd, noise.tilt_rad
        )
        covariance = spread @ spread.transpose(0, 2, 1)
    xy = pose.translation[:2] + offset
    xy[refused] = np.nan
    covariance[refused] = np.nan
    return GroundPositions(xy, covariance, reason, np.where(by_head, "head", "foot"))


def height_shares(
    places: GroundPositions,
    boxes_xyxy: ArrayLike,
    camera: CameraModel,
    pose: CameraPose,
    *,
    person_height_m: float = PERSON_HEIGHT_M,
) -> NDArray[np.float64]:
    """Box heights relative to those of standing persons at the same positions.

    float64 [N]; NaN for boxes without a position or clipped at head or feet. Values are near 1 if
        camera and pose are right. If most are outside CREDIBLE_HEIGHTS, a unit of length or a
        focal length is wrong.
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    border = BORDER_SHARE * camera.height
    whole = places.valid & (boxes[:, 1] > border) & (boxes[:, 3] < camera.height - border)
    shares = np.full(len(boxes), np.nan)
    if not whole.any():
        return shares
    feet = np.column_stack([places.xy[whole], np.zeros(whole.sum())])
    optical = pose.to_camera(feet)
    foot = camera.project(optical)
    # Uses the scale at the feet: the head may be outside the image or the lens model.
    up = camera.project(pose.to_camera(feet + np.array([0.0, 0.0, SCALE_STEP_M])))
    across = camera.project(optical + np.array([SCALE_STEP_M, 0.0, 0.0]))
    expected = np.fmax(
        person_height_m * np.linalg.norm(up - foot, axis=1),
        BODY_WIDTH_M * np.linalg.norm(across - foot, axis=1),
    )
    shares[whole] = SCALE_STEP_M * (boxes[whole, 3] - boxes[whole, 1]) / expected
    return shares


def beyond_range(
    places: GroundPositions,
    boxes_xyxy: ArrayLike,
    camera: CameraModel,
    *,
    person_height_m: float = PERSON_HEIGHT_M,
    max_range_m: float = MAX_RANGE_M,
) -> NDArray[np.bool_]:
    """bool [N]: persons without a position who are credibly out of range.

    Feet and height must agree: if the height puts a person nearer than BEYOND_SHARE of the range,
    pose or lens must be wrong.
    """
    far = np.isin(places.reason, FAR)
    if not far.any():
        return far
    seem = position_from_height(boxes_xyxy, camera, person_height_m)
    away_m = np.where(seem.valid, np.linalg.norm(seem.feet, axis=1), 0.0)
    return np.asarray(far & (away_m >= BEYOND_SHARE * max_range_m))


def _rays_with_slopes(
    pixels: NDArray[np.float64], camera: CameraModel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rays [N, 3] in the optical frame and their derivatives [N, 3, 2] by the pixel."""
    steps = SLOPE_STEP_PX * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    around = camera.undistort(pixels + steps[:, None]).reshape(5, -1, 3)
    slopes = np.stack([around[1] - around[2], around[3] - around[4]], axis=2)
    return around[0], slopes / (2.0 * SLOPE_STEP_PX)


def _spread(
    rays: NDArray[np.float64],
    slopes: NDArray[np.float64],
    lean: NDArray[np.float64],
    reach: NDArray[np.float64],
    pixel_sd: NDArray[np.float64],
    height_sd: NDArray[np.float64],
    tilt_sd: float,
) -> NDArray[np.float64]:
    """Derivatives of x and y by each source of error, times its deviation: [N, 2, 5].

    The ray d meets the plane at c + reach · d; turning it by δ moves that by
    reach · (δx - δz · dx/dz, δy - δz · dy/dz), raising the camera over the plane by -lean.
    """
    by_ray = np.zeros((len(rays), 2, 3))
    by_ray[:, 0, 0] = by_ray[:, 1, 1] = reach
    by_ray[:, :, 2] = -reach[:, None] * lean
    x, y, z = rays.T
    zero = np.zeros_like(x)
    # A small turn about the axis e moves the ray by e × d.
    turns = np.stack([np.stack([zero, -z, y], 1), np.stack([z, zero, -x], 1)], axis=2)
    return np.concatenate(
        [
            by_ray @ slopes * pixel_sd[:, None, :],
            by_ray @ turns * tilt_sd,
            (-lean * height_sd[:, None])[:, :, None],
        ],
        axis=2,
    )
