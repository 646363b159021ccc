# SPDX-License-Identifier: Apache-2.0
"""People on a map: dots with spread and velocity, and labels that keep clear of one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from roi_codec_ros.lab.demo.panels import (
    BACKGROUND,
    TEXT,
    Colour,
    PersonMark,
    Rectangle,
    put_text,
    text_size,
)

DOT_PX = 6


class Geometry(Protocol):
    """Where a point of the ground lies in a picture of `size` (height, width)."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture in px."""

    @property
    def pixels_per_metre(self) -> float:
        """Scale of the picture."""

    def pixel(self, x_m: float, y_m: float, /) -> tuple[float, float]:
        """Column and row."""


def draw_person_dot(
    picture: np.ndarray,
    geometry: Geometry,
    person: PersonMark,
    colour: Colour,
    radius_px: int = DOT_PX,
) -> None:
    """A dot with spread and velocity; a ring at the border for a person beyond it."""
    point, inside = _on_the_map(geometry, person)
    radius = radius_px * 16
    if inside:
        _draw_spread(picture, geometry, person, colour)
        _draw_velocity(picture, geometry, person, colour)
        cv2.circle(picture, fixed_point(point), radius + 32, BACKGROUND, -1, cv2.LINE_AA, shift=4)
        cv2.circle(picture, fixed_point(point), radius, colour, -1, cv2.LINE_AA, shift=4)
    else:
        cv2.circle(picture, fixed_point(point), radius, colour, 2, cv2.LINE_AA, shift=4)


def mark_rectangle(geometry: Geometry, person: PersonMark, radius_px: int = DOT_PX) -> Rectangle:
    """What a person's dot covers."""
    (column, row), _ = _on_the_map(geometry, person)
    reach = radius_px + 1
    return (
        round(column) - reach, round(row) - reach, round(column) + reach, round(row) + reach
    )  # fmt: skip


def draw_label(
    picture: np.ndarray,
    geometry: Geometry,
    person: PersonMark,
    label: str,
    taken: Sequence[Rectangle],
    *,
    size: int = 13,
    radius_px: int = DOT_PX,
) -> Rectangle:
    """Write a label beside a person's dot, where nothing else is, if there is room; its place."""
    width, height = text_size(label, size)
    point, _ = _on_the_map(geometry, person)
    x, y = round(point[0]), round(point[1])
    right, left, middle = x + radius_px + 6, x - radius_px - 6 - width, x - width // 2
    level, above, below = -height // 2, -height // 2 - 16, -height // 2 + 16
    if person.velocity[0] > 0.1:  # an arrow leads to the right
        right, left = left, right
    places = [
        (column, y + shift, column + width, y + shift + height)
        for column, shift in (
            *((right, level), (left, level), (right, above), (left, above)),
            *((right, below), (left, below)),
            *((middle, -height - radius_px - 5), (middle, radius_px + 5)),
        )
    ]
    fitting = [place for place in places if place[0] >= 4 and place[2] <= geometry.size[1] - 4]
    free = [place for place in fitting if not any(overlap(place, other) for other in taken)]
    chosen = (free or fitting or places)[0]
    put_text(picture, label, chosen[:2], size=size, colour=TEXT)
    return chosen


def _on_the_map(geometry: Geometry, person: PersonMark) -> tuple[tuple[float, float], bool]:
    """Where a person's mark goes, at the border if it lies beyond, and whether it lies inside."""
    assert person.position is not None
    column, row = geometry.pixel(*person.position)
    height, width = geometry.size
    point = (min(max(column, 10), width - 10), min(max(row, 10), height - 10))
    return point, point == (column, row)


def overlap(one: Rectangle, other: Rectangle) -> bool:
    """Whether two rectangles have a pixel in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_spread(
    picture: np.ndarray, geometry: Geometry, person: PersonMark, colour: Colour
) -> None:
    """The ellipse in which the person is with 95 % (2.45 standard deviations), if it is known."""
    covariance = np.asarray(person.covariance, dtype=float).reshape(2, 2)
    if not np.isfinite(covariance).all() or np.trace(covariance) <= 0:
        return
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    axes = 2.45 * np.sqrt(np.clip(values, 0, 25)) * geometry.pixels_per_metre
    # Rows of the picture grow downwards, z grows upwards: the angle turns its sign.
    angle = -math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    assert person.position is not None
    column, row = geometry.pixel(*person.position)
    overlay = picture.copy()
    box = ((column, row), (max(2 * axes[1], 1.0), max(2 * axes[0], 1.0)), angle)
    cv2.ellipse(overlay, box, colour, -1, cv2.LINE_AA)
    cv2.addWeighted(overlay, 0.18, picture, 0.82, 0, dst=picture)
    cv2.ellipse(picture, box, colour, 1, cv2.LINE_AA)


def _draw_velocity(
    picture: np.ndarray, geometry: Geometry, person: PersonMark, colour: Colour
) -> None:
    """An arrow to where the person will be in one second."""
    if math.hypot(*person.velocity) < 0.1:
        return
    assert person.position is not None
    x_m, z_m = person.position
    start = geometry.pixel(x_m, z_m)
    end = geometry.pixel(x_m + person.velocity[0], z_m + person.velocity[1])
    cv2.arrowedLine(
        picture,
        fixed_point(start),
        fixed_point(end),
        colour,
        2,
        cv2.LINE_AA,
        shift=4,
        tipLength=0.25,
    )


def fixed_point(point: tuple[float, float]) -> tuple[int, int]:
    """A sub-pixel point in the fixed-point numbers of OpenCV with shift=4."""
    return round(point[0] * 16), round(point[1] * 16)
