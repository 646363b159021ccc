# SPDX-License-Identifier: Apache-2.0
"""The reader of films: frames as displayed, with their times.

A film's rotation tag, which phones write, is always applied. Whether OpenCV does so depends on its
version, so that is switched off, and frames are rotated here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import is_photograph

FALLBACK_RATE_HZ = 25.0  # for times of frames in a file that tells neither them nor a rate
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_TEXT_START = 512  # bytes
_CONTROL_CHARACTERS = set(range(32)) - set(b"\t\n\f\r\x1b")  # no text holds one


class FilmError(RoiCodecError):
    """A film that cannot be used. path: which one; reason: what was found instead."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"expected a film at {path}, found {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[FilmError], tuple[Path | str, str]]:
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class FilmProperties:
    """What a film says of itself.

    width, height: of its frames as they are shown, px. rotation_deg: by how much they are turned
    clockwise for that: 0, 90, 180 or 270. frame_rate_hz: 0 if unknown.
    """

    width: int
    height: int
    rotation_deg: int
    frame_rate_hz: float


@dataclass(frozen=True)
class FilmFrame:
    """image: uint8 RGB [H, W, 3], as it is shown. index: from 0. time_s: from the film's start."""

    image: ImageArray
    index: int
    time_s: float


class UprightCapture:
    """The frames of an OpenCV capture (a film, a camera, a stream), RGB and turned upright."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        """capture: opened; it belongs to this object from now on."""
        self._capture = capture
        self.rotation_deg = 0
        if capture.getBackendName() == "FFMPEG":  # others do not support the tag and would warn
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
            self.rotation_deg = _quarter_turns(capture.get(cv2.CAP_PROP_ORIENTATION_META))
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self.frame_rate_hz = rate if np.isfinite(rate) and 0.1 <= rate <= 1000 else 0.0

    def advance(self) -> bool:
        """Advance to the next frame without decoding it; False at the end."""
        return bool(self._capture.grab())

    def image(self) -> ImageArray | None:
        """The frame, uint8 RGB [H, W, 3]; None if it cannot be decoded."""
        decoded, image = self._capture.retrieve()
        if not decoded or image is None:
            return None
        grey = image.ndim == 2 or image.shape[2] == 1
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if grey else cv2.COLOR_BGR2RGB)
        if self.rotation_deg:
            image = cv2.rotate(image, _TURNS[self.rotation_deg])
        return np.asarray(image, np.uint8)

    def get(self, number: int) -> float:
        """One of OpenCV's properties."""
        return float(self._capture.get(number))

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class Film:
    """A film file, read once from its start to its end.

    Either iterate over its frames, or `advance` to each and ask for the `image` of those that are
    wanted, which spares decoding the others. `unreadable` counts frames that could not be decoded
    and were passed over.
    """

    def __init__(self, path: Path | str) -> None:
        """Raises FilmError where there is no such file, or none whose frames can be read."""
        self.path = Path(path)
        check_film(self.path)
        # With its whole path: nothing in the name is taken for a protocol.
        capture = cv2.VideoCapture(str(self.path.absolute()))
        if not capture.isOpened():
            capture.release()
            raise FilmError(path, "nothing that OpenCV can play")
        self._frames = UprightCapture(capture)
        self.properties = self._properties()
        self.unreadable = 0
        self.index = -1
        self.time_s = 0.0

    def _properties(self) -> FilmProperties:
        width = round(self._frames.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = round(self._frames.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if self._frames.rotation_deg in (90, 270):
            width, height = height, width
        return FilmProperties(
            width=width,
            height=height,
            rotation_deg=self._frames.rotation_deg,
            frame_rate_hz=self._frames.frame_rate_hz,
        )

    def advance(self) -> bool:
        """Advance to the next frame; False at the end."""
        if not self._frames.advance():
            return False
        self.index += 1
        self.time_s = self._time_s()
        return True

    def _time_s(self) -> float:
        """The frame's own time; where it has none, one frame after the last."""
        told = self._frames.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if self.index == 0:
            return max(told, 0.0)
        if told > self.time_s:
            return told
        return self.time_s + 1.0 / (self._frames.frame_rate_hz or FALLBACK_RATE_HZ)

    def image(self) -> ImageArray | None:
        """The current frame, uint8 RGB [H, W, 3]; None if it cannot be decoded."""
        image = self._frames.image()
        self.unreadable += image is None
        return image

    def __iter__(self) -> Iterator[FilmFrame]:
        while self.advance():
            image = self.image()
            if image is not None:
                yield FilmFrame(image, self.index, self.time_s)

    def close(self) -> None:
        """Close the file."""
        self._frames.close()

    def __enter__(self) -> Film:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_film(path: Path) -> None:
    """Raises FilmError for what is no film, whatever FFmpeg would make of it."""
    try:
        if path.is_dir():
            raise FilmError(path, "a folder")
        with path.open("rb") as file:
            start = file.read(_TEXT_START)
    except FileNotFoundError:
        raise FilmError(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise FilmError(path, reason_of(error)) from error
    if not start:
        raise FilmError(path, "an empty file")
    if is_photograph(path):
        raise FilmError(path, "a photograph")
    # FFmpeg plays a text as a film of letters, and opens the other files that a list names.
    if not start.startswith(b"YUV4MPEG2") and not set(start) & _CONTROL_CHARACTERS:
        raise FilmError(path, "a text")


def _quarter_turns(angle: float) -> int:
    """The nearest of 0, 90, 180 and 270 degrees."""
    return round(angle / 90) * 90 % 360 if np.isfinite(angle) else 0
