# SPDX-License-Identifier: Apache-2.0
"""Health of a camera's input at one node: whether it can be relied on. No ROS here.

A node publishes a result for every frame that it could use and nothing for any other, so that
subscribers can tell "nobody there" from "cannot see". This module decides the diagnostic level of
that silence:

    level   arrived within the timeout               published
    OK      frames that could be used                results
    WARN    the same, and others that were refused   results, not for all frames
    ERROR   frames, none of which could be used      nothing: the camera is blind, with the reason
    STALE   nothing                                  nothing

All times are of this machine's monotonic clock; stamps are not used.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from roi_codec_ros.stream.statistics import SlidingWindow, Tally


class Level(enum.Enum):
    """Diagnostic levels."""

    OK = "OK"
    WARN = "WARN"
    ERROR = "ERROR"
    STALE = "STALE"


@dataclass(frozen=True)
class Judgement:
    """A level and its message; empty if OK."""

    level: Level
    message: str = ""


@dataclass(frozen=True)
class Words:
    """Phrases for a node's input.

    nothing: "no latent", to which " yet" or " for 3.0 s" is added. refused: "payloads refused".
    unused:
    "latents arrive, none decoded".
    """

    nothing: str
    refused: str
    unused: str


class CameraHealth:
    """Counters of one camera at one node: frames that arrived, were used, or were refused and why.

    Thread-safe.

    arrivals: a value for each frame that arrived (1, or its bits). age_ms: age of used frames
        since capture. refusals: counts by cause. replaced: frames superseded by a newer one.
    """

    def __init__(self, words: Words, clock: Callable[[], float] = time.monotonic) -> None:
        self._words = words
        self._clock = clock
        self.arrivals = SlidingWindow(clock=clock)
        self.age_ms = SlidingWindow(clock=clock)
        self.refusals = Tally()
        self.last_refusal = ""
        self.replaced = 0
        self.restart()

    def restart(self) -> None:
        """Restart the timeouts, as after an activation; counters continue."""
        self._since_s: float | None = None  # deadline of the first frame
        self._heard_s: float | None = None
        self._used_s: float | None = None
        self._refused_s: float | None = None

    def heard(self, value: float = 1.0) -> float:
        """Record an arrival; returns its time in seconds."""
        now_s = self._clock()
        self.arrivals.add(value)
        self._heard_s = now_s
        if self._since_s is None:
            self._since_s = now_s
        return now_s

    def used(self, age_s: float | None = None) -> None:
        """Record a used frame; age_s: since its capture, by clocks that may disagree."""
        self._used_s = self._clock()
        if age_s is not None:
            self.age_ms.add(1e3 * age_s)

    def refuse(self, cause: str, reason: str) -> int:
        """Record a refused frame, or a part of one; returns the count for this cause."""
        self.last_refusal = f"{cause}: {reason}"
        self._refused_s = self._clock()
        return self.refusals.add(cause)

    def sees(self, patience_s: float) -> bool:
        """Whether a frame was used within the timeout; else the camera is blind."""
        return _within(self._age(self._used_s), patience_s)

    def judge(self, patience_s: float) -> Judgement:
        """The level, as in the table above, and why it is not OK."""
        refused = _within(self._age(self._refused_s), patience_s)
        if refused:
            level = Level.WARN if self.sees(patience_s) else Level.ERROR
            return Judgement(level, f"{self._words.refused}: {self.last_refusal}")
        if self.sees(patience_s):
            return Judgement(Level.OK)
        silence_s = self._age(self._heard_s)
        if silence_s is None:
            return Judgement(Level.STALE, f"{self._words.nothing} yet")
        if not _within(silence_s, patience_s):
            return Judgement(Level.STALE, f"{self._words.nothing} for {silence_s:.1f} s")
        idle_s = self._age(self._since_s if self._used_s is None else self._used_s)
        if _within(idle_s, patience_s):  # just started: the first frame is pending
            return Judgement(Level.STALE, f"{self._words.nothing} yet")
        return Judgement(Level.ERROR, f"{self._words.unused} for {idle_s:.1f} s: overloaded")

    def _age(self, then_s: float | None) -> float | None:
        return None if then_s is None else self._clock() - then_s


def unplaceable(placed: int, refused: Mapping[str, int]) -> str:
    """Why a frame says nothing about the floor, from the placement of its persons; else empty.

    placed: number of persons placed on the floor. refused: number of the others by reason, except
        those credibly beyond the camera's range.

    A frame without persons means that nobody is there. A frame with persons of whom none can be
        placed must not be taken for an empty floor: a robot would drive into them.
    """
    count = sum(refused.values())
    if placed or not count:
        return ""
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(refused.items()))
    who = "the one person" if count == 1 else f"none of {count} persons"
    return f"{who} that it sees {'cannot' if count == 1 else 'can'} be placed ({reasons})"


def _within(age_s: float | None, patience_s: float) -> bool:
    return age_s is not None and age_s <= patience_s
