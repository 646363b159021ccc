# SPDX-License-Identifier: Apache-2.0
"""Distinguishes a camera's next frame from recorded, delayed and forged ones.

No ROS here. Only the frame's own stamp and sequence are checked: without DDS security an attacker
can forge newer ones.
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
_REMEMBERED = 256  # missing frames that may still arrive


@dataclass(frozen=True)
class Refusal:
    """Why a frame is rejected. cause: one of CAUSES; reason: what was expected and found."""

    cause: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """Decision on a frame.

    refusal: why it is rejected, None if accepted. restart: why the stream restarted with it; empty
    if it continues. lost: number of frames newly known to be missing; -1 for a late frame that had
    been counted as missing.
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

    A frame is accepted if it is the first one, if stamp and sequence are both newer than those of
    the last accepted one, if its stamp is newer by `restart_after_s` (a restarted encoder, a live
    camera beside a recording), or if no frame was accepted for `restart_after_s` (a clock that was
    set back). A repetition of the last frame is always rejected. Rejected frames have no effect: a
    flood of them cannot displace the camera, and a camera is never locked out for longer than
    `restart_after_s`.

    lost: frames that were sent and not received. restarts: number of restarts of the stream;
        last_restart: the reason of the last one.
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
        """Check a frame; if it is accepted, later ones are compared with it.

        stamp_ns: capture time. sequence: incremented by the encoder for every frame. heard_s: time
            of arrival, monotonic, in seconds. age_s: the stamp's age by this machine's clock,
            negative for one from the future. restart_after_s 0 accepts frames in any order;
            max_age_s 0 accepts any age, other values require synchronised clocks.
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
        """Remember missing frames, from the first to before the end, which may still arrive."""
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
    """Why a frame does not follow the last one."""
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
