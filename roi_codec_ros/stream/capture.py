# SPDX-License-Identifier: Apache-2.0
"""Reads a source in its own thread, in real time, and reopens it when it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.photographs import PhotographError
from roi_codec_ros.stream.capture_times import PLAYED, CaptureTime
from roi_codec_ros.stream.frame_readers import FOLDER_RATE_HZ, Frame, FrameReader, open_source
from roi_codec_ros.stream.sources import ANY_FORMAT, CaptureFormat, Source

FIRST_RETRY_S, LAST_RETRY_S = 0.5, 1.5  # longest wait before the next try
CUT_OFF = 0.9  # of its frames; a film from the network that ends earlier counts as interrupted


class RateLimiter:
    """Passes frames at no more than a rate on average; slightly early frames count as on time."""

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
    """State of a capture. state: "opening", "running", "lost" or "ended".

    unreadable: frames that could not be decoded; the last of them is `last_unreadable`. timed_by:
        source of the last frame's time, as in `CaptureTime`; complaint: as in `FrameReader`.
    """

    state: str = "opening"
    detail: str = ""
    losses: int = 0
    unreadable: int = 0
    last_unreadable: str = ""
    timed_by: str = ""
    complaint: str = ""


class Capture:
    """Reads a source in its own thread and delivers its frames until stopped.

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
        asked: CaptureFormat = ANY_FORMAT,
        open_reader: Callable[[Source, CaptureFormat], FrameReader] = open_source,
        lost: Callable[[str], None] | None = None,
    ) -> None:
        """lost: told, in the thread, why the source fails; once for each reason in a row."""
        self.source = source
        self.rate_hz = rate_hz
        self._deliver = deliver
        self._asked = asked
        self._open_reader = open_reader
        self._lost = lost
        self._state = SourceState()
        self._delivered = 0
        self._stop = threading.Event()
        self._again = threading.Event()  # set: restart an ended source
        self.loop = loop
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    @property
    def state(self) -> SourceState:
        """State of the source, for diagnostics."""
        return self._state

    @property
    def loop(self) -> bool:
        """Whether an ended source is restarted."""
        return self._again.is_set()

    @loop.setter
    def loop(self, loop: bool) -> None:
        """Also restarts a source that has already ended."""
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
        wait_s, told = FIRST_RETRY_S, ""
        while not self._stop.is_set():
            delivered_before = self._delivered
            try:
                reason = self._play()
            except (RoiCodecError, cv2.error, OSError) as error:
                reason = reason_of(error)
            if self._stop.is_set():
                return
            if reason is None:
                self._state = replace(self._state, state="ended", detail="")
                self._again.wait()
                continue
            if self._delivered > delivered_before:
                wait_s, told = FIRST_RETRY_S, ""
            if self._lost is not None and reason != told:
                self._lost(reason)
            told = reason
            self._state = replace(
                self._state,
                state="lost",
                detail=f"{reason}; next try in {wait_s:g} s",
                losses=self._state.losses + 1,
            )
            self._stop.wait(wait_s)
            wait_s = min(2 * wait_s, LAST_RETRY_S)

    def _play(self) -> str | None:
        """Play the source to its end; returns None for a regular end, else the fault."""
        while True:
            reader = self._open_reader(self.source, self._asked)
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
            # A reader that cannot keep up falls behind; it does not try to catch up.
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
        taken = reader.taken() or CaptureTime(time.monotonic(), PLAYED)
        state = ("running", taken.source, reader.complaint)
        if state != (self._state.state, self._state.timed_by, self._state.complaint):
            self._state = replace(
                self._state,
                state="running",
                detail="",
                timed_by=taken.source,
                complaint=reader.complaint,
            )
        self._deliver(Frame(image, reader.position, taken))
