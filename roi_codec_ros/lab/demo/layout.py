# SPDX-License-Identifier: Apache-2.0
"""The demo's video and contact sheet, for one camera and for many.

```
  ┌ camera 1, raw ┬ anonymized ┬ its map ┐        ┌ camera 1, raw ┬ anonymized ┬──────────────────┐
  ├ camera 2, raw ┼ anonymized ┼ its map ┤   or   ├ camera 2, raw ┼ anonymized ┤ map of all       │
  └───────────────┴────────────┴─────────┘        └───────────────┴────────────┴──────────────────┘
     cameras without a known pose                    cameras with a known pose
```
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.demo.camera_map import MapScale, map_panel
from roi_codec_ros.lab.demo.map_book import map_at, watched_at
from roi_codec_ros.lab.demo.map_picture import FOOT_PX, HEAD_PX, SIDE_PX, Area, MapPicture
from roi_codec_ros.lab.demo.panels import (
    BACKGROUND,
    CAMERA,
    MAP,
    MUTED,
    SERVER,
    Colour,
    View,
    anonymized_panel,
    fit_text,
    put_text,
    raw_panel,
    track_colour,
)
from roi_codec_ros.lab.demo.twin import Twin

MARGIN_PX = 12
TITLE_PX = 34
CAPTION_PX = 28
GAP_PX = 4  # between the pictures of a cell
HEADER_PX = 118
CELL_WIDTH_PX = 360
MAX_VIDEO_HEIGHT_PX = 1440
ROWS_PX = 930  # so much of the video's height is for the rows beside one map
PANEL_HEIGHTS_PX = (100, 440)
MAP_WIDTHS_PX = (460, 1020)
CELL_WIDTHS_PX = (200, 400)
SHEET_WIDTH_PX = 1700
NO_POSITION_NOTE = "no positions yet: bearing only"
POSITION_NOTE = "position from assumed person height"
ANONYMIZED = "anonymized: all that the server gets"
NOT_ANONYMIZED = "untrained model: not anonymized"
NOTE = "dots: tracks, with 95 % ellipses and a second's way · bright floor: watched"
NOTE_TRUTH = "rings: people · dots: tracks, with 95 % ellipses and a second's way"

Captioned = tuple[ImageArray, str]  # a picture, and the line below it
Cell = tuple[Sequence[ImageArray], str]  # pictures below one another, and the line below them


@dataclass(frozen=True)
class Layout:
    """A row per camera with its own picture (if `with_raw`) and the anonymized one, then maps.

    panel_size: (height, width) of each picture in px. map_width: px. one_map: of all cameras,
    beside all rows; else each row has a map of its own.
    """

    cameras: int
    panel_size: tuple[int, int]
    map_width: int
    one_map: bool = False
    with_raw: bool = True
    decoded_title: str = ANONYMIZED

    @classmethod
    def of(
        cls,
        cameras: int,
        original_size: tuple[int, int],
        area: Area | None = None,
        *,
        with_raw: bool = True,
        decoded_title: str = ANONYMIZED,
    ) -> Layout:
        """Panels of the cameras' aspect, with one map as wide as ``area`` asks for.

        Without an area a map for each camera: panels 480 px wide, or smaller where the video grew
        too tall.
        """
        height, width = max(original_size[0], 1), max(original_size[1], 1)
        if area is None:
            room = MAX_VIDEO_HEIGHT_PX / max(cameras, 1) - TITLE_PX - CAPTION_PX - MARGIN_PX
            panel_width = min(480.0, max(room, 90) * width / height)
            panel_height = panel_width * height / width
            size = (max(2 * round(panel_height / 2), 90), 2 * round(panel_width / 2))
            return cls(cameras, size, size[1], False, with_raw, decoded_title)
        room = ROWS_PX // max(cameras, 1) - TITLE_PX - CAPTION_PX
        tall = 2 * (min(max(room, PANEL_HEIGHTS_PX[0]), PANEL_HEIGHTS_PX[1]) // 2)
        rows = cameras * (TITLE_PX + tall + CAPTION_PX) - TITLE_PX - CAPTION_PX
        map_width = round((rows - HEAD_PX - FOOT_PX) * area.width_m / area.depth_m) + 2 * SIDE_PX
        map_width = min(max(map_width, MAP_WIDTHS_PX[0]), MAP_WIDTHS_PX[1])
        size = (tall, 2 * round(tall * width / height / 2))
        return cls(cameras, size, map_width + map_width % 2, True, with_raw, decoded_title)

    @property
    def _row_px(self) -> int:
        return TITLE_PX + self.panel_size[0] + CAPTION_PX

    @property
    def _map_left(self) -> int:
        columns = 2 if self.with_raw else 1
        return MARGIN_PX + columns * (self.panel_size[1] + MARGIN_PX)

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of a map."""
        rows = self.cameras if self.one_map else 1
        return rows * self._row_px - TITLE_PX - CAPTION_PX, self.map_width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture; even, as video codecs want it."""
        height = self.cameras * self._row_px + MARGIN_PX
        width = self._map_left + self.map_width + MARGIN_PX
        return height + height % 2, width + width % 2

    def compose(self, views: Sequence[View], maps: Sequence[Captioned]) -> ImageArray:
        """One picture of all cameras and their maps, uint8 [*size, 3]."""
        picture = np.empty((*self.size, 3), np.uint8)
        picture[:] = BACKGROUND
        for row, view in enumerate(views):
            top, left = row * self._row_px, MARGIN_PX
            title = f"{view.name}, {self.decoded_title}"
            if self.with_raw:
                stays = f"{view.name}: stays in the camera"
                panel = raw_panel(view, self.panel_size)
                _place(picture, (left, top), stays, CAMERA, panel, view.captions[0])
                left += self.panel_size[1] + MARGIN_PX
                title = self.decoded_title
            panel = anonymized_panel(view, self.panel_size, tracked=self.one_map)
            _place(picture, (left, top), title, SERVER, panel, view.captions[1])
        title = "the map, from all cameras" if self.one_map else "map from above"
        for row, (from_above, caption) in enumerate(maps):
            corner = (self._map_left, row * self._row_px)
            _place(picture, corner, title, MAP, from_above, caption)
        return picture


def _place(
    picture: ImageArray,
    corner: tuple[int, int],
    title: str,
    colour: Colour,
    panel: ImageArray,
    caption: str,
) -> None:
    """A panel with its title above and its caption below."""
    left, top = corner
    height, width = panel.shape[:2]
    cv2.circle(picture, (left + 6, top + TITLE_PX // 2 + 1), 5, colour, -1, cv2.LINE_AA)
    put_text(picture, fit_text(title, 16, width - 20), (left + 18, top + 7), size=16)
    picture[top + TITLE_PX : top + TITLE_PX + height, left : left + width] = panel
    below = (left, top + TITLE_PX + height + 5)
    put_text(picture, fit_text(caption, 14, width), below, size=14, colour=MUTED)


# ------------------------------------------------------------------------------------------- maps


def camera_maps(
    views: Sequence[View], size: tuple[int, int], scales: Mapping[str, MapScale] | None = None
) -> list[Captioned]:
    """For cameras without a known pose: the map of each, with a note of how positions came."""
    maps = []
    for view in views:
        scale = (scales or {}).get(view.name, MapScale())
        unknown = view.persons and all(person.position is None for person in view.persons)
        picture = map_panel(view.persons, view.original_size, size, scale)
        maps.append((picture, NO_POSITION_NOTE if unknown else POSITION_NOTE))
    return maps


class TwinMap:
    """The map of a run with all its cameras, drawn for any time of it."""

    def __init__(self, twin: Twin, size: tuple[int, int]) -> None:
        self._twin = twin
        self._picture = MapPicture(twin.area(), twin.wedges(), size, floor=twin.floor)

    def at(self, stamp_ns: int, title: str = "", *, legend: bool = True) -> ImageArray:
        """What was known of the map at a time, and what was true under the same stamp."""
        twin = self._twin
        moment = map_at(twin.moments, stamp_ns)
        known = moment is not None and stamp_ns - moment.stamp_ns < 3_000_000_000
        persons = moment.persons if moment is not None and known else ()
        truth = None
        if twin.truth is not None:
            _, truth = twin.truth(moment.stamp_ns if moment is not None and known else stamp_ns)
            title += f"{len(truth)} people · "
        tracks = "1 track" if len(persons) == 1 else f"{len(persons)} tracks"
        note = NOTE if truth is None else NOTE_TRUTH
        return self._picture.draw(
            persons,
            truth=truth,
            watched=watched_at(twin.watched, stamp_ns),
            title=title + tracks,
            note=fit_text(note, 14, self._picture.size[1] - 2 * SIDE_PX) if legend else "",
            colour_of=track_colour,
        )


# -------------------------------------------------------------------------------- contact sheets


def contact_sheet(
    moments: Sequence[tuple[View, str]],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    columns: int = 4,
    cell_width: int = CELL_WIDTH_PX,
) -> ImageArray:
    """Moments and their captions: the camera above, the anonymized picture below.

    Moments without a raw picture show the anonymized one alone. Raises ValueError for none.
    """
    if not moments:
        raise ValueError("expected at least one moment, found none")
    with_raw = any(view.raw is not None for view, _ in moments)
    usual_size = Counter(view.original_size for view, _ in moments).most_common(1)[0][0]
    size = _cell_size(usual_size, cell_width)
    cells: list[Cell] = []
    for view, caption in moments:
        pictures = [raw_panel(view, size)] if with_raw else []
        cells.append(([*pictures, anonymized_panel(view, size)], caption))
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    return _page(rows, title, facts)


def twin_sheet(
    rows: Sequence[tuple[Sequence[View], int, str]],
    twin: Twin,
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
) -> ImageArray:
    """Moments of a run in the map, a row for each: all views, then the map.

    rows: views, stamp in ns and a caption. A single camera's own picture comes first. Raises
    ValueError for none.
    """
    if not rows:
        raise ValueError("expected at least one moment, found none")
    views = rows[0][0]
    with_raw = len(views) == 1 and views[0].raw is not None
    cells = len(views) + with_raw + 1
    width = min(max(SHEET_WIDTH_PX // cells, CELL_WIDTHS_PX[0]), CELL_WIDTHS_PX[1])
    size = _cell_size(views[0].original_size, width)
    area = twin.area()
    map_height = size[0] + CAPTION_PX
    map_width = round((map_height - HEAD_PX - FOOT_PX) * area.width_m / area.depth_m)
    map_width = min(max(map_width + 2 * SIDE_PX, width), 2 * width)
    from_above = TwinMap(twin, (map_height, map_width))
    page: list[list[Cell]] = []
    for seen, stamp_ns, caption in rows:
        line: list[Cell] = [
            ([anonymized_panel(view, size, tracked=True)], f"{view.name} · {caption}")
            for view in seen
        ]
        if with_raw:
            line[0] = (line[0][0], f"anonymized · {caption}")
            line.insert(0, ([raw_panel(seen[0], size)], f"{seen[0].name} · {caption}"))
        page.append([*line, ([from_above.at(stamp_ns, legend=False)], "")])
    return _page(page, title, facts)


def _cell_size(original_size: tuple[int, int], width: int) -> tuple[int, int]:
    return max(round(width * original_size[0] / max(original_size[1], 1)), 60), width


def _page(
    rows: Sequence[Sequence[Cell]], title: str, facts: Sequence[tuple[str, str]]
) -> ImageArray:
    """Rows of cells under a title; facts: pairs of a figure and what it is, set large."""
    header = HEADER_PX if facts else 64
    heights = [max(_cell_height(cell) for cell in row) + MARGIN_PX for row in rows]
    widths = [sum(cell[0][0].shape[1] + MARGIN_PX for cell in row) + MARGIN_PX for row in rows]
    page = np.empty((header + sum(heights) + MARGIN_PX, max(widths), 3), np.uint8)
    page[:] = BACKGROUND
    _compose_header(page, title, facts)
    tops = header + np.cumsum([0, *heights[:-1]])
    for row, top in zip(rows, tops.tolist(), strict=True):
        left = MARGIN_PX
        for pictures, caption in row:
            y = top
            width = pictures[0].shape[1]
            for picture in pictures:
                page[y : y + picture.shape[0], left : left + width] = picture
                y += picture.shape[0] + GAP_PX
            put_text(page, fit_text(caption, 14, width), (left, y + 1), size=14, colour=MUTED)
            left += width + MARGIN_PX
    return page


def _cell_height(cell: Cell) -> int:
    pictures, caption = cell
    pixels = sum(picture.shape[0] for picture in pictures) + GAP_PX * (len(pictures) - 1)
    return pixels + (CAPTION_PX if caption else 0)


def _compose_header(page: ImageArray, title: str, facts: Sequence[tuple[str, str]]) -> None:
    """The head of a page: its title, and below it large figures with what they are."""
    put_text(page, title, (MARGIN_PX, 14), size=24)
    room = (page.shape[1] - 2 * MARGIN_PX) // max(len(facts), 1)
    for index, (figure, meaning) in enumerate(facts):
        left = MARGIN_PX + index * room
        put_text(page, fit_text(figure, 22, room - 8), (left, 54), size=22, colour=SERVER)
        put_text(page, fit_text(meaning, 13, room - 8), (left, 84), size=13, colour=MUTED)
