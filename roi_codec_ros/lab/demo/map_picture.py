# SPDX-License-Identifier: Apache-2.0
"""The map from above: cameras, the floor that they watch, true positions and tracks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.demo.map_book import WatchedFloor
from roi_codec_ros.lab.demo.map_marks import draw_label, draw_person_dot, mark_rectangle
from roi_codec_ros.lab.demo.panels import (
    BACKGROUND,
    LINE,
    MAP,
    MUTED,
    PANEL,
    PersonMark,
    Rectangle,
    person_colour,
    put_text,
    text_size,
)
from roi_codec_ros.lab.simulation.walking import Floor
from roi_codec_ros.perception.coverage import ViewWedge
from roi_codec_ros.perception.tracking import Tracks

PIXELS_PER_METRE = 46
SIDE_PX, HEAD_PX, FOOT_PX = 30, 40, 40
CONE_M = 1.0  # length of a camera's cone, where its view is not filled
DOT_PX, LABEL_PX = 8, 15
_WATCHED = (38, 50, 62)
_WATCHED_EDGE = (66, 84, 104)
_VIEW = (44, 54, 68)
_GRID = (34, 41, 51)
_TRUTH = (255, 255, 255)
_SHIFT = 4


@dataclass(frozen=True)
class Area:
    """A rectangle of the map, metres."""

    left_m: float
    bottom_m: float
    right_m: float
    top_m: float

    @classmethod
    def of_floor(cls, floor: Floor) -> Area:
        """All of a hall's floor."""
        return cls(-floor.width_m / 2, 0.0, floor.width_m / 2, floor.depth_m)

    @property
    def width_m(self) -> float:
        """Extent along x."""
        return self.right_m - self.left_m

    @property
    def depth_m(self) -> float:
        """Extent along y."""
        return self.top_m - self.bottom_m


