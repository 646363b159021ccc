# SPDX-License-Identifier: Apache-2.0
"""Pictures of a room and of people in it, as a calibrated camera would take them.

The room is drawn by rays: each pixel shows the floor, a wall or the ceiling where its ray ends.
People are cut-outs that stand upright on the floor and face the camera.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.simulation.cutouts import Cutout
from roi_codec_ros.lab.simulation.walking import Floor
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose

CEILING_M = 3.2
DOOR_WIDTH_M, DOOR_HEIGHT_M = 1.3, 2.2
NEAREST_M = 0.4  # a person who is nearer to the camera is not drawn
_FINE = 2  # supersampling of the drawn room, against jagged lines
_STEP_PX = 16
_SHADOW_M = 0.26
_SHADOW = 0.45  # how dark

_FLOOR_COLOUR = np.array([168, 162, 152], np.float32)
_CEILING_COLOUR = np.array([226, 226, 222], np.float32)
_WALL_COLOURS = np.array([[205, 200, 190], [186, 196, 200], [200, 192, 178], [190, 200, 190]])
_DOOR_COLOUR = np.array([112, 92, 74], np.float32)
_SKIRTING_COLOUR = np.array([120, 116, 110], np.float32)


@dataclass(frozen=True)
class Figure:
    """A person as they are drawn. xy: on the floor, m. height_m: from sole to hair."""

    cutout: Cutout
    xy: tuple[float, float]
    height_m: float


def draw_room(lens: CameraModel, pose: CameraPose, floor: Floor) -> NDArray[np.uint8]:
    """The empty room, uint8 [H, W, 3] RGB of the lens's size."""
    fine = lens.scale_to(lens.width * _FINE, lens.height * _FINE)
    rays = _rays(fine) @ pose.rotation.T
    hit, surface = _ends(rays, pose.translation, floor)
    away = np.linalg.norm(hit - pose.translation, axis=1)
    colour = _colours(hit, surface, floor)
    light = (1.06 - 0.035 * away).clip(0.6, 1.1)
    picture = (colour * light[:, None]).reshape(fine.height, fine.width, 3)
    small = cv2.resize(picture, (lens.width, lens.height), interpolation=cv2.INTER_AREA)
    grain = np.random.default_rng(0).normal(0.0, 2.0, small.shape)
    return np.asarray(np.clip(small + grain, 0, 255), np.uint8)


def _rays(lens: CameraModel) -> NDArray[np.float64]:
    """Rays through all pixels, float64 [H · W, 3] in the optical frame with z = 1.

    From those of every _STEP_PX-th pixel, linearly between them: exact where nothing is distorted.
    """
    across = np.arange(0, lens.width + _STEP_PX, _STEP_PX)
    down = np.arange(0, lens.height + _STEP_PX, _STEP_PX)
    coarse = lens.undistort(np.stack(np.meshgrid(across, down), axis=-1))
    flat = (coarse[:, :2] / coarse[:, 2:]).reshape(len(down), len(across), 2)
    columns, rows = np.meshgrid(np.arange(lens.width), np.arange(lens.height))
    at = [np.asarray((pixels + 0.5) / _STEP_PX, np.float32) for pixels in (columns, rows)]
    fine = cv2.remap(flat, *at, cv2.INTER_LINEAR)
    return np.column_stack([fine.reshape(-1, 2), np.ones(lens.width * lens.height)])


