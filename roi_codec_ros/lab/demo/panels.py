# SPDX-License-Identifier: Apache-2.0
"""Parts of the demo's pictures: text, camera images, and boxes around people.

Everything here takes and returns RGB uint8 arrays [height, width, 3] and plain numbers; nothing
knows of messages. Boxes are in pixels of the original camera image, positions in metres in the
camera's optical frame (x right, z forward).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
# Bright on dark, distinguishable with colour blindness (after Okabe and Ito).
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

    raw: the camera's picture, None if not available. anonymized: the decoded picture, None
    before the first. original_size: (height, width) that the boxes refer to. captions: one line
    each under the camera's and the anonymized picture.
    """

    name: str
    raw: np.ndarray | None
    anonymized: np.ndarray | None
    original_size: tuple[int, int]
    persons: tuple[PersonMark, ...] = ()
    captions: tuple[str, str] = ("", "")


def person_colour(person: PersonMark, index: int) -> Colour:
    """A colour that stays with a track; untracked persons are coloured in their order."""
    key = person.track_id - 1 if person.track_id > 0 else index
    return PERSON_COLOURS[key % len(PERSON_COLOURS)]


def track_colour(person: PersonMark, index: int) -> Colour:
    """One colour per track, in the map and in all views; grey for untracked persons."""
    return person_colour(person, index) if person.track_id else MUTED


def track_label(person: PersonMark) -> str:
    """Short, as many may stand close together: the track, else how sure the detector is."""
    return f"#{person.track_id}" if person.track_id else f"{100 * person.score:.0f} %"


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
    """The label of a person's box, such as ``#7  91 %``."""
    score = f"{100 * person.score:.0f} %"
    return f"#{person.track_id}  {score}" if person.track_id else score


def anonymized_panel(view: View, size: tuple[int, int], *, tracked: bool = False) -> np.ndarray:
    """The decoded picture with its persons; a dark panel before the first one.

    tracked: persons have the colours of their tracks in the map, and short labels.
    """
    if view.anonymized is None:
        return note_panel(size, "waiting for the first picture")
    panel, place = letterbox(view.anonymized, size)
    style = (track_colour, track_label) if tracked else (person_colour, person_label)
    draw_persons(panel, view.persons, view.original_size, place, *style)
    return panel


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


def raw_panel(view: View, size: tuple[int, int]) -> np.ndarray:
    """The camera's own picture; a dark panel if it is not available."""
    if view.raw is None:
        return note_panel(size, "")
    return letterbox(view.raw, size)[0]


def note_panel(size: tuple[int, int], note: str) -> np.ndarray:
    """A dark panel that says why there is no picture."""
    panel = np.empty((*size, 3), np.uint8)
    panel[:] = PANEL
    put_text(panel, note, (size[1] // 2, size[0] // 2 - 10), colour=MUTED, align="centre")
    return panel
