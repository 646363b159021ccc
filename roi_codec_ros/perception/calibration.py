# SPDX-License-Identifier: Apache-2.0
"""A camera's pose from image points whose map positions are known."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose

MIN_POINTS = 4
LINE_SHARE = 0.01  # points that spread less than this across, per spread along, are on one line
LM_STEPS = 100


def solve_pose(
    image_points: ArrayLike, map_points: ArrayLike, camera: CameraModel, *, ground_z_m: float = 0.0
) -> tuple[CameraPose, float]:
    """The camera pose with the smallest reprojection error.

    image_points: [N, 2] pixels of the image that the camera describes. map_points: [N, 3] metres,
    in the same order; N ≥ 4, not all on one line. Returns the pose and the residual: the root mean
    square of the points' distances in pixels.

    Raises RoiCodecError for too few points, points on one line, pixels outside the lens model, and
    if no camera above the ground fits the points.
    """
    pixels = np.asarray(image_points, np.float64).reshape(-1, 2)
    places = np.asarray(map_points, np.float64).reshape(-1, 3)
    rays = _checked_rays(pixels, places, camera)
    # Solved relative to the points' centre: map coordinates may be large.
    middle = places.mean(axis=0)
    best: tuple[float, CameraPose] | None = None
    below_z: list[float] = []
    for start in _starts(places - middle, rays[:, :2] / rays[:, 2:]):
        motion, residual_px = _refine(start, pixels, places - middle, camera)
        if not np.isfinite(residual_px):
            continue
        rotation = _rotation(motion).T
        pose = CameraPose(rotation, middle - rotation @ motion[3:])
        if pose.translation[2] <= ground_z_m:
            below_z.append(float(pose.translation[2]))
        elif best is None or residual_px < best[0]:
            best = residual_px, pose
    if best is None and below_z:
        raise RoiCodecError(
            f"expected a camera above the ground, found it at z = {max(below_z):.2f} m; does "
            "each pixel belong to its place, is the map's y to the left of its x, and do the "
            "points spread over the image?"
        )
    if best is None:
        raise RoiCodecError("expected pixels of one camera, found no pose that sees all points")
    return best[1], best[0]


def point_errors(
    image_points: ArrayLike, map_points: ArrayLike, camera: CameraModel, pose: CameraPose
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reprojection errors: float64 [N] in pixels, and [N] in metres.

    The metres are those between a point and where the ray of its pixel meets the level plane at
    the point's height; NaN where it never does.
    """
    pixels = np.asarray(image_points, np.float64).reshape(-1, 2)
    places = np.asarray(map_points, np.float64).reshape(-1, 3)
    error_px = np.linalg.norm(camera.project(pose.to_camera(places)) - pixels, axis=1)
    rays = camera.undistort(pixels) @ pose.rotation.T
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = (places[:, 2] - pose.translation[2]) / rays[:, 2]
        met = pose.translation[:2] + reach[:, None] * rays[:, :2]
    error_m = np.linalg.norm(met - places[:, :2], axis=1)
    error_m[~(reach > 0) | ~np.isfinite(reach)] = np.nan
    return error_px, error_m


def _checked_rays(
    pixels: NDArray[np.float64], places: NDArray[np.float64], camera: CameraModel
) -> NDArray[np.float64]:
    """Rays of the points, checked to determine a pose. Raises RoiCodecError."""
    if len(pixels) != len(places):
        raise RoiCodecError(
            f"expected a place for each pixel, found {len(pixels)} pixels, {len(places)} places"
        )
    if not (np.isfinite(pixels).all() and np.isfinite(places).all()):
        raise RoiCodecError("expected finite pixels and places, found others")
    rays = camera.undistort(pixels)
    outside = np.flatnonzero(np.isnan(rays).any(axis=1))
    if len(outside):
        u, v = pixels[outside[0]]
        raise RoiCodecError(
            f"expected pixels that the lens model describes, found {u:g}, {v:g} (point "
            f"{outside[0] + 1})"
        )
    for name, points in (("places", places), ("pixels", pixels)):
        distinct = np.unique(points, axis=0)
        if len(distinct) < MIN_POINTS:
            raise RoiCodecError(
                f"expected at least {MIN_POINTS} points with different {name}, "
                f"found {len(distinct)}"
            )
        along, across, *_ = np.linalg.svd(distinct - distinct.mean(axis=0), compute_uv=False)
        if across < LINE_SHARE * along:
            raise RoiCodecError(
                f"expected points that spread over an area, found {name} on one line"
            )
    return rays


def _starts(
    places: NDArray[np.float64], tangents: NDArray[np.float64]
) -> Iterator[NDArray[np.float64]]:
    """Initial poses: rotation vector and translation, [6], of the map in the camera."""
    try:
        _, turns, shifts, _ = cv2.solvePnPGeneric(
            places[:, None],
            tangents[:, None],
            np.eye(3),
            np.zeros(4),
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:  # failed checks of OpenCV: no initial pose
        return
    for turn, shift in zip(turns, shifts, strict=True):
        yield np.concatenate([turn.ravel(), shift.ravel()])


def _refine(
    motion: NDArray[np.float64],
    pixels: NDArray[np.float64],
    places: NDArray[np.float64],
    camera: CameraModel,
) -> tuple[NDArray[np.float64], float]:
    """Levenberg-Marquardt over pixels, for any lens: the motion, and the RMS distance in pixels.

    The distance is not finite where the camera cannot see all points from the start.
    """

    def misses(candidate: NDArray[np.float64]) -> NDArray[np.float64]:
        seen = camera.project(places @ _rotation(candidate).T + candidate[3:])
        return (seen - pixels).ravel()

    miss, damping = misses(motion), 1e-3
    steps = 1e-6 * np.eye(6)
    for _ in range(LM_STEPS):
        slope = np.stack([misses(motion + s) - misses(motion - s) for s in steps], axis=1) / 2e-6
        normal = slope.T @ slope
        if not np.isfinite(normal).all():
            break
        damped = normal + damping * np.diag(np.diag(normal)) + 1e-12 * np.eye(6)
        change = np.linalg.solve(damped, -slope.T @ miss)
        after = misses(motion + change)
        if after @ after < miss @ miss:
            motion, miss, damping = motion + change, after, damping / 10
            if np.abs(change).max() < 1e-10:
                break
        elif damping > 1e9:
            break
        else:
            damping *= 10
    return motion, float(np.sqrt(miss @ miss / len(pixels)))


def _rotation(motion: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.Rodrigues(motion[:3])[0], np.float64)
