# SPDX-License-Identifier: Apache-2.0
"""Figures over the last seconds, for diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np

WINDOW_S = 5.0


class SlidingWindow:
    """Values of the last few seconds. Safe to fill in one thread and read in another."""

    def __init__(
        self, span_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._span_s = span_s
        self._clock = clock
        self._started = clock()
        self._values: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()

    def add(self, value: float) -> None:
        """Note a value, now."""
        with self._lock:
            self._values.append((self._clock(), value))
            self._forget()

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self._snapshot())

    @property
    def rate_hz(self) -> float:
        """Values per second over the window, or since the start while that is less."""
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
        """Sum of the values per second; 0 while there is nothing."""
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
    """The least of the values of the last so many seconds, by whoever's clock adds them."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._ascending: deque[tuple[float, float]] = deque()  # (when, value); others are beaten

    def add(self, value: float, now_s: float) -> float:
        """Note a value; the least of all that are left."""
        while self._ascending and self._ascending[-1][1] >= value:
            self._ascending.pop()
        self._ascending.append((now_s, value))
        return self.at(now_s, value)

    def at(self, now_s: float, otherwise: float) -> float:
        """The least of those that are left by now; `otherwise` where none is."""
        while self._ascending and now_s - self._ascending[0][0] > self._span_s:
            self._ascending.popleft()
        return self._ascending[0][1] if self._ascending else otherwise

    def clear(self) -> None:
        """Forget all of them."""
        self._ascending.clear()


class Tally:
    """Counts by cause. Safe to fill in one thread and read in another."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, cause: str) -> int:
        """Count one more; returns how many there are now."""
        with self._lock:
            self._counts[cause] += 1
            return self._counts[cause]

    def __getitem__(self, cause: str) -> int:
        return self._counts[cause]

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        with self._lock:
            return dict(sorted(self._counts.items()))
