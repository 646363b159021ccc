# SPDX-License-Identifier: Apache-2.0
"""The demo's pictures: what the camera saw, what the server saw, and where the people are.

Everything here takes and returns RGB uint8 arrays [height, width, 3] and plain numbers; nothing
knows of messages. Boxes are in pixels of the original camera image, positions in metres in the
camera's optical frame (x right, z forward).
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom

BACKGROUND: Colour = (15, 19, 25)
PANEL: Colour = (23, 28, 36)
LINE: Colour = (48, 57, 70)
TEXT: Colour = (234, 238, 243)
MUTED: Colour = (146, 157, 172)
CAMERA: Colour = (255, 122, 102)
SERVER: Colour = (82, 205, 150)
MAP: Colour = (104, 174, 255)
# Bright on dark, and told apart by colour-blind eyes too (after Okabe and Ito).
PERSON_COLOURS: tuple[Colour, ...] = (
    (86, 180, 233),
    (240, 200, 60),
    (90, 210, 160),
    (240, 130, 60),
    (225, 140, 190),
    (160, 160, 255),
    (190, 225, 90),
    (255, 105, 105),
)

MARGIN_PX = 12
DOT_PX = 6
TITLE_PX = 34
CAPTION_PX = 28
MAX_VIDEO_HEIGHT_PX = 1440
NO_POSITION_NOTE = "no positions yet: bearing only"
POSITION_NOTE = "position from assumed person height"
ANONYMIZED = "anonymized: all that the server gets"
NOT_ANONYMIZED = "untrained model: not anonymized"


@dataclass(frozen=True)
class PersonMark:
    """One person as the pictures need it.

    box: x, y, width, height, px of the original image. track_id: 0 = untracked. score: [0, 1].
    position: (x right, z forward) in m, None = unknown. velocity: (x, z) in m/s.
    covariance: row-major 2×2 of the position, m².
    """

    box: tuple[float, float, float, float]
    score: float = 0.0
    track_id: int = 0
    position: tuple[float, float] | None = None
    velocity: tuple[float, float] = (0.0, 0.0)
    covariance: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class View:
    """One camera at one moment.

    raw: the camera's picture, None where it cannot be had. anonymized: the decoded picture, None
    before the first. original_size: (height, width) that the boxes refer to. captions: one line
    each under camera, anonymized and map.
    """

    name: str
    raw: np.ndarray | None
    anonymized: np.ndarray | None
    original_size: tuple[int, int]
    persons: tuple[PersonMark, ...] = ()
    captions: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True)
class MapScale:
    """What the map from above shows: `range_m` ahead of a camera that sees `field_of_view_deg`."""

    range_m: float = 8.0
    field_of_view_deg: float = 60.0


def person_colour(person: PersonMark, index: int) -> Colour:
    """A colour that stays with a track; untracked persons are coloured in their order."""
    key = person.track_id - 1 if person.track_id > 0 else index
    return PERSON_COLOURS[key % len(PERSON_COLOURS)]


# ------------------------------------------------------------------------------------------ text


@functools.lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.load_default(size=size)
    except (TypeError, ImportError):  # Pillow before 10.1 or without FreeType has one size only
        pass
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except (OSError, ImportError):
        return ImageFont.load_default()


@functools.lru_cache(maxsize=1024)
def _text_mask(text: str, size: int) -> np.ndarray:
    """Coverage in [0, 1], float32 [height, width]; texts of one size share their baseline."""
    font = _font(size)
    height = round(size * 1.35)
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    width = max(math.ceil(measure.textlength(text, font=font)) + 2, 1)
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).text((1, round(size * 0.08)), text, fill=255, font=font)
    return np.asarray(canvas, dtype=np.float32) / 255.0


def text_size(text: str, size: int) -> tuple[int, int]:
    """Width and height in px that `put_text` covers."""
    height, width = _text_mask(text, size).shape
    return width, height


def put_text(
    image: np.ndarray,
    text: str,
    position: tuple[int, int],
    *,
    size: int = 15,
    colour: Colour = TEXT,
    align: str = "left",
) -> None:
    """Draw one line of text, its top at position[1]; align: left, centre or right of position[0].

    What falls outside of the image is cut off.
    """
    mask = _text_mask(text, size)
    height, width = mask.shape
    x = position[0] - {"left": 0, "centre": width // 2, "right": width}[align]
    y = position[1]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image.shape[1]), min(y + height, image.shape[0])
    if left >= right or top >= bottom:
        return
    alpha = mask[top - y : bottom - y, left - x : right - x, None]
    region = image[top:bottom, left:right]
    region[:] = (region * (1.0 - alpha) + np.array(colour, np.float32) * alpha + 0.5).astype(
        np.uint8
    )


def fit_text(text: str, size: int, width: int) -> str:
    """The text, cut and ended with dots if it is wider than `width` px."""
    if text_size(text, size)[0] <= width:
        return text
    while text and text_size(text + "...", size)[0] > width:
        text = text[:-1]
    return text.rstrip() + "..."


# --------------------------------------------------------------------------------------- pictures


def letterbox(
    image: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The whole image in a panel of `size` (height, width), and its place x, y, width, height."""
    height, width = size
    scale = min(height / image.shape[0], width / image.shape[1])
    new_width = max(round(image.shape[1] * scale), 1)
    new_height = max(round(image.shape[0] * scale), 1)
    x, y = (width - new_width) // 2, (height - new_height) // 2
    panel = np.empty((height, width, 3), np.uint8)
    panel[:] = PANEL
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    panel[y : y + new_height, x : x + new_width] = cv2.resize(
        image, (new_width, new_height), interpolation=method
    )
    return panel, (x, y, new_width, new_height)


