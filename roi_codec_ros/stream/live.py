# SPDX-License-Identifier: Apache-2.0
"""Cameras: devices and streams, read with OpenCV, and the capture times of their frames.

| source | backend | time of a frame |
| device | V4L2 | of its buffer: when the driver had its first or last byte |
| rtsp, rtp, … | FFmpeg | RTP's, on our clock (capture_times.py) |
| any other | | its arrival |
"""

from __future__ import annotations

import os
import time

import cv2

from roi_codec_ros.common.films import UprightCapture
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.opencv import check_pipeline, quiet
from roi_codec_ros.stream.capture_times import CaptureTime, StreamTimes, driver_time
from roi_codec_ros.stream.sources import (
    ANY_FORMAT,
    LIVE,
    CaptureFormat,
    Source,
    SourceError,
    SourceKind,
)

STREAM_TIMEOUT_MS = 5000
RATE_SHARE = 0.02  # tolerated deviation of a device's frame rate
# Sources that pace themselves and have no reliable number of frames.
PACED_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp"})


class LiveReader:
    """A device or a stream, read with OpenCV; a stream may turn out to be a film on a server.

    complaint: requested settings that a device does not provide; empty if none.
    """

    def __init__(self, source: Source, asked: CaptureFormat = ANY_FORMAT) -> None:
        """Raises SourceError if the source does not open."""
        with quiet():  # OpenCV's own messages are replaced by ours
            capture = _open_capture(source)
        if not capture.isOpened():
            capture.release()
            raise SourceError(_complaint(source))
        self.complaint = ""
        if source.kind is SourceKind.DEVICE:
            self.complaint = _ask(capture, asked)
        self._scheme = source.target.partition("://")[0].lower()
        self._backend = capture.getBackendName()
        self._frames = UprightCapture(capture)
        self.frame_rate_hz = self._frames.frame_rate_hz
        self.film_frames = self._film_frames(source)
        self.position = LIVE
        self._taken = CaptureTime(0.0)
        self._stream_times: StreamTimes | None = None
        if self._backend == "FFMPEG" and self._scheme in PACED_SCHEMES:
            self._stream_times = StreamTimes()

    def _film_frames(self, source: Source) -> int:
        if source.kind is not SourceKind.STREAM or "!" in source.target:
            return 0
        if self._scheme in PACED_SCHEMES or not self.frame_rate_hz:
            return 0
        count = self._frames.get(cv2.CAP_PROP_FRAME_COUNT)
        return int(count) if 1 <= count < 1e9 else 0

    def advance(self) -> bool:
        """Wait for the next frame; False if the source is lost."""
        if not self._frames.advance():
            return False
        self._taken = self._time()
        if self.film_frames:
            self.position += 1
        return True

    def _time(self) -> CaptureTime:
        """Time every frame, used or not: early ones tell how late the others are."""
        arrived_s = time.monotonic()
        if self._backend == "V4L2":
            told_s = self._frames.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            return driver_time(told_s, arrived_s, time.time())
        if self._stream_times is not None:
            told_s = self._frames.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            return self._stream_times.at(told_s, arrived_s)
        return CaptureTime(arrived_s)

    def taken(self) -> CaptureTime | None:
        """Capture time of the frame; None for a film: the time of playback."""
        return None if self.film_frames else self._taken

    def image(self) -> ImageArray | None:
        """The frame as uint8 [H, W, 3] RGB; None if it cannot be decoded."""
        return self._frames.image()

    def close(self) -> None:
        """Close the device or stream."""
        self._frames.close()


def _ask(capture: cv2.VideoCapture, asked: CaptureFormat) -> str:
    """Request a format from a device; returns what it does not provide, empty if nothing.

    The pixel format is set first: sizes and rates depend on it.
    """
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    missed = []
    if asked.pixel_format:
        letters = asked.pixel_format.ljust(4)
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*letters))
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        found = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24))
        if found != letters:
            missed.append(f"pixel_format {asked.pixel_format}, found {found.strip()!r}")
    numbers = [
        ("capture_width", float(asked.width), cv2.CAP_PROP_FRAME_WIDTH),
        ("capture_height", float(asked.height), cv2.CAP_PROP_FRAME_HEIGHT),
        ("capture_fps", asked.fps, cv2.CAP_PROP_FPS),
    ]
    numbers = [item for item in numbers if item[1]]
    for _, wanted, number in numbers:
        capture.set(number, wanted)
    for name, wanted, number in numbers:
        given = capture.get(number)
        if abs(given - wanted) > RATE_SHARE * wanted:
            missed.append(f"{name} {wanted:g}, found {given:g}")
    return f"expected {'; '.join(missed)}" if missed else ""


def _complaint(source: Source) -> str:
    """Why nothing opened, as far as the system says."""
    if source.kind is not SourceKind.DEVICE:
        return f"expected frames from {source.text}, found nothing that opens"
    found = "it gives no frames; does another program hold it?"
    try:
        os.close(os.open(source.target, os.O_RDWR | os.O_NONBLOCK))
    except PermissionError as error:
        found = f"{error.strerror}; is this user in the group video?"
    except OSError as error:
        found = str(error.strerror)
    return f"expected a camera at {source.target}, found: {found}"


def _open_capture(source: Source) -> cv2.VideoCapture:
    if source.kind is SourceKind.DEVICE:
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
