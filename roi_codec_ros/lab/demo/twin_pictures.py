# SPDX-License-Identifier: Apache-2.0
"""The video and the contact sheet of a run in the map: all views, and everybody from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.demo.map_book import map_at, watched_at
from roi_codec_ros.lab.demo.map_picture import FOOT_PX, HEAD_PX, SIDE_PX, Area, MapPicture
from roi_codec_ros.lab.demo.panels import (
    ANONYMIZED,
    BACKGROUND,
    CAMERA,
    CAPTION_PX,
    MAP,
    MARGIN_PX,
    MUTED,
    SERVER,
    TITLE_PX,
    Colour,
    PersonMark,
    View,
    compose_header,
    draw_persons,
    fit_text,
    letterbox,
    note_panel,
    person_colour,
    put_text,
    raw_panel,
)
from roi_codec_ros.lab.demo.twin import Twin

ROWS_PX = 930  # so much of the video's height is for the cameras' rows
PANEL_HEIGHTS_PX = (100, 440)
MAP_WIDTHS_PX = (460, 1020)
HEADER_PX = 118
CELL_WIDTHS_PX = (200, 400)
SHEET_WIDTH_PX = 1700
NOTE = "dots: tracks, with 95 % ellipses and a second's way · bright floor: watched"
NOTE_TRUTH = "rings: people · dots: tracks, with 95 % ellipses and a second's way"


def track_colour(person: PersonMark, index: int) -> Colour:
    """One colour for each track, in the map and in all views; grey for who is not tracked."""
    return person_colour(person, index) if person.track_id else MUTED


def track_label(person: PersonMark) -> str:
    """Short, as many may stand close together: the track, else how sure the detector is."""
    return f"#{person.track_id}" if person.track_id else f"{100 * person.score:.0f} %"


def decoded_panel(view: View, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The decoded picture with its persons in the colours of their tracks."""
    if view.anonymized is None:
        return note_panel(size, "waiting for the first picture")
    panel, place = letterbox(view.anonymized, size)
    draw_persons(panel, view.persons, view.original_size, place, track_colour, track_label)
    return panel


class TwinMap:
    """The map of a run, drawn for any time of it."""

    def __init__(self, twin: Twin, size: tuple[int, int]) -> None:
        self._twin = twin
        self._picture = MapPicture(twin.area(), twin.wedges(), size, floor=twin.floor)

    def at(self, stamp_ns: int, title: str = "", *, legend: bool = True) -> NDArray[np.uint8]:
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


