# SPDX-License-Identifier: Apache-2.0
"""Capture times of frames, from the driver's or the stream's time stamps.

No ROS here. All times are seconds of this machine's steady clock (`time.monotonic`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from roi_codec_ros.stream.statistics import SlidingLeast

# Source of a capture time.
DRIVER, STREAM, ARRIVAL, PLAYED = "driver", "stream", "arrival", "played"
OLDEST_S = 2.0  # a buffer stamp older than this is from another clock
WINDOW_S = 5.0
LATEST_S = 0.3
MOST_SLIPS = 3


@dataclass(frozen=True)
class CaptureTime:
    """Capture time of a frame, as far as it is known. source: one of the four above."""

    taken_s: float
    source: str = ARRIVAL


def driver_time(told_s: float, arrived_s: float, wall_s: float) -> CaptureTime:
    """Capture time of a V4L2 buffer, stamped by the monotonic clock or, by some drivers, the wall
    clock.

    told_s: the buffer's stamp. arrived_s, wall_s: now, by `time.monotonic` and `time.time`. A
        stamp that fits neither clock is ignored.
    """
    for now_s in (arrived_s, wall_s):
        if 0.0 <= now_s - told_s <= OLDEST_S:
            return CaptureTime(arrived_s - (now_s - told_s), DRIVER)
    return CaptureTime(arrived_s)


class StreamTimes:
    """Converts the times of a stream (RTP) to our clock.

    Their origin is unknown. The frame with the least delay in the last seconds determines the
    offset between the clocks, and with it the additional delay of the others. The least delay
    itself remains unknown: correct it with `stamp_offset_s`. Frames later than LATEST_S, and
    streams with many of them (which count frames instead of time), are timed by their arrival.
    """

    def __init__(self) -> None:
        self._slips = 0
        self._restart()

    def _restart(self) -> None:
        self._delays = SlidingLeast(WINDOW_S)
        self._told_s = self._taken_s = -math.inf

    def at(self, told_s: float, arrived_s: float) -> CaptureTime:
        """told_s: presentation time of a frame in the stream. Returned times ascend."""
        if told_s <= self._told_s:  # no time stamps, or a restarted stream
            self._restart()
        delay_s = arrived_s - told_s
        late_s = delay_s - self._delays.add(delay_s, arrived_s)
        self._told_s = told_s
        if late_s > LATEST_S:
            self._slips += 1
            self._restart()
        if late_s > LATEST_S or self._slips > MOST_SLIPS or told_s <= 0.0:
            return CaptureTime(arrived_s)
        self._taken_s = min(arrived_s, max(arrived_s - late_s, self._taken_s + 1e-3))
        return CaptureTime(self._taken_s, STREAM)
