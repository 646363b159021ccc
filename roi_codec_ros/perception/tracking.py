# SPDX-License-Identifier: Apache-2.0
"""Persons seen by many cameras as tracks in one map.

Frames may arrive in any order: each is inserted by its stamp, and later frames are replayed, so
that the tracks are the same as with frames in order. Frames older than a horizon are counted and
dropped. Stamps are assumed to be valid (see `stream.clocks`).
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception.coverage import Coverage
from roi_codec_ros.perception.track_bank import (
    Bank,
    Birth,
    Measurements,
    TrackerSettings,
    predicted,
    step,
)

__all__ = ["Counts", "Measurements", "Outcome", "Tracker", "TrackerSettings", "Tracks"]

_NAMES_KEPT = 4096  # track ids remembered before those of ended tracks are dropped


@dataclass(frozen=True, eq=False)
class Tracks:
    """N persons at `stamp`.

    id: int64 [N], 1 and up, constant for the life of the track; 0 while it is not confirmed.
    xy: float64 [N, 2], m. velocity: float64 [N, 2], m/s. covariance: float64 [N, 2, 2] of xy, m².
    cameras: for each track the cameras that saw it within the last second, sorted.
    hits: int64 [N], measurements taken in. age_s: float64 [N] since the first, unseen_s since the
    last. confirmed: bool [N]. velocity_covariance: float64 [N, 2, 2], m²/s². score: float64 [N] of
    the last sighting, height_m: float64 [N] of the body; NaN where not known.
    """

    stamp: float
    id: NDArray[np.int64]
    xy: NDArray[np.float64]
    covariance: NDArray[np.float64]
    velocity: NDArray[np.float64]
    cameras: tuple[tuple[str, ...], ...]
    hits: NDArray[np.int64]
    age_s: NDArray[np.float64]
    unseen_s: NDArray[np.float64]
    confirmed: NDArray[np.bool_]
    velocity_covariance: NDArray[np.float64]
    score: NDArray[np.float64]
    height_m: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.id)

    def only_confirmed(self) -> Tracks:
        """The confirmed tracks."""
        rows = np.flatnonzero(self.confirmed)
        return Tracks(
            self.stamp, self.id[rows], self.xy[rows], self.covariance[rows], self.velocity[rows],
            tuple(self.cameras[row] for row in rows), self.hits[rows], self.age_s[rows],
            self.unseen_s[rows], self.confirmed[rows], self.velocity_covariance[rows],
            self.score[rows], self.height_m[rows],
        )  # fmt: skip


@dataclass
class Counts:
    """Counts of frames: used (including late ones), and dropped, by reason."""

    taken: int = 0
    late: int = 0
    too_late: int = 0
    repeated: int = 0


class Outcome(enum.Enum):
    """Outcome of one frame."""

    NEWEST = "newest"  # used, and newer than all others
    TAKEN = "taken"  # used, inserted in order
    TOO_LATE = "too_late"  # left out
    REPEATED = "repeated"  # dropped: already known


@dataclass(frozen=True, eq=False)
class _Entry:
    frame: Measurements
    after: Bank

    @property
    def key(self) -> tuple[float, str]:
        return self.frame.stamp, self.frame.camera


class Tracker:
    """Tracks persons across the frames of all cameras.

    coverage: the floor that each camera sees. A camera without an entry is assumed to see
    everywhere: a person whom only others see is then lost after `death_s`.
    first_id: id of the first track; if larger than those of an earlier run, no id is reused.
    """

    RECENT_S = 1.0  # how long `Tracks.cameras` lists a camera after it saw a person

    def __init__(
        self,
        settings: TrackerSettings | None = None,
        coverage: Mapping[str, Coverage] | None = None,
        first_id: int = 1,
    ) -> None:
        self.settings = settings or TrackerSettings()
        self.coverage = dict(coverage or {})
        self.counts = Counts()
        self._last_id = first_id - 1
        self.restart()

    def restart(self) -> None:
        """Forget all tracks and stamps; counts continue, and no id is reused."""
        self._base: Bank | None = None  # the tracks before the first entry; None before any frame
        self._entries: list[_Entry] = []
        self._ids: dict[Birth, int] = {}

    @property
    def newest_stamp(self) -> float | None:
        """Stamp of the newest frame used; None before the first."""
        if self._entries:
            return self._entries[-1].frame.stamp
        return None

    def update(
        self,
        camera: str,
        stamp: float,
        xy: ArrayLike,
        covariance: ArrayLike,
        *,
        score: ArrayLike = (),
        height_m: ArrayLike = (),
    ) -> Outcome:
        """Update the tracks with a camera's frame at `stamp` (seconds), even if it shows nobody.

        xy: [N, 2] metres in the map. covariance: [N, 2, 2] m². score: [N]. height_m: [N], of
        bodies; NaN, or both empty, where not known.
        Raises RoiCodecError for invalid shapes and numbers; the tracks are then unchanged.
        """
        places = np.array(xy, np.float64)
        spreads = np.array(covariance, np.float64)
        if not places.size:
            places, spreads = np.zeros((0, 2)), np.zeros((0, 2, 2))
        frame = Measurements(
            camera,
            float(stamp),
            places,
            spreads,
            np.array(score, np.float64),
            np.array(height_m, np.float64),
        )
        newest = self.newest_stamp
        if newest is not None and frame.stamp < newest - self.settings.late_horizon_s:
            self.counts.too_late += 1
            return Outcome.TOO_LATE
        if newest is not None and frame.stamp > newest + self.settings.coast_s:
            self.restart()  # no track lives that long unseen
        place = bisect.bisect_left(
            self._entries, (frame.stamp, frame.camera), key=lambda entry: entry.key
        )
        if place < len(self._entries) and self._entries[place].key == (frame.stamp, frame.camera):
            self.counts.repeated += 1
            return Outcome.REPEATED
        self.counts.taken += 1
        self.counts.late += place < len(self._entries)
        newest = self.newest_stamp
        newer = newest is None or frame.stamp > newest
        if self._base is None:
            self._base = Bank.empty(frame.stamp - self.settings.late_horizon_s)
        bank = self._entries[place - 1].after if place else self._base
        again = [frame, *(entry.frame for entry in self._entries[place:])]
        del self._entries[place:]
        for each in again:
            bank = step(bank, each, self.settings, self.coverage.get(each.camera))
            self._entries.append(_Entry(each, bank))
        self._drop_old()
        return Outcome.NEWEST if newer else Outcome.TAKEN

    def _drop_old(self) -> None:
        """Drop frames that no accepted frame can precede any more."""
        oldest = self._entries[-1].frame.stamp - self.settings.late_horizon_s
        count = sum(entry.frame.stamp < oldest for entry in self._entries)
        if count:
            self._base = self._entries[count - 1].after
            del self._entries[:count]

    def tracks(self, at: float) -> Tracks:
        """All tracks, confirmed or not, at a stamp.

        Predicted from the latest frame before it, without tracks that have timed out by then.
        Raises RoiCodecError for a stamp before the oldest remembered frame.
        """
        if not np.isfinite(at):
            raise RoiCodecError(f"expected a finite stamp, found {at}")
        if self._base is None:
            return self._as_tracks(Bank.empty(at))
        place = bisect.bisect_right(self._entries, at, key=lambda entry: entry.frame.stamp)
        bank = self._entries[place - 1].after if place else self._base
        if at < bank.stamp:
            raise RoiCodecError(
                f"expected a stamp of {bank.stamp:.3f} or later, found {at:.3f}: "
                "older tracks are forgotten"
            )
        alive = np.flatnonzero(at - bank.last_hit <= self.settings.coast_s)
        return self._as_tracks(predicted(bank.take(alive), at, self.settings))

    def _as_tracks(self, bank: Bank) -> Tracks:
        born = np.array([birth[0] for birth in bank.births])
        since = bank.stamp - self.RECENT_S
        return Tracks(
            stamp=bank.stamp,
            id=self._numbers(bank),
            xy=bank.mean[:, :2],
            covariance=bank.covariance[:, :2, :2],
            velocity=bank.mean[:, 2:],
            cameras=tuple(
                tuple(sorted(name for name, stamp in seen.items() if stamp >= since))
                for seen in bank.seen
            ),
            hits=bank.hits,
            age_s=bank.stamp - born,
            unseen_s=bank.stamp - bank.last_hit,
            confirmed=bank.confirmed,
            velocity_covariance=bank.covariance[:, 2:, 2:],
            score=bank.score,
            height_m=bank.height_m,
        )

    def _numbers(self, bank: Bank) -> NDArray[np.int64]:
        """int64 [N], the ids of tracks, assigned when a track is first reported as confirmed,
        oldest first.

        Not at birth: a late frame may still change the order of births.
        """
        for birth in sorted(b for b, yes in zip(bank.births, bank.confirmed, strict=True) if yes):
            if birth not in self._ids:
                self._last_id += 1
                self._ids[birth] = self._last_id
        if len(self._ids) > _NAMES_KEPT:
            kept = {birth for entry in self._entries for birth in entry.after.births}
            self._ids = {b: n for b, n in self._ids.items() if b in kept | set(bank.births)}
        return np.array(
            [
                self._ids[birth] if yes else 0
                for birth, yes in zip(bank.births, bank.confirmed, strict=True)
            ],
            np.int64,
        )
