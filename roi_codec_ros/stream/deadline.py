# SPDX-License-Identifier: Apache-2.0
"""Decides whether a waiting frame can still meet its deadline, from recent processing times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from roi_codec_ros.stream.statistics import SlidingWindow


class Expectation:
    """Duration of a step: the median over the last seconds. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._took_ms = SlidingWindow(clock=clock)

    def add(self, took_ms: float) -> None:
        """Record the duration of a step."""
        self._took_ms.add(took_ms)

    @property
    def ms(self) -> float:
        """0 without recent durations, so that a frame is tried."""
        median = self._took_ms.percentile(50)
        return 0.0 if math.isnan(median) else median


def in_time(waited_ms: float, steps_ms: float, deadline_ms: float) -> bool:
    """Whether waiting and remaining time are within the deadline; 0: no deadline."""
    return deadline_ms <= 0 or waited_ms + steps_ms <= deadline_ms
