# SPDX-License-Identifier: Apache-2.0
"""Whether a waiting frame can still be processed in time, judging by recent ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from roi_codec_ros.stream.statistics import SlidingWindow


class Expectation:
    """How long a step takes: the median of the last seconds. Safe between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._took_ms = SlidingWindow(clock=clock)

    def add(self, took_ms: float) -> None:
        """Note how long the step took."""
        self._took_ms.add(took_ms)

    @property
    def ms(self) -> float:
        """0 if there are no recent ones: then it is worth a try."""
        median = self._took_ms.percentile(50)
        return 0.0 if math.isnan(median) else median


def in_time(waited_ms: float, steps_ms: float, deadline_ms: float) -> bool:
    """Whether what waited so long, and takes so long yet, is done within the deadline; 0: none."""
    return deadline_ms <= 0 or waited_ms + steps_ms <= deadline_ms
