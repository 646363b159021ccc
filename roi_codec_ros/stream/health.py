# SPDX-License-Identifier: Apache-2.0
"""Health of a camera's input at one node: whether anyone may rely on it. No ROS here.

A node publishes something for a frame that it made use of and nothing for any other: who listens
tells "nobody there" from "cannot see" by silence. Here is decided what that silence is called:

    level   what came within the patience            what the camera gives
    OK      frames that were of use                  news
    WARN    the same, and others that were refused   news, not of all frames
    ERROR   frames, none of them of use              nothing: it is blind, and it is said why
    STALE   nothing                                  nothing

All times are of this machine's monotonic clock: stamps are the camera's affair.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from roi_codec_ros.stream.statistics import SlidingWindow, Tally


class Level(enum.Enum):
    """How good something is, as diagnostics have it."""

    OK = "OK"
    WARN = "WARN"
    ERROR = "ERROR"
    STALE = "STALE"


@dataclass(frozen=True)
class Judgement:
    """A level and the sentence for it; empty where all is well."""

    level: Level
    message: str = ""


@dataclass(frozen=True)
class Words:
    """How a node speaks of its input.

    nothing: "no latent", and " yet" or " for 3.0 s" is added. refused: "payloads refused". unused:
    "latents arrive, none decoded".
    """

    nothing: str
    refused: str
    unused: str


class CameraHealth:
    """Counters of one camera at one node: what arrived, what was used, what was refused and why.

    Safe to fill in some threads and read in others.

    arrivals: a value for each frame that came (1, or its bits). age_ms: from the capture of frames
    of use to here. refusals: counts by cause. replaced: frames that a newer one took the place of.
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
        """Restart waiting, as after an activation; counters continue."""
        self._since_s: float | None = None  # of the first frame
        self._heard_s: float | None = None
        self._used_s: float | None = None
        self._refused_s: float | None = None

    def heard(self, value: float = 1.0) -> float:
        """Something came, of whatever use; returns when, in seconds."""
        now_s = self._clock()
        self.arrivals.add(value)
        self._heard_s = now_s
        if self._since_s is None:
            self._since_s = now_s
        return now_s

    def used(self, age_s: float | None = None) -> None:
        """A frame was made use of; age_s: since its capture, by clocks that may disagree."""
        self._used_s = self._clock()
        if age_s is not None:
            self.age_ms.add(1e3 * age_s)

    def refuse(self, cause: str, reason: str) -> int:
        """A frame, or a part of one, was of no use; returns how many were for this cause."""
        self.last_refusal = f"{cause}: {reason}"
        self._refused_s = self._clock()
        return self.refusals.add(cause)

    def sees(self, patience_s: float) -> bool:
        """Whether a frame was of use within the patience: else the camera is blind."""
        return _within(self._age(self._used_s), patience_s)

    def judge(self, patience_s: float) -> Judgement:
        """The level, by the table above, and why it is not OK."""
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
        if _within(idle_s, patience_s):  # only just begun: its first frame is on its way
            return Judgement(Level.STALE, f"{self._words.nothing} yet")
        return Judgement(Level.ERROR, f"{self._words.unused} for {idle_s:.1f} s: too many to do")

    def _age(self, then_s: float | None) -> float | None:
        return None if then_s is None else self._clock() - then_s


def unplaceable(placed: int, refused: Mapping[str, int]) -> str:
    """Why a frame tells nothing of the floor, by what became of the persons in it; else empty.

    placed: how many were placed on the floor. refused: how many were not, by reason; without
    those who are credibly beyond the range that the camera answers for.

    A frame without persons says that nobody is there. One with persons of whom none can be placed
    says that somebody is, and not where: whoever took it for an empty floor would drive into them.
    """
    count = sum(refused.values())
    if placed or not count:
        return ""
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(refused.items()))
    who = "the one person" if count == 1 else f"none of {count} persons"
    return f"{who} that it sees {'cannot' if count == 1 else 'can'} be placed ({reasons})"


def _within(age_s: float | None, patience_s: float) -> bool:
    return age_s is not None and age_s <= patience_s
