# SPDX-License-Identifier: Apache-2.0
"""Distinguishes a camera's next frame from recorded, delayed and forged ones.

No ROS here. What a frame says of itself is all there is to judge by: without DDS security a forger
picks newer numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

DUPLICATE = "duplicate"
LATE = "late"
REPLAYED = "replayed"
SECOND_ENCODER = "second_encoder"
STAMP_NOT_NEWER = "stamp_not_newer"
STALE = "stale"
AHEAD = "ahead"
CAUSES = (DUPLICATE, LATE, REPLAYED, SECOND_ENCODER, STAMP_NOT_NEWER, STALE, AHEAD)
_REMEMBERED = 256  # skipped frames that may still come


@dataclass(frozen=True)
class Refusal:
    """Why a frame is not taken. cause: one of CAUSES; reason: what was expected and found."""

    cause: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What becomes of a frame.

    refusal: why it is not taken, None if it is. restart: how the stream began anew with it; empty
    if it goes on. lost: how many frames more are known to be missing since the last one; -1 for
    one that had been counted so and came late.
    """

    refusal: Refusal | None = None
    restart: str = ""
    lost: int = 0


@dataclass(frozen=True)
class _Accepted:
    stamp_ns: int
    sequence: int
    heard_s: float


class FreshnessGuard:
    """Follows one camera's stream by its stamps (capture time) and sequence (its encoder's count).

    A frame is taken if it is the first one, if stamp and sequence are both newer than those of
    the last one taken, if its stamp is newer by `restart_after_s` (an encoder that began anew, the
    live camera beside a recording), or if nothing was taken for `restart_after_s` (a clock that
    was set back), but never the last one again. Whatever is refused changes nothing of that: a
    flood of it cannot push the camera out, and no camera is locked out for longer than that
    silence lasts.

    lost: frames that the encoder counted and that never came. restarts: how often the stream began
    anew; last_restart: how.
    """

    def __init__(self) -> None:
        self._last: _Accepted | None = None
        self._skipped: OrderedDict[int, None] = OrderedDict()
        self.lost = 0
        self.restarts = 0
        self.last_restart = ""

    def check(
        self,
        stamp_ns: int,
        sequence: int,
        *,
        heard_s: float,
        age_s: float = 0.0,
        restart_after_s: float = 1.0,
        max_age_s: float = 0.0,
    ) -> Verdict:
        """Whether a frame is accepted; if so, the following ones are compared with it.

        stamp_ns: capture time. sequence: counts up with every frame of one encoder. heard_s: a
        monotonic time in seconds. age_s: the stamp's age by this machine's clock, negative for one
        from the future. restart_after_s 0 takes frames in any order; max_age_s 0 takes any age,
        and anything else needs a camera and a server whose clocks agree.
        """
        verdict = Verdict(_check_age(age_s, max_age_s) if max_age_s > 0 else None)
        if verdict.refusal is None and self._last is not None:
            verdict = self._follow(self._last, stamp_ns, sequence, heard_s, restart_after_s)
        if verdict.refusal is None:
            self._last = _Accepted(stamp_ns, sequence, heard_s)
        self.lost += verdict.lost
        if verdict.restart:
            self.restarts += 1
            self.last_restart = verdict.restart
        return verdict

    def _follow(
        self, last: _Accepted, stamp_ns: int, sequence: int, heard_s: float, restart_after_s: float
    ) -> Verdict:
        newer_s = (stamp_ns - last.stamp_ns) / 1e9
        ahead = sequence - last.sequence
        if newer_s == 0 and ahead == 0:
            return Verdict(
                Refusal(DUPLICATE, f"expected a new frame, found frame {sequence} again")
            )
        if newer_s > 0 and ahead > 0:
            self._skip(last.sequence + 1, sequence)
            return Verdict(lost=ahead - 1)
        if max(newer_s, heard_s - last.heard_s) < restart_after_s:
            if newer_s <= 0 and sequence in self._skipped:
                del self._skipped[sequence]
                late = f"expected a newer frame, found one {-newer_s:.3f} s late"
                return Verdict(Refusal(LATE, late), lost=-1)
            return Verdict(_out_of_order(newer_s, ahead))
        self._skipped.clear()
        return Verdict(restart=f"stamps went on by {newer_s:.3f} s, the sequence by {ahead}")

    def _skip(self, first: int, end: int) -> None:
        """Remember the frames from the first to before the end, which may come after all."""
        self._skipped.update(dict.fromkeys(range(max(first, end - _REMEMBERED), end)))
        while len(self._skipped) > _REMEMBERED:
            self._skipped.popitem(last=False)


def _check_age(age_s: float, max_age_s: float) -> Refusal | None:
    if age_s > max_age_s:
        return Refusal(STALE, f"expected a frame of the last {max_age_s:g} s, found {age_s:.1f} s")
    if age_s < -max_age_s:
        return Refusal(
            AHEAD,
            f"expected a stamp at most {max_age_s:g} s ahead of this clock, found {-age_s:.1f} s",
        )
    return None


def _out_of_order(newer_s: float, ahead: int) -> Refusal:
    """The refusal of a frame that does not follow the last one."""
    if ahead > 0:
        return Refusal(
            STAMP_NOT_NEWER,
            f"expected a newer stamp, found one {-newer_s:.3f} s older under a newer sequence: a "
            "clock that was set back, stamps that stand still, or a recording",
        )
    if newer_s > 0:
        return Refusal(
            SECOND_ENCODER,
            f"expected a newer sequence, found one {-ahead} back under a newer stamp: another "
            "encoder uses this camera's name",
        )
    return Refusal(
        REPLAYED,
        f"expected a newer frame, found one {-newer_s:.3f} s older and {-ahead} frames back",
    )
