# SPDX-License-Identifier: Apache-2.0
"""Checks that all inputs that a robot relies on are present and recent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

EVERY_CAMERA = "*"


@dataclass
class Watched:
    """One input. timeout_s: maximum silence and maximum age of its messages."""

    name: str
    timeout_s: float
    heard_s: float | None = None  # by a steady clock
    age_s: float = 0.0  # age of the last message on arrival

    def heard(self, now_s: float, age_s: float = 0.0) -> None:
        """Record a message with the age of its stamp."""
        self.heard_s, self.age_s = now_s, age_s

    def complaint(self, now_s: float) -> str:
        """The fault of the input; empty if none."""
        if self.heard_s is None:
            return f"nothing on {self.name} yet"
        silent_s = now_s - self.heard_s
        if silent_s > self.timeout_s:
            return f"nothing on {self.name} for {silent_s:.1f} s"
        if self.age_s > self.timeout_s:
            return f"what comes on {self.name} is {self.age_s:.1f} s old"
        if self.age_s < -self.timeout_s:
            return f"what comes on {self.name} is {-self.age_s:.1f} s ahead of this clock"
        return ""


@dataclass
class CamerasWatched:
    """The cameras that must not be blind. required: their names; EVERY_CAMERA means all."""

    required: Sequence[str]
    blind: Mapping[str, str] = field(default_factory=dict)  # camera → why
    known: Sequence[str] = ()

    def heard(self, health: Mapping[str, str]) -> None:
        """health: camera → why it is blind, empty if it is not."""
        self.known = tuple(health)
        self.blind = {name: why for name, why in health.items() if why}

    def complaint(self) -> str:
        """Which of them are blind or unknown; empty if none."""
        names = [name for name in self.required if name]
        if EVERY_CAMERA in names:
            names = sorted({*self.known, *names} - {EVERY_CAMERA})
        said = [
            f"{name}: {self.blind[name]}" if name in self.blind else f"{name}: not known"
            for name in names
            if name in self.blind or name not in self.known
        ]
        return "; ".join(said)
