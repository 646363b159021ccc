# SPDX-License-Identifier: Apache-2.0
"""Whether all inputs that a robot relies on are present and recent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

EVERY_CAMERA = "*"


@dataclass
class Watched:
    """One input. timeout_s: how long it may be silent, and how old what comes may be."""

    name: str
    timeout_s: float
    heard_s: float | None = None  # by a steady clock
    age_s: float = 0.0  # of the last message, when it came

    def heard(self, now_s: float, age_s: float = 0.0) -> None:
        """A message came, whose stamp was so old by then."""
        self.heard_s, self.age_s = now_s, age_s

    def complaint(self, now_s: float) -> str:
        """What is wrong with it; empty for nothing."""
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
    """The cameras that must not be blind. required: their names, EVERY_CAMERA among them: all."""

    required: Sequence[str]
    blind: Mapping[str, str] = field(default_factory=dict)  # camera → why
    known: Sequence[str] = ()

    def heard(self, health: Mapping[str, str]) -> None:
        """health: camera → why it is blind, empty if it is not."""
        self.known = tuple(health)
        self.blind = {name: why for name, why in health.items() if why}

    def complaint(self) -> str:
        """Which of them are blind, or not known; empty for none."""
        names = [name for name in self.required if name]
        if EVERY_CAMERA in names:
            names = sorted({*self.known, *names} - {EVERY_CAMERA})
        said = [
            f"{name}: {self.blind[name]}" if name in self.blind else f"{name}: not known"
            for name in names
            if name in self.blind or name not in self.known
        ]
        return "; ".join(said)
