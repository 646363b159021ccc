# SPDX-License-Identifier: Apache-2.0
"""The map of a camera without a known pose: the camera below, looking up, and who it sees."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from roi_codec_ros.lab.demo.map_marks import (
    draw_label,
    draw_person_dot,
    fixed_point,
    mark_rectangle,
)
from roi_codec_ros.lab.demo.panels import (
    MAP,
    MUTED,
    PANEL,
    Colour,
    PersonMark,
    Rectangle,
    person_colour,
    put_text,
)


@dataclass(frozen=True)
class MapScale:
    """What the map from above shows: `range_m` ahead of a camera that sees `field_of_view_deg`."""

    range_m: float = 8.0
    field_of_view_deg: float = 60.0


@dataclass(frozen=True)
class MapGeometry:
    """Where a point of the ground lies in the map's picture of `size` (height, width)."""

    size: tuple[int, int]
    scale: MapScale
    foot_px: int = 34
    head_px: int = 16

    @property
    def pixels_per_metre(self) -> float:
        """Pixels per metre."""
        return (self.size[0] - self.foot_px - self.head_px) / self.scale.range_m

    def pixel(self, x_m: float, z_m: float) -> tuple[float, float]:
        """Column and row of the point x_m right and z_m ahead of the camera."""
        column = self.size[1] / 2 + x_m * self.pixels_per_metre
        return column, self.size[0] - self.foot_px - z_m * self.pixels_per_metre


def map_panel(
    persons: Sequence[PersonMark],
    original_size: tuple[int, int],
    size: tuple[int, int],
    scale: MapScale,
) -> np.ndarray:
    """The map from above: the camera below, looking up; a dot for each person that has a position.

    A person without one is a dashed ray in the direction of the box (a pinhole camera is assumed).
    """
    picture = _map_background(size, scale).copy()
    geometry = MapGeometry(size, scale)
    for index, person in enumerate(persons):
        colour = person_colour(person, index)
        if person.position is None:
            _draw_bearing(picture, geometry, person, original_size, colour)
        else:
            draw_person_dot(picture, geometry, person, colour)
    taken = [mark_rectangle(geometry, person) for person in persons if person.position]
    for person in persons:
        if person.position is not None:
            taken.append(_draw_distance(picture, geometry, person, taken))
    return picture


def nice_range_m(distances_m: Sequence[float]) -> float:
    """A round range in metres that shows 90 % of the distances or more; 8 m for none."""
    if not len(distances_m):
        return 8.0
    wanted = float(np.percentile(np.asarray(distances_m, dtype=float), 90)) * 1.1
    return next((step for step in (4.0, 6.0, 8.0, 12.0, 16.0, 24.0) if step >= wanted), 32.0)


def ring_step_m(range_m: float) -> float:
    """Metres between the range rings: three to five rings in every range."""
    return next(step for step in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0) if range_m / step <= 5)


def bearing_rad(
    box: tuple[float, float, float, float], width: int, field_of_view_deg: float
) -> float:
    """Angle of the box's middle to the optical axis in rad, right positive."""
    focal_px = width / 2 / math.tan(math.radians(field_of_view_deg) / 2)
    return math.atan2(box[0] + box[2] / 2 - width / 2, focal_px)


@functools.lru_cache(maxsize=16)
def _map_background(size: tuple[int, int], scale: MapScale) -> np.ndarray:
    """Field of view, 1 m grid, range rings and the camera; drawn at double size and shrunk."""
    fine = 2
    height, width = size[0] * fine, size[1] * fine
    geometry = MapGeometry(size, scale)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = PANEL

    def at(x_m: float, z_m: float) -> tuple[int, int]:
        column, row = geometry.pixel(x_m, z_m)
        return round(column * fine), round(row * fine)

    half = math.radians(min(scale.field_of_view_deg, 170.0) / 2)
    far = 3.0 * scale.range_m
    edge = (far * math.sin(half), far * math.cos(half))
    wedge = np.array([at(0, 0), at(-edge[0], edge[1]), at(edge[0], edge[1])])
    cv2.fillPoly(canvas, [wedge], (31, 39, 50), cv2.LINE_AA)

    side_m = math.ceil(size[1] / 2 / geometry.pixels_per_metre)
    for metre in range(-side_m, side_m + 1):
        cv2.line(canvas, (at(metre, 0)[0], 0), (at(metre, 0)[0], height), (36, 44, 55), 2)
    for metre in range(-2, math.ceil(scale.range_m) + 2):
        cv2.line(canvas, (0, at(0, metre)[1]), (width, at(0, metre)[1]), (36, 44, 55), 2)

    step = ring_step_m(scale.range_m)
    rings = [step * n for n in range(1, int(scale.range_m / step + 1e-6) + 1)]
    for ring in rings:
        radius = round(ring * geometry.pixels_per_metre * fine)
        cv2.ellipse(canvas, at(0, 0), (radius, radius), 0, 180, 360, (74, 87, 106), 2, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.line(canvas, at(0, 0), at(side * edge[0], edge[1]), (92, 108, 132), 3, cv2.LINE_AA)
    body = np.array([at(0, 0), at(0, 0), at(0, 0)]) + np.array([[0, -6], [-17, 24], [17, 24]])
    cv2.fillPoly(canvas, [body.astype(np.int32)], MAP, cv2.LINE_AA)

    picture = cv2.resize(canvas, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    for ring in rings:
        label_x, label_z = ring * math.sin(half), ring * math.cos(half)
        column, row = geometry.pixel(label_x, label_z)
        put_text(
            picture, f"{ring:g} m", (round(column) + 6, round(row) - 4), size=12, colour=MUTED
        )
    put_text(picture, "grid 1 m", (10, size[0] - 22), size=12, colour=MUTED)
    picture.setflags(write=False)
    return picture


def _draw_bearing(
    picture: np.ndarray,
    geometry: MapGeometry,
    person: PersonMark,
    original_size: tuple[int, int],
    colour: Colour,
) -> None:
    angle = bearing_rad(person.box, original_size[1], geometry.scale.field_of_view_deg)
    dashes = np.arange(0.06, 1.0, 0.05) * geometry.scale.range_m
    for start in dashes:
        ends = [
            geometry.pixel(r * math.sin(angle), r * math.cos(angle))
            for r in (start, start + 0.025 * geometry.scale.range_m)
        ]
        cv2.line(
            picture, fixed_point(ends[0]), fixed_point(ends[1]), colour, 2, cv2.LINE_AA, shift=4
        )


def _draw_distance(
    picture: np.ndarray, geometry: MapGeometry, person: PersonMark, taken: Sequence[Rectangle]
) -> Rectangle:
    """Write the distance beside the mark, where no other is written; what it covers."""
    assert person.position is not None
    name = f"#{person.track_id}  " if person.track_id else ""
    label = f"{name}{math.hypot(*person.position):.1f} m"
    return draw_label(picture, geometry, person, label, taken)