def box_in_panel(
    box: tuple[float, float, float, float],
    original_size: tuple[int, int],
    place: tuple[int, int, int, int],
) -> tuple[int, int, int, int]:
    """A box of the original image as left, top, right, bottom in the panel, cut to the picture."""
    height, width = original_size
    x, y, shown_width, shown_height = place
    scale_x, scale_y = shown_width / max(width, 1), shown_height / max(height, 1)
    left = x + min(max(box[0] * scale_x, 0), shown_width - 1)
    top = y + min(max(box[1] * scale_y, 0), shown_height - 1)
    right = x + min(max((box[0] + box[2]) * scale_x, 0), shown_width - 1)
    bottom = y + min(max((box[1] + box[3]) * scale_y, 0), shown_height - 1)
    return round(left), round(top), round(right), round(bottom)


def person_label(person: PersonMark) -> str:
    """What stands on a person's box, such as ``#7  91 %``."""
    score = f"{100 * person.score:.0f} %"
    return f"#{person.track_id}  {score}" if person.track_id else score


def draw_persons(
    panel: np.ndarray,
    persons: Sequence[PersonMark],
    original_size: tuple[int, int],
    place: tuple[int, int, int, int],
    colour_of: Callable[[PersonMark, int], Colour] = person_colour,
    label_of: Callable[[PersonMark], str] = person_label,
) -> None:
    """Draw boxes and labels onto a panel whose picture lies at `place` (x, y, width, height)."""
    for index, person in enumerate(persons):
        colour = colour_of(person, index)
        left, top, right, bottom = box_in_panel(person.box, original_size, place)
        cv2.rectangle(panel, (left, top), (right, bottom), (0, 0, 0), 4, cv2.LINE_AA)
        cv2.rectangle(panel, (left, top), (right, bottom), colour, 2, cv2.LINE_AA)
    for index, person in enumerate(persons):
        left, top, _, _ = box_in_panel(person.box, original_size, place)
        _draw_chip(panel, label_of(person), left, top, colour_of(person, index))


def _draw_chip(panel: np.ndarray, text: str, left: int, top: int, colour: Colour) -> None:
    width, height = text_size(text, 13)
    chip_top = top - height - 1 if top - height - 1 >= 0 else top + 1
    chip_left = min(max(left - 1, 0), max(panel.shape[1] - width - 8, 0))
    chip = (slice(chip_top, chip_top + height), slice(chip_left, chip_left + width + 8))
    panel[chip] = colour
    put_text(panel, text, (chip_left + 4, chip_top), size=13, colour=(10, 12, 16))


def anonymized_panel(view: View, size: tuple[int, int]) -> np.ndarray:
    """The decoded picture with its persons; a dark panel before the first one."""
    if view.anonymized is None:
        return note_panel(size, "waiting for the first picture")
    panel, place = letterbox(view.anonymized, size)
    draw_persons(panel, view.persons, view.original_size, place)
    return panel


def raw_panel(view: View, size: tuple[int, int]) -> np.ndarray:
    """The camera's own picture; a dark panel where it cannot be had."""
    if view.raw is None:
        return note_panel(size, "")
    return letterbox(view.raw, size)[0]


