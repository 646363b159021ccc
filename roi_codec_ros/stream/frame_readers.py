# SPDX-License-Identifier: Apache-2.0
"""Opened sources: devices, streams, films, and folders of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roi_codec_ros.common.films import Film
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import photographs_in, read_photograph
from roi_codec_ros.stream.capture_times import CaptureTime
from roi_codec_ros.stream.live import LiveReader
from roi_codec_ros.stream.sources import (
    ANY_FORMAT,
    LIVE,
    CaptureFormat,
    Source,
    SourceError,
    SourceKind,
)

FOLDER_RATE_HZ = 10.0  # default rate of images


@dataclass(frozen=True)
class Frame:
    """One captured image.

    image: uint8 [H, W, 3] RGB. position: index in its file or folder, -1 from a live source.
    taken: capture time; for files, the time of playback.
    """

    image: ImageArray
    position: int
    taken: CaptureTime


class FrameReader(Protocol):
    """An opened source: call `advance` for the next frame, then `image` if needed."""

    frame_rate_hz: float  # frame rate of the source; 0 if it has none
    film_frames: int  # approximate length if the address names a film; else 0
    complaint: str  # requested settings that a device does not provide; empty if none

    @property
    def position(self) -> int:
        """Position of the current frame; -1 live."""

    def advance(self) -> bool:
        """Advance to the next frame; False at the end, or if the source is lost."""

    def image(self) -> ImageArray | None:
        """The frame as uint8 [H, W, 3] RGB; None, or PhotographError, if it cannot be decoded."""

    def taken(self) -> CaptureTime | None:
        """Capture time of the frame; None: the time of playback."""

    def close(self) -> None:
        """Close the source."""


class FilmReader:
    """A video file."""

    film_frames = 0
    complaint = ""

    def __init__(self, source: Source) -> None:
        self._film = Film(source.target)
        self.frame_rate_hz = self._film.properties.frame_rate_hz or FOLDER_RATE_HZ

    @property
    def position(self) -> int:
        """Index of the frame."""
        return self._film.index

    def advance(self) -> bool:
        """Advance to the next frame; False at the end."""
        return self._film.advance()

    def image(self) -> ImageArray | None:
        """The frame as uint8 [H, W, 3] RGB; None if it cannot be decoded."""
        return self._film.image()

    def taken(self) -> None:
        """When it is played."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._film.close()


class ImageReader:
    """An image file, or a folder of them in the order of their names."""

    frame_rate_hz = 0.0
    film_frames = 0
    complaint = ""

    def __init__(self, source: Source) -> None:
        path = Path(source.target)
        self._files = photographs_in(path) if path.is_dir() else [path]
        if not self._files:
            raise SourceError(f"expected images in {source.text}, found none")
        self.position = LIVE

    def advance(self) -> bool:
        """Advance to the next image; False at the end."""
        self.position += 1
        return self.position < len(self._files)

    def image(self) -> ImageArray:
        """The image as uint8 [H, W, 3] RGB. Raises PhotographError."""
        return read_photograph(self._files[self.position])

    def taken(self) -> None:
        """When it is played."""
        return None

    def close(self) -> None:
        """Does nothing: no file is open between images."""
        return None


def open_source(source: Source, asked: CaptureFormat = ANY_FORMAT) -> FrameReader:
    """Open any source except a topic. asked: settings for a device. Raises SourceError."""
    if source.kind is SourceKind.IMAGES:
        return ImageReader(source)
    if source.kind is SourceKind.VIDEO:
        return FilmReader(source)
    return LiveReader(source, asked)
