# SPDX-License-Identifier: Apache-2.0
"""Where frames come from: devices, video files, images, folders and streams, read in a thread.

No ROS here. A topic source is told apart by `parse_source` and then left to the node.
"""

from __future__ import annotations

import enum
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.films import Film, UprightCapture
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import (
    PhotographError,
    is_photograph,
    photographs_in,
    read_photograph,
)
from roi_codec_ros.common.share import local_path

FOLDER_RATE_HZ = 10.0  # images have no rate of their own
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 1.5  # a camera that is back is not waited for any longer
STREAM_TIMEOUT_MS = 5000
LIVE = -1  # position of a frame that no file holds
TOPIC_PREFIX = "topic:"
DEFAULT_IMAGE_TOPIC = "image_raw"
_LOCAL_ADDRESSES = ("file://", "package://")
# What paces itself, and tells no number of frames that could be relied on.
_PACED_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp"})
CUT_OFF = 0.9  # of its frames; a film from the network that ends earlier did not end by itself
_LOGIN = re.compile(r"://[^/@\s]+@")


class SourceError(RoiCodecError):
    """A source can not be opened, or gave no more frames."""


class SourceKind(enum.Enum):
    DEVICE = "device"
    VIDEO = "video"
    IMAGES = "images"
    STREAM = "stream"
    TOPIC = "topic"


@dataclass(frozen=True)
class Source:
    """A source as the user wrote it, and what it is.

    text: for people to read, in logs and on topics: without the login that an address may hold.
    target: device number or path, file, folder, address, pipeline or topic name.
    """

    text: str
    kind: SourceKind
    target: str

    @property
    def live(self) -> bool:
        """Whether frames come in their own time and cannot be read again."""
        return self.kind not in (SourceKind.VIDEO, SourceKind.IMAGES)


def parse_source(text: str) -> Source:
    """Tell what a `source` parameter names; SourceError if it can be nothing of the kind.

    Devices and streams are not touched: a camera may be plugged in later. Files must exist, also
    those named by file:///… and package://PACKAGE/….
    """
    text = text.strip()
    if text == "topic" or text.startswith(TOPIC_PREFIX):
        topic = text.removeprefix("topic").removeprefix(":").strip()
        return Source(text, SourceKind.TOPIC, topic or DEFAULT_IMAGE_TOPIC)
    if text.isdecimal() or text.startswith("/dev/"):
        return Source(text, SourceKind.DEVICE, text)
    if text.lower().startswith(_LOCAL_ADDRESSES):
        scheme, rest = text.split("://", 1)
        path = local_path(f"{scheme.lower()}://{rest}")
        if str(path).startswith("/dev/"):
            return Source(text, SourceKind.DEVICE, str(path))
    elif "://" in text or "!" in text:
        return Source(_LOGIN.sub("://…@", text), SourceKind.STREAM, text)
    else:
        path = Path(text).expanduser()
    if text and path.is_dir():
        if not photographs_in(path):
            raise SourceError(f"source: expected images in folder {path}, found none")
        return Source(text, SourceKind.IMAGES, str(path))
    if path.is_file():
        kind = SourceKind.IMAGES if is_photograph(path) else SourceKind.VIDEO
        return Source(text, kind, str(path))
    raise SourceError(
        "source: expected a device, a file, a folder, a stream address or topic:NAME, "
        f"found {text!r} (no such file)"
    )


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


class RateLimiter:
    """Lets frames through at most at a rate on average; a little early is in time."""

    EARLY = 0.1  # of a period, so that a camera's jitter does not halve its rate

    def __init__(self) -> None:
        self._next_s: float | None = None

    def allows(self, time_s: float, rate_hz: float) -> bool:
        """Whether a frame of this time may pass. rate_hz 0: every frame."""
        if rate_hz <= 0:
            self._next_s = None
            return True
        period = 1.0 / rate_hz
        if self._next_s is None:
            self._next_s = time_s + period
            return True
        if time_s < self._next_s - self.EARLY * period:
            return False
        late = time_s > self._next_s + period
        self._next_s = time_s + period if late else self._next_s + period
        return True


@dataclass(frozen=True)
class SourceState:
    """How a capture is doing. state: "opening", "running", "lost" or "ended".

    unreadable: frames that could not be decoded; the last of them is `last_unreadable`.
    """

    state: str = "opening"
    detail: str = ""
    losses: int = 0
    unreadable: int = 0
    last_unreadable: str = ""


