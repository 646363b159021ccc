# SPDX-License-Identifier: Apache-2.0
"""Statistics over the last seconds, for diagnostics."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np

WINDOW_S = 5.0


class SlidingWindow:
    """Values of the last few seconds. Thread-safe."""

    def __init__(
        self, span_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._span_s = span_s
        self._clock = clock
        self._started = clock()
        self._values: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        """Record a value, now."""
        with self._lock:
            self._values.append((self._clock(), value))
            self._forget()

    @property
    def count(self) -> int:
        """Number of values."""
        return len(self._snapshot())

    @property
    def rate_hz(self) -> float:
        """Values per second over the window, or since the start if that is shorter."""
        with self._lock:
            self._forget()
            elapsed = min(self._span_s, self._clock() - self._started)
            return len(self._values) / elapsed if elapsed > 0 else 0.0

    @property
    def mean(self) -> float:
        """NaN while there is nothing."""
        values = self._snapshot()
        return float(np.mean(values)) if values else float("nan")

    @property
    def total_per_s(self) -> float:
        """Sum of the values per second; 0 without values."""
        values = self._snapshot()
        return float(np.mean(values)) * self.rate_hz if values else 0.0

    def percentile(self, percent: float) -> float:
        """NaN while there is nothing."""
        values = self._snapshot()
        return float(np.percentile(values, percent)) if values else float("nan")

    def _snapshot(self) -> list[float]:
        with self._lock:
            self._forget()
            return [value for _, value in self._values]

    def _forget(self) -> None:
        oldest = self._clock() - self._span_s
        while self._values and self._values[0][0] < oldest:
            self._values.popleft()


class SlidingLeast:
    """The minimum of the values in a time window, by the clock of the caller."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._ascending: deque[tuple[float, float]] = deque()  # time, value

    def add(self, value: float, now_s: float) -> float:
        """Record a value; returns the minimum of the window."""
        while self._ascending and self._ascending[-1][1] >= value:
            self._ascending.pop()
        self._ascending.append((now_s, value))
        return self.at(now_s, value)

    def at(self, now_s: float, otherwise: float) -> float:
        """The minimum of the window now; `otherwise` if it is empty."""
        while self._ascending and now_s - self._ascending[0][0] > self._span_s:
            self._ascending.popleft()
        return self._ascending[0][1] if self._ascending else otherwise

    def clear(self) -> None:
        """Forget all values."""
        self._ascending.clear()


class Tally:
    """Counts by cause. Thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, cause: str) -> int:
        """Count one more; returns the new count."""
        with self._lock:
            self._counts[cause] += 1
            return self._counts[cause]

    def __getitem__(self, cause: str) -> int:
        return self._counts[cause]

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        with self._lock:
            return dict(sorted(self._counts.items()))


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