def note_panel(size: tuple[int, int], note: str) -> np.ndarray:
    """A dark panel that says why there is no picture."""
    panel = np.empty((*size, 3), np.uint8)
    panel[:] = PANEL
    put_text(panel, note, (size[1] // 2, size[0] // 2 - 10), colour=MUTED, align="centre")
    return panel


# ------------------------------------------------------------------------------------------- map


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


def nice_range_m(distances_m: Sequence[float]) -> float:
    """A round range in metres that shows 90 % of the distances or more; 8 m for none."""
    if not len(distances_m):
        return 8.0
    wanted = float(np.percentile(np.asarray(distances_m, dtype=float), 90)) * 1.1
    return next((step for step in (4.0, 6.0, 8.0, 12.0, 16.0, 24.0) if step >= wanted), 32.0)


def ring_step_m(range_m: float) -> float:
    """Metres between the range rings: three to five rings in every range."""
    return next(step for step in (1.0, 2.0, 3.0, 4.0, 6.0, 8.0) if range_m / step <= 5)


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


def bearing_rad(
    box: tuple[float, float, float, float], width: int, field_of_view_deg: float
) -> float:
    """Angle of the box's middle to the optical axis in rad, right positive."""
    focal_px = width / 2 / math.tan(math.radians(field_of_view_deg) / 2)
    return math.atan2(box[0] + box[2] / 2 - width / 2, focal_px)


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
        cv2.line(picture, _fixed(ends[0]), _fixed(ends[1]), colour, 2, cv2.LINE_AA, shift=4)


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
        cv2.circle(picture, _fixed(point), radius + 32, BACKGROUND, -1, cv2.LINE_AA, shift=4)
        cv2.circle(picture, _fixed(point), radius, colour, -1, cv2.LINE_AA, shift=4)
    else:
        cv2.circle(picture, _fixed(point), radius, colour, 2, cv2.LINE_AA, shift=4)


def _on_the_map(geometry: Geometry, person: PersonMark) -> tuple[tuple[float, float], bool]:
    """Where a person's mark goes, at the border if it lies beyond, and whether it lies inside."""
    assert person.position is not None
    column, row = geometry.pixel(*person.position)
    height, width = geometry.size
    point = (min(max(column, 10), width - 10), min(max(row, 10), height - 10))
    return point, point == (column, row)


def mark_rectangle(geometry: Geometry, person: PersonMark, radius_px: int = DOT_PX) -> Rectangle:
    """What a person's dot covers."""
    (column, row), _ = _on_the_map(geometry, person)
    reach = radius_px + 1
    return (
        round(column) - reach, round(row) - reach, round(column) + reach, round(row) + reach
    )  # fmt: skip


def _draw_distance(
    picture: np.ndarray, geometry: MapGeometry, person: PersonMark, taken: Sequence[Rectangle]
) -> Rectangle:
    """Write the distance beside the mark, where no other is written; what it covers."""
    assert person.position is not None
    name = f"#{person.track_id}  " if person.track_id else ""
    label = f"{name}{math.hypot(*person.position):.1f} m"
    return draw_label(picture, geometry, person, label, taken)


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
    free = [place for place in fitting if not any(_overlap(place, other) for other in taken)]
    chosen = (free or fitting or places)[0]
    put_text(picture, label, chosen[:2], size=size, colour=TEXT)
    return chosen


def _overlap(one: Rectangle, other: Rectangle) -> bool:
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
        picture, _fixed(start), _fixed(end), colour, 2, cv2.LINE_AA, shift=4, tipLength=0.25
    )


def _fixed(point: tuple[float, float]) -> tuple[int, int]:
    """A sub-pixel point in the fixed-point numbers of OpenCV with shift=4."""
    return round(point[0] * 16), round(point[1] * 16)


# ------------------------------------------------------------------------------------ composition


@dataclass(frozen=True)
class SideBySide:
    """A video's layout: a row per camera with camera (if `with_raw`), anonymized, map.

    panel_size: (height, width) of each picture in px.
    """

    cameras: int
    panel_size: tuple[int, int] = (360, 480)
    with_raw: bool = True
    maps: dict[str, MapScale] = field(default_factory=dict)
    map_note: str = POSITION_NOTE
    decoded_title: str = ANONYMIZED

    @classmethod
    def for_aspect(
        cls, cameras: int, original_size: tuple[int, int], **options: Any
    ) -> SideBySide:
        """Panels 480 px wide, or smaller where many cameras would make too tall a video."""
        height, width = original_size
        room = MAX_VIDEO_HEIGHT_PX / max(cameras, 1) - TITLE_PX - CAPTION_PX - MARGIN_PX
        panel_width = min(480.0, max(room, 90) * width / max(height, 1))
        panel_height = panel_width * height / max(width, 1)
        even_height = max(2 * round(panel_height / 2), 90)
        return cls(cameras, (even_height, 2 * round(panel_width / 2)), **options)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole picture; even, as video codecs want it."""
        panels = 3 if self.with_raw else 2
        row = TITLE_PX + self.panel_size[0] + CAPTION_PX
        height = self.cameras * row + MARGIN_PX
        width = panels * self.panel_size[1] + (panels + 1) * MARGIN_PX
        return height + height % 2, width + width % 2

    def compose(self, views: Sequence[View]) -> np.ndarray:
        """One picture of all cameras, uint8 [*size, 3]."""
        picture = np.empty((*self.size, 3), np.uint8)
        picture[:] = BACKGROUND
        for row, view in enumerate(views):
            self._compose_row(picture, row * (TITLE_PX + self.panel_size[0] + CAPTION_PX), view)
        return picture

    def _compose_row(self, picture: np.ndarray, top: int, view: View) -> None:
        scale = self.maps.get(view.name, MapScale())
        from_above = map_panel(view.persons, view.original_size, self.panel_size, scale)
        unknown = view.persons and all(person.position is None for person in view.persons)
        note = NO_POSITION_NOTE if unknown else self.map_note
        columns = [
            (self.decoded_title, SERVER, anonymized_panel),
            ("map from above", MAP, lambda *_: from_above),
        ]
        captions = [view.captions[1], view.captions[2] or note]
        if self.with_raw:
            columns.insert(0, (f"{view.name}: stays in the camera", CAMERA, raw_panel))
            captions.insert(0, view.captions[0])
        else:
            columns[0] = (f"{view.name}, {self.decoded_title}", SERVER, anonymized_panel)
        height, width = self.panel_size
        for column, ((title, colour, make), caption) in enumerate(
            zip(columns, captions, strict=True)
        ):
            left = MARGIN_PX + column * (width + MARGIN_PX)
            middle = (left + 6, top + TITLE_PX // 2 + 1)
            cv2.circle(picture, middle, 5, colour, -1, cv2.LINE_AA)
            title = fit_text(title, 16, width - 20)
            put_text(picture, title, (left + 18, top + 7), size=16)
            place = slice(top + TITLE_PX, top + TITLE_PX + height), slice(left, left + width)
            picture[place] = make(view, self.panel_size)
            caption = fit_text(caption, 14, width)
            put_text(picture, caption, (left, top + TITLE_PX + height + 5), size=14, colour=MUTED)


def contact_sheet(
    moments: Sequence[View],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    columns: int = 4,
    cell_width: int = 360,
) -> np.ndarray:
    """Moments of a run on one page: the camera above, the anonymized picture below, a caption.

    facts: pairs of a figure and what it is, set large under the title. The caption of a moment is
    its third one. Moments without a raw picture show the anonymized one alone.
    """
    if not moments:
        raise ValueError("expected at least one moment, found none")
    columns = min(columns, len(moments))
    rows = math.ceil(len(moments) / columns)
    with_raw = any(moment.raw is not None for moment in moments)
    height, width = Counter(moment.original_size for moment in moments).most_common(1)[0][0]
    cell_height = max(round(cell_width * height / max(width, 1)), 60)
    step_y = (2 if with_raw else 1) * (cell_height + 4) + CAPTION_PX + MARGIN_PX
    header = 118 if facts else 64
    page = np.empty(
        (header + rows * step_y + MARGIN_PX, columns * (cell_width + MARGIN_PX) + MARGIN_PX, 3),
        np.uint8,
    )
    page[:] = BACKGROUND
    compose_header(page, title, facts)
    for index, moment in enumerate(moments):
        left = MARGIN_PX + (index % columns) * (cell_width + MARGIN_PX)
        top = header + (index // columns) * step_y
        panels = [anonymized_panel(moment, (cell_height, cell_width))]
        if with_raw:
            panels.insert(0, raw_panel(moment, (cell_height, cell_width)))
        for panel in panels:
            page[top : top + cell_height, left : left + cell_width] = panel
            top += cell_height + 4
        caption = fit_text(moment.captions[2], 14, cell_width)
        put_text(page, caption, (left, top + 3), size=14, colour=MUTED)
    return page


def compose_header(page: np.ndarray, title: str, facts: Sequence[tuple[str, str]]) -> None:
    """The head of a page: its title, and below it large figures with what they are."""
    put_text(page, title, (MARGIN_PX, 14), size=24)
    room = (page.shape[1] - 2 * MARGIN_PX) // max(len(facts), 1)
    for index, (figure, meaning) in enumerate(facts):
        left = MARGIN_PX + index * room
        put_text(page, fit_text(figure, 22, room - 8), (left, 54), size=22, colour=SERVER)
        put_text(page, fit_text(meaning, 13, room - 8), (left, 84), size=13, colour=MUTED)
