# SPDX-License-Identifier: Apache-2.0
"""The frames of a film that codecs are compared on, as a camera would give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.common.films import FALLBACK_RATE_HZ, Film, FilmError
from roi_codec_ros.common.images import ImageArray

WINDOW = 0.75  # of a picture's sides, that a camera that pans sees


@dataclass(frozen=True, eq=False)
class Clip:
    """images: RGB uint8 [H, W, 3] each, all of one size; rate_hz: how many there are a second."""

    name: str
    images: list[ImageArray]
    rate_hz: float

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.images[0].shape[0], self.images[0].shape[1]

    @property
    def duration_s(self) -> float:
        """Each frame lasts until the next."""
        return len(self.images) / self.rate_hz


def read_clip(
    path: Path,
    *,
    frames: int,
    start_s: float = 0.0,
    rate_hz: float | None = None,
    size: tuple[int, int] | None = None,
    pan_px_s: float = 0.0,
) -> Clip:
    """Some frames of a film.

    Args:
        frames: at most so many.
        start_s: from then on.
        rate_hz: of a film with more a second, frames are left out; None: all are taken.
        size: (width, height) that frames are scaled to.
        pan_px_s: a camera that turns to and fro: a window of three quarters of the picture's
            sides moves over it so fast, in px of what is seen.

    Raises:
        FilmError: there is no such film, or no frame in it.
    """
    images: list[ImageArray] = []
    with Film(path) as film:
        own = film.properties.frame_rate_hz or FALLBACK_RATE_HZ
        rate = min(own, rate_hz or own)
        while len(images) < frames and film.advance():
            if film.time_s < start_s + len(images) / rate - 0.5 / own:
                continue
            image = film.image()
            if image is not None:
                time_s = len(images) / rate
                images.append(_seen(image, size, pan_px_s * time_s if pan_px_s else None))
    if not images:
        found = f"none from {start_s:g} s on" if start_s else "no frame that can be read"
        raise FilmError(path, found)
    return Clip(path.name, images, rate)


def _seen(image: ImageArray, size: tuple[int, int] | None, turned_px: float | None) -> ImageArray:
    """turned_px: how far a camera has turned; None: it stands still."""
    height, width = image.shape[:2]
    across, down = size or (width, height)
    if turned_px is None:
        if (across, down) == (width, height):
            return image
        return np.asarray(cv2.resize(image, (across, down), interpolation=cv2.INTER_AREA))
    window_x, window_y = round(width * WINDOW), round(height * WINDOW)
    room = width - window_x
    along = (turned_px * window_x / across) % (2 * room)
    left = min(along, 2 * room - along)
    centre = (left + (window_x - 1) / 2, (height - 1) / 2)
    window = cv2.getRectSubPix(image, (window_x, window_y), centre)
    return np.asarray(cv2.resize(window, (across, down), interpolation=cv2.INTER_AREA))