@dataclass(frozen=True)
class TwinLayout:
    """A row per camera with what it saw (if `with_raw`) and its anonymized picture, then the map.

    panel_size: (height, width) of each picture in px; map_width: of the map.
    """

    cameras: int
    panel_size: tuple[int, int]
    map_width: int
    with_raw: bool = True
    decoded_title: str = ANONYMIZED

    @classmethod
    def for_run(
        cls,
        cameras: int,
        original_size: tuple[int, int],
        area: Area,
        *,
        with_raw: bool,
        decoded_title: str = ANONYMIZED,
    ) -> TwinLayout:
        """Panels of the cameras' aspect, and a map as wide as its area asks for."""
        height, width = original_size
        room = ROWS_PX // max(cameras, 1) - TITLE_PX - CAPTION_PX
        panel_height = 2 * (min(max(room, PANEL_HEIGHTS_PX[0]), PANEL_HEIGHTS_PX[1]) // 2)
        panel_width = 2 * round(panel_height * width / max(height, 1) / 2)
        rows = cameras * (TITLE_PX + panel_height + CAPTION_PX) - TITLE_PX - CAPTION_PX
        map_width = round((rows - HEAD_PX - FOOT_PX) * area.width_m / area.depth_m) + 2 * SIDE_PX
        map_width = min(max(map_width, MAP_WIDTHS_PX[0]), MAP_WIDTHS_PX[1])
        return cls(
            cameras,
            (panel_height, panel_width),
            map_width + map_width % 2,
            with_raw,
            decoded_title,
        )

    @property
    def _columns(self) -> int:
        return 2 if self.with_raw else 1

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of the map."""
        rows = self.cameras * (TITLE_PX + self.panel_size[0] + CAPTION_PX)
        return rows - TITLE_PX - CAPTION_PX, self.map_width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture; even, as video codecs want it."""
        height = self.cameras * (TITLE_PX + self.panel_size[0] + CAPTION_PX) + MARGIN_PX
        width = self._columns * (self.panel_size[1] + MARGIN_PX) + self.map_width + 2 * MARGIN_PX
        return height + height % 2, width + width % 2

    def compose(
        self, views: Sequence[View], from_above: NDArray[np.uint8], caption: str
    ) -> NDArray[np.uint8]:
        """One picture of all cameras and the map, uint8 [*size, 3]."""
        picture = np.empty((*self.size, 3), np.uint8)
        picture[:] = BACKGROUND
        height, width = self.panel_size
        for row, view in enumerate(views):
            top = row * (TITLE_PX + height + CAPTION_PX)
            left = MARGIN_PX
            if self.with_raw:
                title = f"{view.name}: stays in the camera"
                panel = raw_panel(view, self.panel_size)
                _place(picture, (left, top), title, CAMERA, panel, view.captions[0])
                left += width + MARGIN_PX
            title = self.decoded_title if self.with_raw else f"{view.name}, {self.decoded_title}"
            panel = decoded_panel(view, self.panel_size)
            _place(picture, (left, top), title, SERVER, panel, view.captions[1])
        left = MARGIN_PX + self._columns * (width + MARGIN_PX)
        _place(picture, (left, 0), "the map, from all cameras", MAP, from_above, caption)
        return picture


def _place(
    picture: NDArray[np.uint8],
    corner: tuple[int, int],
    title: str,
    colour: Colour,
    panel: NDArray[np.uint8],
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


def twin_sheet(
    rows: Sequence[tuple[Sequence[View], int, str]],
    twin: Twin,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
) -> NDArray[np.uint8]:
    """Moments of a run on one page, a row for each: all views, then the map.

    rows: views, stamp in ns and a caption. A single camera's own picture comes first.
    """
    if not rows:
        raise ValueError("expected at least one moment, found none")
    views = rows[0][0]
    with_raw = len(views) == 1 and any(view.raw is not None for view in views)
    panels = len(views) + with_raw
    cell_width = min(max(SHEET_WIDTH_PX // (panels + 1), CELL_WIDTHS_PX[0]), CELL_WIDTHS_PX[1])
    height, width = views[0].original_size
    cell_height = max(round(cell_width * height / max(width, 1)), 60)
    area = twin.area()
    map_height = cell_height + CAPTION_PX
    map_width = round((map_height - HEAD_PX - FOOT_PX) * area.width_m / area.depth_m)
    map_width = min(max(map_width + 2 * SIDE_PX, cell_width), 2 * cell_width)
    from_above = TwinMap(twin, (map_height, map_width))
    step_y = cell_height + CAPTION_PX + MARGIN_PX
    page = np.empty(
        (
            HEADER_PX + len(rows) * step_y + MARGIN_PX,
            panels * (cell_width + MARGIN_PX) + map_width + 2 * MARGIN_PX,
            3,
        ),
        np.uint8,
    )
    page[:] = BACKGROUND
    compose_header(page, title, facts)
    for row, (seen, stamp_ns, caption) in enumerate(rows):
        top, left = HEADER_PX + row * step_y, MARGIN_PX
        cells = [(decoded_panel(view, (cell_height, cell_width)), view.name) for view in seen]
        if with_raw:
            cells.insert(0, (raw_panel(seen[0], (cell_height, cell_width)), seen[0].name))
            cells[1] = (cells[1][0], "anonymized")
        for panel, name in cells:
            page[top : top + cell_height, left : left + cell_width] = panel
            text = fit_text(f"{name} · {caption}", 14, cell_width)
            put_text(page, text, (left, top + cell_height + 5), size=14, colour=MUTED)
            left += cell_width + MARGIN_PX
        page[top : top + map_height, left : left + map_width] = from_above.at(
            stamp_ns, legend=False
        )
    return page
