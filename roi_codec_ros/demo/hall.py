# SPDX-License-Identifier: Apache-2.0
"""The simulated hall from above: cameras, people, and where tracks say that people are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.demo.pictures import (
    BACKGROUND,
    LINE,
    MAP,
    MUTED,
    PANEL,
    MapGeometry,
    MapScale,
    PersonMark,
    draw_person_dot,
    person_colour,
    put_text,
)
from roi_codec_ros.perception.coverage import ViewWedge
from roi_codec_ros.perception.tracking import Tracks
from roi_codec_ros.perception.walking import Floor

PIXELS_PER_METRE = 46
SIDE_PX = 30
_VIEW = (44, 54, 68)


class HallPicture:
    """Draws moments of a hall onto the same background."""

    def __init__(self, floor: Floor, cameras: Mapping[str, ViewWedge]) -> None:
        frame = MapGeometry((0, 0), MapScale())  # for its borders alone
        height = round(floor.depth_m * PIXELS_PER_METRE) + frame.foot_px + frame.head_px
        width = round(floor.width_m * PIXELS_PER_METRE) + 2 * SIDE_PX
        size = (height + height % 2, width + width % 2)  # even, as video codecs want it
        self.geometry = MapGeometry(size, MapScale(range_m=floor.depth_m))
        self._background = self._draw_background(floor, cameras)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.geometry.size

    def _at(self, x_m: float, y_m: float) -> tuple[int, int]:
        column, row = self.geometry.pixel(x_m, y_m)
        return round(column), round(row)

    def _draw_background(
        self, floor: Floor, cameras: Mapping[str, ViewWedge]
    ) -> NDArray[np.uint8]:
        picture = np.empty((*self.size, 3), np.uint8)
        picture[:] = BACKGROUND
        left, top = self._at(-floor.width_m / 2, floor.depth_m)
        right, bottom = self._at(floor.width_m / 2, 0.0)
        inside = picture[top:bottom, left:right]
        inside[:] = PANEL
        for camera in cameras.values():
            view = picture.copy()
            cv2.fillPoly(view, [self._wedge(camera)], _VIEW, cv2.LINE_AA)
            shown = view[top:bottom, left:right]
            cv2.addWeighted(shown, 0.4, inside, 0.6, 0, dst=inside)
        cv2.rectangle(picture, (left, top), (right, bottom), LINE, 2)
        for x_m, y_m in floor.doors:
            cv2.circle(picture, self._at(x_m, y_m), 7, MUTED, -1, cv2.LINE_AA)
        for name, camera in cameras.items():
            cv2.circle(picture, self._at(camera.x_m, camera.y_m), 9, MAP, -1, cv2.LINE_AA)
            column, row = self._at(camera.x_m, camera.y_m)
            align, shift = ("right", -14) if camera.x_m > 0 else ("left", 14)
            put_text(picture, name, (column + shift, row - 20), size=13, colour=MAP, align=align)
        return picture

    def _wedge(self, camera: ViewWedge) -> NDArray[np.int32]:
        angles = camera.heading_rad + np.linspace(-0.5, 0.5, 25) * camera.hfov_rad
        arc = [
            self._at(
                camera.x_m + camera.range_m * math.cos(angle),
                camera.y_m + camera.range_m * math.sin(angle),
            )
            for angle in angles
        ]
        return np.array([self._at(camera.x_m, camera.y_m), *arc], np.int32)

    def draw(self, persons: NDArray[np.float64], tracks: Tracks) -> NDArray[np.uint8]:
        """RGB uint8 [*size, 3]. persons: float64 [N, 2], drawn as rings; tracks as dots."""
        picture = self._background.copy()
        for index, velocity in enumerate(tracks.velocity):
            mark = PersonMark(
                (0.0, 0.0, 0.0, 0.0),
                track_id=int(tracks.id[index]),
                position=(float(tracks.xy[index, 0]), float(tracks.xy[index, 1])),
                velocity=(float(velocity[0]), float(velocity[1])),
                covariance=tuple(tracks.covariance[index].ravel()),
            )
            draw_person_dot(picture, self.geometry, mark, person_colour(mark, index))
            column, row = self._at(*tracks.xy[index])
            put_text(picture, f"#{mark.track_id}", (column + 10, row - 20), size=13)
        for x_m, y_m in persons:
            cv2.circle(picture, self._at(x_m, y_m), 11, (255, 255, 255), 1, cv2.LINE_AA)
        note = f"{tracks.stamp:6.1f} s   rings: persons, dots: tracks with 95 % ellipses"
        put_text(picture, note, (SIDE_PX, self.size[0] - 26), size=14, colour=MUTED)
        return picture
