# SPDX-License-Identifier: Apache-2.0
"""Capture times of frames, from what the driver or the stream says about them.

No ROS here. All times are seconds of this machine's steady clock (`time.monotonic`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from roi_codec_ros.stream.statistics import SlidingLeast

# What a time comes from.
DRIVER, STREAM, ARRIVAL, PLAYED = "driver", "stream", "arrival", "played"
OLDEST_S = 2.0  # a buffer that is older by its own time is timed by a clock that is not ours
WINDOW_S = 5.0
LATEST_S = 0.3
MOST_SLIPS = 3


@dataclass(frozen=True)
class CaptureTime:
    """When a frame was taken, as far as it is known. source: one of the four above."""

    taken_s: float
    source: str = ARRIVAL


def driver_time(told_s: float, arrived_s: float, wall_s: float) -> CaptureTime:
    """Of a V4L2 buffer, whose time is by the steady clock or, of some drivers, by the wall's.

    told_s: what the buffer says. arrived_s, wall_s: now, by `time.monotonic` and `time.time`. A
    time that neither clock can have meant is not believed.
    """
    for now_s in (arrived_s, wall_s):
        if 0.0 <= now_s - told_s <= OLDEST_S:
            return CaptureTime(arrived_s - (now_s - told_s), DRIVER)
    return CaptureTime(arrived_s)


class StreamTimes:
    """The times within a stream (RTP), on our clock.

    They count from an unknown beginning. The frame that was least late of those of the last
    seconds tells how both clocks go together; what the others took longer on their way is then
    known. The least delay of all stays in it: `stamp_offset_s` is for that. Frames that are later
    than LATEST_S, and a stream that has many of them, since it counts frames instead of time, are
    timed by their arrival.
    """

    def __init__(self) -> None:
        self._slips = 0
        self._restart()

    def _restart(self) -> None:
        self._delays = SlidingLeast(WINDOW_S)
        self._told_s = self._taken_s = -math.inf

    def at(self, told_s: float, arrived_s: float) -> CaptureTime:
        """told_s: presentation time of a frame within the stream. What is returned ascends."""
        if told_s <= self._told_s:  # no times at all, or a stream that begins anew
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
