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

FOLDER_RATE_HZ = 10.0  # images have no rate of their own


@dataclass(frozen=True)
class Frame:
    """One captured image.

    image: uint8 [H, W, 3] RGB. position: index in its file or folder, -1 from a live source.
    taken: when; a file's frame is taken when it is played.
    """

    image: ImageArray
    position: int
    taken: CaptureTime


class FrameReader(Protocol):
    """An opened source: `advance` to the next frame, then `image` if it is wanted."""

    frame_rate_hz: float  # of the source itself; 0 if it has none
    film_frames: int  # of a film that a stream's address names, about; 0 for anything else
    complaint: str  # what a device was asked for and does not give; empty for nothing

    @property
    def position(self) -> int:
        """Of the frame that `advance` came to; -1 live."""

    def advance(self) -> bool:
        """Come to the next frame; False at the end, or when the source is lost."""

    def image(self) -> ImageArray | None:
        """The frame as uint8 [H, W, 3] RGB; None, or PhotographError, if it can't be decoded."""

    def taken(self) -> CaptureTime | None:
        """When the frame was taken; None for one that is taken when it is played."""

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
        """Come to the next frame; False at the end."""
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
        """Come to the next image; False at the end."""
        self.position += 1
        return self.position < len(self._files)

    def image(self) -> ImageArray:
        """Raises PhotographError."""
        return read_photograph(self._files[self.position])

    def taken(self) -> None:
        """When it is played."""
        return None

    def close(self) -> None:
        """Nothing is open between images."""
        return None


def open_source(source: Source, asked: CaptureFormat = ANY_FORMAT) -> FrameReader:
    """Open anything but a topic; SourceError if it does not open. asked: of a device."""
    if source.kind is SourceKind.IMAGES:
        return ImageReader(source)
    if source.kind is SourceKind.VIDEO:
        return FilmReader(source)
    return LiveReader(source, asked)