def _ends(
    rays: NDArray[np.float64], start: NDArray[np.float64], floor: Floor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Where rays end, [N, 3], and on what: 0 floor, 1 ceiling, 2 to 5 walls (west … north)."""
    half = floor.width_m / 2
    planes = ((2, 0.0), (2, CEILING_M), (0, -half), (0, half), (1, 0.0), (1, floor.depth_m))
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.stack([(level - start[axis]) / rays[:, axis] for axis, level in planes], axis=1)
    # The wall that the camera hangs on is behind it, though rounding may put it in front.
    reach[~(reach > 1e-6)] = np.inf
    surface = reach.argmin(axis=1)
    nearest = reach[np.arange(len(rays)), surface]
    nearest[~np.isfinite(nearest)] = 0.0  # no ray: the lens model does not reach there
    return start + nearest[:, None] * np.nan_to_num(rays), surface


def _colours(
    hit: NDArray[np.float64], surface: NDArray[np.int64], floor: Floor
) -> NDArray[np.float32]:
    """float32 [N, 3] RGB of places on the room's surfaces."""
    x, y, z = hit.T
    colour = np.empty((len(hit), 3), np.float32)
    colour[surface == 0] = _FLOOR_COLOUR
    colour[surface == 1] = _CEILING_COLOUR
    walls = surface >= 2
    colour[walls] = _WALL_COLOURS[surface[walls] - 2]

    # Tiles of a metre, every one of its own shade, with joints between them.
    tile = np.floor(np.column_stack([x, y])).astype(np.int64)
    shade = 1.0 + 0.05 * (np.sin(12.9898 * tile[:, 0] + 78.233 * tile[:, 1]) * 43.7 % 1.0 - 0.5)
    joint = np.minimum(np.abs(x - np.round(x)), np.abs(y - np.round(y))) < 0.012
    on_floor = surface == 0
    colour[on_floor] *= np.where(joint, 0.84, shade)[on_floor, None]

    colour[walls & (z < 0.1)] = _SKIRTING_COLOUR
    for door_x, door_y in floor.doors:
        near = (np.abs(x - door_x) < DOOR_WIDTH_M / 2) & (np.abs(y - door_y) < DOOR_WIDTH_M / 2)
        colour[walls & near & (z < DOOR_HEIGHT_M)] = _DOOR_COLOUR
    lamp = (np.abs(x % 2.0 - 1.0) < 0.15) & (np.abs(y % 2.0 - 1.0) < 0.6)
    colour[(surface == 1) & lamp] = 255.0
    return colour


def draw_figures(
    room: NDArray[np.uint8], figures: Iterable[Figure], lens: CameraModel, pose: CameraPose
) -> NDArray[np.uint8]:
    """A copy of the room's picture with people in it, those in front before those behind."""
    picture = room.copy()
    seen = [figure for figure in figures if _distance_m(figure, pose) > NEAREST_M]
    seen.sort(key=lambda figure: -_distance_m(figure, pose))
    for figure in seen:
        _draw_shadow(picture, figure, lens, pose)
    for figure in seen:
        _draw_figure(picture, figure, lens, pose)
    return picture


def _distance_m(figure: Figure, pose: CameraPose) -> float:
    """From the camera along its axis; below 0 behind it."""
    return float(pose.to_camera([[*figure.xy, figure.height_m / 2]])[0, 2])


def _corners(figure: Figure, lens: CameraModel, pose: CameraPose) -> NDArray[np.float64] | None:
    """Pixels [4, 2] of a figure's corners, clockwise from the upper left; None out of view."""
    foot = np.array([*figure.xy, 0.0])
    ahead = foot[:2] - pose.translation[:2]
    right = np.array([ahead[1], -ahead[0], 0.0]) / max(float(np.hypot(*ahead)), 1e-6)
    side = right * figure.cutout.aspect * figure.height_m / 2
    top = np.array([0.0, 0.0, figure.height_m])
    corners = lens.project(
        pose.to_camera([foot + top - side, foot + top + side, foot + side, foot - side])
    )
    if not np.isfinite(corners).all():
        return None
    (left, upper), (far_right, lower) = corners.min(axis=0), corners.max(axis=0)
    outside = far_right <= 0 or lower <= 0 or left >= lens.width or upper >= lens.height
    return None if outside else corners


def _draw_figure(
    picture: NDArray[np.uint8], figure: Figure, lens: CameraModel, pose: CameraPose
) -> None:
    corners = _corners(figure, lens, pose)
    if corners is None:
        return
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(
        np.ceil(corners.max(axis=0)).astype(int) + 1, [lens.width, lens.height]
    )
    rgb, alpha = _shrunk(figure.cutout, float(np.ptp(corners[:, 1])))
    height, width = alpha.shape
    edges = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    # Pixel centres: the corner of a picture is half a pixel off the centre of its first pixel.
    onto = np.asarray(corners - (left, top) - 0.5, np.float32)
    matrix = cv2.getPerspectiveTransform(edges - np.float32(0.5), onto)
    size = int(right - left), int(bottom - top)
    # Colours times coverage: what is not the person must not bleed into the edge.
    covered = cv2.warpPerspective(
        np.dstack([rgb * alpha[..., None], alpha]), matrix, size, flags=cv2.INTER_LINEAR
    )
    region = picture[top:bottom, left:right]
    region[:] = np.clip(region * (1.0 - covered[..., 3:]) + covered[..., :3] + 0.5, 0, 255)


def _shrunk(cutout: Cutout, height_px: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The cut-out near the size that it is shown in: else it would flicker."""
    share = min(max(height_px, 8.0) / len(cutout.rgb), 1.0)
    size = max(round(cutout.rgb.shape[1] * share), 2), max(round(len(cutout.rgb) * share), 2)
    rgb = cv2.resize(cutout.rgb, size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(cutout.alpha, size, interpolation=cv2.INTER_AREA)
    return np.asarray(rgb, np.float32), np.asarray(alpha, np.float32)


def _draw_shadow(
    picture: NDArray[np.uint8], figure: Figure, lens: CameraModel, pose: CameraPose
) -> None:
    angles = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
    around = figure.xy + _SHADOW_M * np.column_stack([np.cos(angles), np.sin(angles)])
    corners = lens.project(pose.to_camera(np.column_stack([around, np.zeros(len(around))])))
    if not np.isfinite(corners).all():
        return
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 6, 0)
    right, bottom = np.minimum(
        np.ceil(corners.max(axis=0)).astype(int) + 6, [lens.width, lens.height]
    )
    if left >= right or top >= bottom:
        return
    mask = np.zeros((bottom - top, right - left), np.float32)
    cv2.fillPoly(mask, [np.rint(corners - (left, top)).astype(np.int32)], 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), 2.5)
    region = picture[top:bottom, left:right]
    region[:] = (region * (1.0 - _SHADOW * mask[..., None])).astype(np.uint8)