@dataclass(frozen=True)
class AreaGeometry:
    """An area in the middle of a picture of `size` (height, width), x to the right, y upwards."""

    size: tuple[int, int]
    area: Area

    @property
    def pixels_per_metre(self) -> float:
        """As large as the area fits between the borders."""
        height, width = self.size
        return min(
            (height - HEAD_PX - FOOT_PX) / self.area.depth_m,
            (width - 2 * SIDE_PX) / self.area.width_m,
        )

    def pixel(self, x_m: float, y_m: float, /) -> tuple[float, float]:
        """Column and row of a place in the map."""
        height, width = self.size
        middle_x = (self.area.left_m + self.area.right_m) / 2
        middle_y = (self.area.bottom_m + self.area.top_m) / 2
        column = width / 2 + (x_m - middle_x) * self.pixels_per_metre
        middle_row = HEAD_PX + (height - HEAD_PX - FOOT_PX) / 2
        return column, middle_row - (y_m - middle_y) * self.pixels_per_metre

    def at(self, x_m: float, y_m: float) -> tuple[int, int]:
        """The pixel in whole numbers."""
        column, row = self.pixel(x_m, y_m)
        return round(column), round(row)

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Of the area: left, top, right and bottom in px."""
        left_top = self.at(self.area.left_m, self.area.top_m)
        return *left_top, *self.at(self.area.right_m, self.area.bottom_m)


class MapPicture:
    """Draws moments onto the same background.

    cameras: what is drawn of them. fill_views: draw all of their wedges; else short cones. floor:
    walls and doors are drawn where it is given.
    """

    def __init__(
        self,
        area: Area,
        cameras: Mapping[str, ViewWedge],
        size: tuple[int, int] | None = None,
        *,
        floor: Floor | None = None,
        fill_views: bool = False,
    ) -> None:
        self.geometry = AreaGeometry(size or _natural_size(area), area)
        self._cameras = dict(cameras)
        self._floor = floor
        self._labels: list[Rectangle] = []
        self._background = self._draw_background(fill_views)
        self._watched: tuple[WatchedFloor | None, NDArray[np.uint8]] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.geometry.size

    def draw(
        self,
        tracks: Sequence[PersonMark],
        *,
        truth: NDArray[np.float64] | None = None,
        watched: WatchedFloor | None = None,
        title: str = "",
        note: str = "",
        colour_of: Callable[[PersonMark, int], tuple[int, int, int]] = person_colour,
    ) -> NDArray[np.uint8]:
        """RGB uint8 [*size, 3]: tracks as dots, true places (float64 [N, 2]) as rings."""
        if self._watched is None or self._watched[0] is not watched:
            self._watched = watched, self._with_cameras(watched)
        picture = self._watched[1].copy()
        radius = round(max(DOT_PX + 4, 0.24 * self.geometry.pixels_per_metre))
        clear = DOT_PX if truth is None else radius - 1  # labels keep off the rings
        for x_m, y_m in truth if truth is not None else ():
            cv2.circle(picture, self.geometry.at(x_m, y_m), radius, _TRUTH, 1, cv2.LINE_AA)
        for index, mark in enumerate(tracks):
            draw_person_dot(picture, self.geometry, mark, colour_of(mark, index), DOT_PX)
        taken = [*self._labels, *(mark_rectangle(self.geometry, m, DOT_PX) for m in tracks)]
        for mark in tracks:
            label = f"#{mark.track_id}"
            place = draw_label(
                picture, self.geometry, mark, label, taken, size=LABEL_PX, radius_px=clear
            )
            taken.append(place)
        area, middle = self.geometry.area, self.size[1] // 2
        top = self.geometry.at(0.0, area.top_m)[1] - 31
        bottom = self.geometry.at(0.0, area.bottom_m)[1] + 11
        put_text(picture, title, (middle, top), size=17, align="centre")
        put_text(picture, note, (middle, bottom), size=14, colour=MUTED, align="centre")
        return picture

    def _draw_background(self, fill_views: bool) -> NDArray[np.uint8]:
        picture = np.empty((*self.size, 3), np.uint8)
        picture[:] = BACKGROUND
        left, top, right, bottom = self.geometry.sides
        inside = picture[top:bottom, left:right]
        inside[:] = PANEL
        for camera in self._cameras.values() if fill_views else ():
            view = picture.copy()
            wedge = self._wedge(camera, camera.range_m)
            cv2.fillPoly(view, [wedge], _VIEW, cv2.LINE_AA, _SHIFT)
            shown = view[top:bottom, left:right]
            cv2.addWeighted(shown, 0.4, inside, 0.6, 0, dst=inside)
        return picture

    def _with_cameras(self, watched: WatchedFloor | None) -> NDArray[np.uint8]:
        """The background with the floor that is watched, then all that does not change."""
        picture = self._background.copy()
        if watched is not None:
            self._draw_watched(picture, watched)
        at, area = self.geometry.at, self.geometry.area
        left, top, right, bottom = self.geometry.sides
        for metre in range(math.ceil(area.left_m), math.floor(area.right_m) + 1):
            cv2.line(picture, (at(metre, 0)[0], top), (at(metre, 0)[0], bottom), _GRID, 1)
        for metre in range(math.ceil(area.bottom_m), math.floor(area.top_m) + 1):
            cv2.line(picture, (left, at(0, metre)[1]), (right, at(0, metre)[1]), _GRID, 1)
        cv2.rectangle(picture, (left, top), (right, bottom), LINE, 2)
        for x_m, y_m in self._floor.doors if self._floor is not None else ():
            cv2.circle(picture, at(x_m, y_m), 7, MUTED, -1, cv2.LINE_AA)
        self._labels = [
            self._draw_camera(picture, name, camera) for name, camera in self._cameras.items()
        ]
        return picture

    def _draw_watched(self, picture: NDArray[np.uint8], watched: WatchedFloor) -> None:
        """Fill the watched cells and draw around them."""
        scale = self.geometry.pixels_per_metre * watched.cell_m
        column, row = self.geometry.pixel(watched.x_m, watched.y_m)
        # Cells grow upwards, rows of the picture downwards; a cell's number is that of its middle.
        matrix = np.array(
            [[scale, 0, column + scale / 2], [0, -scale, row - scale / 2]], np.float64
        )
        height, width = self.size
        mask = cv2.warpAffine(
            np.asarray(watched.cells * 255, np.uint8), matrix, (width, height),
            flags=cv2.INTER_LINEAR,
        )  # fmt: skip
        left, top, right, bottom = self.geometry.sides
        mask[:top], mask[bottom:], mask[:, :left], mask[:, right:] = 0, 0, 0, 0
        inside = np.asarray(mask >= 128, np.uint8)
        picture[inside > 0] = _WATCHED
        edges, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, edges, -1, _WATCHED_EDGE, 1, cv2.LINE_AA)

    def _draw_camera(self, picture: NDArray[np.uint8], name: str, camera: ViewWedge) -> Rectangle:
        """A cone, a dot and the name; what the name covers."""
        cone = self._wedge(camera, CONE_M)
        overlay = picture.copy()
        cv2.fillPoly(overlay, [cone], MAP, cv2.LINE_AA, _SHIFT)
        cv2.addWeighted(overlay, 0.25, picture, 0.75, 0, dst=picture)
        cv2.polylines(picture, [cone], True, MAP, 1, cv2.LINE_AA, _SHIFT)
        column, row = self.geometry.at(camera.x_m, camera.y_m)
        cv2.circle(picture, (column, row), 8, MAP, -1, cv2.LINE_AA)
        width, height = text_size(name, 14)
        # Behind the camera, where its view and those whom it sees are not.
        behind = row + 11 if math.sin(camera.heading_rad) > 0 else row - 11 - height
        x = min(max(column - width // 2, 6), self.size[1] - width - 6)
        y = min(max(behind, 2), self.size[0] - height - 2)
        put_text(picture, name, (x, y), size=14, colour=MAP)
        return x, y, x + width, y + height

    def _wedge(self, camera: ViewWedge, range_m: float) -> NDArray[np.int32]:
        """Corners in px, as OpenCV's fixed-point numbers of _SHIFT bits."""
        angles = camera.heading_rad + np.linspace(-0.5, 0.5, 25) * camera.hfov_rad
        corners = [
            self.geometry.pixel(camera.x_m + reach * math.cos(a), camera.y_m + reach * math.sin(a))
            for a, reach in ((0.0, 0.0), *((angle, range_m) for angle in angles))
        ]
        return np.rint(np.array(corners) * 2**_SHIFT).astype(np.int32)


def _natural_size(area: Area) -> tuple[int, int]:
    """At PIXELS_PER_METRE; even, as video codecs want it."""
    height = round(area.depth_m * PIXELS_PER_METRE) + HEAD_PX + FOOT_PX
    width = round(area.width_m * PIXELS_PER_METRE) + 2 * SIDE_PX
    return height + height % 2, width + width % 2


def hall_picture(floor: Floor, cameras: Mapping[str, ViewWedge]) -> MapPicture:
    """The simulated hall, with all that its cameras see."""
    return MapPicture(Area.of_floor(floor), cameras, floor=floor, fill_views=True)


def marks_of(tracks: Tracks) -> list[PersonMark]:
    """Tracks as the pictures want them."""
    return [
        PersonMark(
            (0.0, 0.0, 0.0, 0.0),
            track_id=int(tracks.id[index]),
            position=(float(tracks.xy[index, 0]), float(tracks.xy[index, 1])),
            velocity=(float(tracks.velocity[index, 0]), float(tracks.velocity[index, 1])),
            covariance=tuple(tracks.covariance[index].ravel()),
        )
        for index in range(len(tracks))
    ]
