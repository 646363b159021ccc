# SPDX-License-Identifier: Apache-2.0
"""Opened sources: devices, streams, films, and folders of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2

from roi_codec_ros.common.films import Film, UprightCapture
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.opencv import check_pipeline
from roi_codec_ros.common.photographs import photographs_in, read_photograph
from roi_codec_ros.stream.sources import Source, SourceError, SourceKind

FOLDER_RATE_HZ = 10.0  # images have no rate of their own
STREAM_TIMEOUT_MS = 5000
LIVE = -1  # position of a frame that no file holds
# What paces itself, and tells no number of frames that could be relied on.
_PACED_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp"})


@dataclass(frozen=True)
class Frame:
    """One captured image.

    image: uint8 [H, W, 3] RGB. position: index in its file or folder, -1 from a live source.
    """

    image: ImageArray
    position: int


class FrameReader(Protocol):
    """An opened source: `advance` to the next frame, then `image` if it is wanted."""

    frame_rate_hz: float  # of the source itself; 0 if it has none
    film_frames: int  # of a film that a stream's address names, about; 0 for anything else

    @property
    def position(self) -> int:
        """Of the frame that `advance` came to; -1 live."""

    def advance(self) -> bool:
        """Come to the next frame; False at the end, or when the source is lost."""

    def image(self) -> ImageArray | None:
        """The frame as uint8 [H, W, 3] RGB; None, or PhotographError, if it can't be decoded."""

    def close(self) -> None:
        """Close the source."""


class LiveReader:
    """A device or a stream, through OpenCV; a stream may turn out to be a film on a server."""

    def __init__(self, source: Source, capture_size: tuple[int, int] = (0, 0)) -> None:
        capture = _open_capture(source)
        if not capture.isOpened():
            capture.release()
            raise SourceError(f"expected frames from {source.text}, found nothing that opens")
        if source.kind is SourceKind.DEVICE:
            width, height = capture_size
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            if width:
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            if height:
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._frames = UprightCapture(capture)
        self.frame_rate_hz = self._frames.frame_rate_hz
        self.film_frames = self._film_frames(source)
        self.position = LIVE

    def _film_frames(self, source: Source) -> int:
        scheme = source.target.partition("://")[0].lower()
        if source.kind is not SourceKind.STREAM or "!" in source.target:
            return 0
        if scheme in _PACED_SCHEMES or not self.frame_rate_hz:
            return 0
        count = self._frames.get(cv2.CAP_PROP_FRAME_COUNT)
        return int(count) if 1 <= count < 1e9 else 0

    def advance(self) -> bool:
        """Wait for the next frame; False when the source is lost."""
        if not self._frames.advance():
            return False
        if self.film_frames:
            self.position += 1
        return True

    def image(self) -> ImageArray | None:
        """The frame as uint8 [H, W, 3] RGB; None if it cannot be decoded."""
        return self._frames.image()

    def close(self) -> None:
        """Close the device or stream."""
        self._frames.close()


class FilmReader:
    """A video file."""

    film_frames = 0

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

    def close(self) -> None:
        """Close the file."""
        self._film.close()


class ImageReader:
    """An image file, or a folder of them in the order of their names."""

    frame_rate_hz = 0.0
    film_frames = 0

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

    def close(self) -> None:
        """Nothing is open between images."""
        return None


def open_source(source: Source, capture_size: tuple[int, int] = (0, 0)) -> FrameReader:
    """Open anything but a topic; SourceError if it does not open.

    capture_size: width and height to ask a device for, 0 for its own choice.
    """
    if source.kind is SourceKind.IMAGES:
        return ImageReader(source)
    if source.kind is SourceKind.VIDEO:
        return FilmReader(source)
    return LiveReader(source, capture_size)


def _open_capture(source: Source) -> cv2.VideoCapture:
    if source.kind is SourceKind.DEVICE:
        if source.target.isdecimal():
            return cv2.VideoCapture(int(source.target))
        return cv2.VideoCapture(source.target, cv2.CAP_V4L2)
    if "!" in source.target:
        check_pipeline(source.target)
        return cv2.VideoCapture(source.target, cv2.CAP_GSTREAMER)
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        STREAM_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        STREAM_TIMEOUT_MS,
    ]
    return cv2.VideoCapture(source.target, cv2.CAP_FFMPEG, timeouts)
