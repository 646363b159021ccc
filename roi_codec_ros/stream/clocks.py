# SPDX-License-Identifier: Apache-2.0
"""Decides which frames of several cameras share one time line, by their time of arrival.

No ROS here. Stamps are made by the cameras: a recording may restart, a clock may be set, one
camera's clock may be wrong. The majority of cameras decides which time is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from roi_codec_ros.stream.statistics import SlidingLeast

FIRST_GUESS_S = 0.5  # assumed frame interval of a camera with only one frame
LONGEST_SAY_S = 5.0  # after its last frame a camera is ignored, however slow it is
SERVER_CLOCK_S = 5.0  # stamps within this of the server's clock are live, not recorded
LAG_WINDOW_S = 10.0


@dataclass(frozen=True)
class Ruling:
    """Decision on a frame.

    taken: it belongs to the time line. restart: the time line restarts with it. reason: why the
    frame is dropped, or why the time line restarts.
    """

    taken: bool
    restart: bool = False
    reason: str = ""


@dataclass
class _LastFrame:
    """Last frame of a camera. lag_s: from stamp to arrival by the server's clock."""

    stamp_s: float
    lag_s: float
    heard_s: float
    interval_s: float = FIRST_GUESS_S
    follows: bool = False

    def has_a_say(self, now_s: float, least_s: float) -> bool:
        patience_s = max(least_s, min(2.5 * self.interval_s, LONGEST_SAY_S))
        return now_s - self.heard_s <= patience_s


@dataclass
class CommonClock:
    """Follows the stamps of all cameras.

    A frame is accepted if its stamp is at most `spread_s` older than the newest accepted one, and
    not ahead of it by more than that unless as much time has passed since.

    All others are dropped without effect until they represent more cameras than the accepted ones
    (with a tie, the server's clock decides, if it agrees with either), and either no frame was
    accepted for `restart_after_s` or this state has lasted for that long. Then the time line
    restarts with them. So one camera with a wrong clock is dropped, a single camera never waits
    longer than `restart_after_s`, and a restarted recording restarts the time line.

    restarts: number of restarts of the time line. last_restart: the reason of the last one.
    """

    spread_s: float = 0.5
    restart_after_s: float = 0.5
    restarts: int = 0
    last_restart: str = ""
    _cameras: dict[str, _LastFrame] = field(default_factory=dict)
    _newest_s: float | None = None  # stamp of the newest frame taken
    _advanced_s: float = 0.0  # when it was received
    _lags: SlidingLeast = field(default_factory=lambda: SlidingLeast(LAG_WINDOW_S))
    # lag of the dropped frames that outnumber the others, and since when
    _challenge: tuple[float, float] | None = None

    def judge(self, camera: str, stamp_s: float, *, heard_s: float, age_s: float) -> Ruling:
        """Whether a frame is accepted.

        stamp_s: capture time, seconds. heard_s: time of arrival, monotonic. age_s: of the
        stamp by the server's clock, negative for one from the future; its offset does not matter.
        """
        known = self._cameras.get(camera)
        if known is not None and known.stamp_s == stamp_s:
            return Ruling(False, reason="their stamps stand still")
        again = known is not None and known.follows and stamp_s < known.stamp_s
        spoken = _LastFrame(stamp_s, age_s, heard_s)
        if known is not None:
            spoken.interval_s = heard_s - known.heard_s
        self._cameras[camera] = spoken
        off = self._off(spoken, again)
        spoken.follows = not off
        self._weigh(heard_s)
        if not off:
            self._take(spoken)
            return Ruling(True)
        if not self._wins(spoken.lag_s, heard_s):
            return Ruling(False, reason=off)
        if self._challenge is None or abs(self._challenge[0] - spoken.lag_s) > self.spread_s:
            self._challenge = spoken.lag_s, heard_s
        since_s = min(self._advanced_s, self._challenge[1])
        if heard_s - since_s < self.restart_after_s:
            return Ruling(False, reason=off)
        return self._begin_anew(spoken)

    def _off(self, spoken: _LastFrame, again: bool) -> str:
        """Why a frame does not follow the accepted ones; empty if it does."""
        newest_s = self._newest_s
        if newest_s is None:
            return ""
        ahead_s = spoken.stamp_s - newest_s
        if ahead_s < -self.spread_s:
            return f"their stamps are {-ahead_s:.1f} s behind others'"
        if again and spoken.heard_s - self._advanced_s >= self.restart_after_s:
            return "their stamps repeat"
        early_s = self._lags.at(spoken.heard_s, spoken.lag_s) - spoken.lag_s
        if min(ahead_s, early_s) > self.spread_s:
            return f"their stamps are {min(ahead_s, early_s):.1f} s ahead of others'"
        return ""

    def _take(self, spoken: _LastFrame) -> None:
        self._lags.add(spoken.lag_s, spoken.heard_s)
        if self._newest_s is None or spoken.stamp_s > self._newest_s:
            self._newest_s, self._advanced_s = spoken.stamp_s, spoken.heard_s

    def _weigh(self, now_s: float) -> None:
        if self._challenge is not None and not self._wins(self._challenge[0], now_s):
            self._challenge = None

    def _wins(self, lag_s: float, now_s: float) -> bool:
        """Whether dropped frames with about this lag represent more cameras than accepted ones."""
        voters = [c for c in self._cameras.values() if c.has_a_say(now_s, self.restart_after_s)]
        inside = [c for c in voters if c.follows]
        outside = [c for c in voters if not c.follows and abs(c.lag_s - lag_s) <= self.spread_s]
        if len(outside) != len(inside) or not inside:
            return len(outside) > len(inside)
        ours_s, theirs_s = (abs(median(c.lag_s for c in group)) for group in (outside, inside))
        if min(ours_s, theirs_s) <= SERVER_CLOCK_S:
            return ours_s < theirs_s - self.spread_s / 2
        return all(now_s - c.heard_s > self.restart_after_s for c in inside)

    def _begin_anew(self, spoken: _LastFrame) -> Ruling:
        newest_s = self._newest_s
        assert newest_s is not None
        jump_s = spoken.stamp_s - newest_s
        self.restarts += 1
        self.last_restart = (
            f"stamps jumped {abs(jump_s):.3f} s {'forward' if jump_s > 0 else 'back'}, "
            f"from {newest_s:.3f} to {spoken.stamp_s:.3f}"
        )
        for camera in self._cameras.values():
            camera.follows = abs(camera.lag_s - spoken.lag_s) <= self.spread_s
        self._newest_s = self._challenge = None
        self._lags.clear()
        self._take(spoken)
        return Ruling(True, restart=True, reason=self.last_restart)