class Capture:
    """Reads a source in a thread of its own and delivers its frames, until stopped.

    Files play in real time. A source that fails is opened again after 0.5 s, then after twice as
    long each time, up to 1.5 s. `rate_hz` and `loop` may be set while it runs; `loop` set after
    the end starts the file again.
    """

    def __init__(
        self,
        source: Source,
        deliver: Callable[[Frame], None],
        *,
        rate_hz: float = 0.0,
        loop: bool = True,
        capture_size: tuple[int, int] = (0, 0),
        open_reader: Callable[[Source, tuple[int, int]], FrameReader] = open_source,
    ) -> None:
        self.source = source
        self.rate_hz = rate_hz
        self._deliver = deliver
        self._capture_size = capture_size
        self._open_reader = open_reader
        self._state = SourceState()
        self._delivered = 0
        self._stop = threading.Event()
        self._again = threading.Event()  # set: what has ended starts anew
        self.loop = loop
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    @property
    def state(self) -> SourceState:
        """How the source does, for diagnostics."""
        return self._state

    @property
    def loop(self) -> bool:
        """Whether a source that has ended starts again."""
        return self._again.is_set()

    @loop.setter
    def loop(self, loop: bool) -> None:
        (self._again.set if loop else self._again.clear)()

    def start(self) -> None:
        """Start reading, in a thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End the thread; False if it still hangs in a driver after the timeout."""
        self._stop.set()
        self._again.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        wait_s = FIRST_RETRY_S
        while not self._stop.is_set():
            delivered_before = self._delivered
            try:
                reason = self._play()
            except (RoiCodecError, cv2.error, OSError) as error:
                reason = " ".join(str(error).split())
            if self._stop.is_set():
                return
            if reason is None:
                self._state = replace(self._state, state="ended", detail="")
                self._again.wait()
                continue
            if self._delivered > delivered_before:
                wait_s = FIRST_RETRY_S
            self._state = replace(
                self._state,
                state="lost",
                detail=f"{reason}; next try in {wait_s:g} s",
                losses=self._state.losses + 1,
            )
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, LAST_RETRY_S)

    def _play(self) -> str | None:
        """Play the source to its end; None if it ended as it should, else what is wrong."""
        while True:
            reader = self._open_reader(self.source, self._capture_size)
            try:
                if self.source.live and not reader.film_frames:
                    self._play_live(reader)
                    return f"{self.source.text} gives no more frames"
                delivered = self._play_film(reader)
            finally:
                reader.close()
            if self._stop.is_set():
                return None
            if not delivered:
                first = f": {self._state.last_unreadable}" if self._state.unreadable else ""
                return f"no frame of {self.source.text} can be read{first}"
            if reader.position + 1 < CUT_OFF * reader.film_frames:
                played = reader.position + 1
                return f"{self.source.text} gave {played} of about {reader.film_frames} frames"
            if not self.loop:
                return None

    def _play_live(self, reader: FrameReader) -> None:
        limiter = RateLimiter()
        while not self._stop.is_set() and reader.advance():
            if limiter.allows(time.monotonic(), self.rate_hz):
                self._hand_on(reader)

    def _play_film(self, reader: FrameReader) -> int:
        """Play a file or folder once, in real time; returns how many frames were delivered."""
        limiter = RateLimiter()
        delivered_before = self._delivered
        due_s = time.monotonic()
        media_s = 0.0
        while not self._stop.is_set() and reader.advance():
            step_s = 1.0 / (reader.frame_rate_hz or self.rate_hz or FOLDER_RATE_HZ)
            if not reader.frame_rate_hz or limiter.allows(media_s, self.rate_hz):
                self._stop.wait(max(0.0, due_s - time.monotonic()))
                if self._stop.is_set():
                    break
                self._hand_on(reader)
            media_s += step_s
            # A reader that can not keep up starts late, it never hurries to catch up.
            due_s = max(due_s + step_s, time.monotonic() - step_s)
        self._stop.wait(max(0.0, due_s - time.monotonic()))
        return self._delivered - delivered_before

    def _hand_on(self, reader: FrameReader) -> None:
        reason = f"frame {reader.position} of {self.source.text}"
        try:
            image = reader.image()
        except PhotographError as error:
            image, reason = None, str(error)
        if image is None:
            count = self._state.unreadable + 1
            self._state = replace(self._state, unreadable=count, last_unreadable=reason)
            return
        self._delivered += 1
        if self._state.state != "running":
            self._state = replace(self._state, state="running", detail="")
        self._deliver(Frame(image, reader.position))


def _open_capture(source: Source) -> cv2.VideoCapture:
    if source.kind is SourceKind.DEVICE:
        if source.target.isdecimal():
            return cv2.VideoCapture(int(source.target))
        return cv2.VideoCapture(source.target, cv2.CAP_V4L2)
    if "!" in source.target:
        return cv2.VideoCapture(source.target, cv2.CAP_GSTREAMER)
    timeouts = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        STREAM_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        STREAM_TIMEOUT_MS,
    ]
    return cv2.VideoCapture(source.target, cv2.CAP_FFMPEG, timeouts)
