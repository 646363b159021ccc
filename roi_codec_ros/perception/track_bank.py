# SPDX-License-Identifier: Apache-2.0
"""All tracks at one moment, and their update by one frame of one camera.

`step` takes a bank and a frame and returns a new bank; neither is changed. That makes a rollback
cheap: later frames can be replayed onto an old bank, with the same result.

    predict → match → update → count misses → confirm → merge twins → give birth → let die
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception import kalman
from roi_codec_ros.perception.coverage import Coverage

# Internal key of a track: stamp, camera and index of its first measurement.
Birth = tuple[float, str, int]
HEIGHTS_IN_MEAN = 20  # hits over which a track's height is averaged
_NOT_IN_GATE = 1e6  # in a cost matrix; larger than any sum of costs inside the gates


@dataclass(frozen=True)
class TrackerSettings:
    """Parameters of the tracker.

    gate_probability: share of a track's own measurements inside its gate.
    acceleration_noise: m/s added per second to a velocity's standard deviation.
    initial_speed: standard deviation of a new track's velocity, m/s per axis.
    clock_spread_s: standard deviation of the cameras' clock offsets.
    hidden_share: probability factor for detecting an occluded person.
    birth_hits, birth_s, birth_share: a track is confirmed after this many hits, this long after
        its first, if at least this share of the looks at it were hits.
    death_s, tentative_death_s: a track ends after being missed for this long.
    coast_s: a track ends after no camera has covered it for this long.
    twin_distance_m, twin_s: two tracks closer than this that no frame has shown together for this
        long are merged.
    double_distance_m: a second measurement in one frame closer than this to a track starts no new
        one.
    late_horizon_s: maximum delay of a frame behind the newest to be inserted in order.
    """

    gate_probability: float = 0.999
    acceleration_noise: float = 0.6
    initial_speed: float = 0.8
    clock_spread_s: float = 0.03
    hidden_share: float = 0.2
    birth_hits: int = 8
    birth_s: float = 0.3
    birth_share: float = 0.5
    death_s: float = 1.5
    tentative_death_s: float = 0.4
    coast_s: float = 3.0
    twin_distance_m: float = 0.5
    twin_s: float = 1.0
    double_distance_m: float = 0.3
    late_horizon_s: float = 0.5

    def __post_init__(self) -> None:
        for name in ("gate_probability", "birth_share", "hidden_share"):
            if not 0 < (share := getattr(self, name)) < 1:
                raise RoiCodecError(f"expected {name} between 0 and 1, found {share:g}")
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value >= 0):
                raise RoiCodecError(f"expected {name} of 0 or more, found {value:g}")
        if self.birth_hits < 1:
            raise RoiCodecError("expected birth_hits of 1 or more, found 0")


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measurements of one camera at one moment.

    stamp: seconds. xy: float64 [N, 2], metres in the map. covariance: float64 [N, 2, 2], m².
    score: float64 [N], 0 to 1. height_m: float64 [N], of bodies. Both NaN where unknown; passed
        on, and not used for decisions.
    """

    camera: str
    stamp: float
    xy: NDArray[np.float64]
    covariance: NDArray[np.float64]
    score: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    height_m: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        for name in ("score", "height_m"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self.xy), np.nan))
            elif getattr(self, name).shape != (len(self.xy),):
                raise RoiCodecError(
                    f"expected {name} of shape [{len(self.xy)}], "
                    f"found {list(getattr(self, name).shape)}"
                )
        if not np.isfinite(self.stamp):
            raise RoiCodecError(f"expected a finite stamp from {self.camera}, found {self.stamp}")
        if self.xy.ndim != 2 or self.xy.shape[1] != 2:
            raise RoiCodecError(f"expected positions of shape [N, 2], found {list(self.xy.shape)}")
        if self.covariance.shape != (len(self.xy), 2, 2):
            raise RoiCodecError(
                f"expected covariances of shape [{len(self.xy)}, 2, 2], "
                f"found {list(self.covariance.shape)}"
            )
        if not np.isfinite(self.xy).all():
            raise RoiCodecError(f"expected finite positions from {self.camera}, found {self.xy}")
        kalman.check_positive_definite(self.covariance)


@dataclass(frozen=True, eq=False)
class Bank:
    """N tracks at `stamp`; rows of all arrays belong together.

    mean: [N, 4]. covariance: [N, 4, 4]. births: key of each track. hits: int [N]. looks: int [N],
        frames of cameras that should have seen it. last_hit: [N] stamps. missed_since: [N], stamp
        of the first miss after the last hit; NaN without one. confirmed: bool [N]. seen: when each
        camera saw it last. together: [N, N], stamp of the last frame that showed both. score: [N],
        of the last hit. height_m: [N], the mean of the last hits; NaN while not known.
    """

    stamp: float
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    births: tuple[Birth, ...]
    hits: NDArray[np.int64]
    looks: NDArray[np.int64]
    last_hit: NDArray[np.float64]
    missed_since: NDArray[np.float64]
    confirmed: NDArray[np.bool_]
    seen: tuple[Mapping[str, float], ...]
    together: NDArray[np.float64]
    score: NDArray[np.float64]
    height_m: NDArray[np.float64]

    @classmethod
    def empty(cls, stamp: float) -> Bank:
        """An empty bank."""
        count, none = np.zeros(0, np.int64), np.zeros(0)
        return cls(
            stamp, np.zeros((0, 4)), np.zeros((0, 4, 4)), (), count, count, none, none,
            np.zeros(0, np.bool_), (), np.zeros((0, 0)), none, none,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.births)

    def take(self, rows: NDArray[np.int64]) -> Bank:
        """Select tracks, in this order."""
        return Bank(
            self.stamp, self.mean[rows], self.covariance[rows],
            tuple(self.births[row] for row in rows),
            self.hits[rows], self.looks[rows], self.last_hit[rows], self.missed_since[rows],
            self.confirmed[rows], tuple(self.seen[row] for row in rows),
            self.together[rows[:, None], rows], self.score[rows], self.height_m[rows],
        )  # fmt: skip


def step(
    bank: Bank, frame: Measurements, settings: TrackerSettings, coverage: Coverage | None
) -> Bank:
    """The bank after a frame whose stamp is not before the bank's.

    coverage: of the frame's camera; None if unknown, which counts as seeing everything.
    """
    bank = predicted(bank, frame.stamp, settings)
    looked, hidden = np.ones(len(bank), np.bool_), np.zeros(len(bank), np.bool_)
    if coverage:
        hidden = _hidden(bank, coverage)
        looked = coverage.covers(bank.mean[:, :2]) & ~hidden
    rows, columns, weights = _match(bank, frame, hidden, settings)
    bank = _with_hits(bank, frame, rows, columns, weights, looked, settings)
    bank = _confirmed(bank, settings)
    unmatched = np.ones(len(frame.xy), np.bool_)
    unmatched[columns] = False
    hit = np.zeros(len(bank), np.bool_)
    hit[rows] = True
    bank = _with_births(bank, frame, np.flatnonzero(unmatched), hit, settings)
    return _without_dead(_without_twins(bank, settings), settings)


def predicted(bank: Bank, stamp: float, settings: TrackerSettings) -> Bank:
    """The bank predicted to a stamp that is not before its own."""
    ahead = stamp - bank.stamp
    mean, covariance = kalman.predict(
        bank.mean, bank.covariance, ahead, settings.acceleration_noise
    )
    return replace(bank, stamp=stamp, mean=mean, covariance=covariance)


def _spread(bank: Bank, frame: Measurements, settings: TrackerSettings) -> NDArray[np.float64]:
    """[N, M, 2, 2]: measurements' covariances, including the effect of clock offsets on each
    track.
    """
    velocity = bank.mean[:, 2:]
    offset = settings.clock_spread_s**2 * velocity[:, :, None] * velocity[:, None, :]
    return np.asarray(frame.covariance[None] + offset[:, None])


def _hidden(bank: Bank, coverage: Coverage) -> NDArray[np.bool_]:
    """bool [N]: tracks occluded by confirmed ones."""
    hidden = coverage.hidden(bank.mean[bank.confirmed, :2])
    result = np.zeros(len(bank), np.bool_)
    result[bank.confirmed] = hidden
    return result


def _match(
    bank: Bank, frame: Measurements, hidden: NDArray[np.bool_], settings: TrackerSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Match rows of the bank and of the frame; confirmed tracks are assigned first.

    Each pair has a weight in (0, 1]: the likelihood of the track against other confirmed ones.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if not len(bank) or not len(frame.xy):
        return rows, columns, np.zeros(0)
    spread = bank.covariance[:, None, :2, :2] + _spread(bank, frame, settings)
    distance = kalman.mahalanobis_squared(frame.xy[None, :, :] - bank.mean[:, None, :2], spread)
    inside = distance <= kalman.gate(settings.gate_probability)
    # The log-determinant makes it a likelihood; else the most uncertain track would always win.
    cost = distance + np.log(kalman.determinant(spread))
    cost -= 2 * np.log(np.where(hidden, settings.hidden_share, 1.0))[:, None]
    likelihood = np.where(inside & bank.confirmed[:, None], np.exp(-cost / 2), 0.0)
    cost = np.where(inside, cost, _NOT_IN_GATE)
    free = np.ones(len(frame.xy), np.bool_)
    for group in (bank.confirmed, ~bank.confirmed):
        candidates, left = np.flatnonzero(group), np.flatnonzero(free)
        chosen, found = linear_sum_assignment(cost[candidates[:, None], left])
        chosen, found = candidates[chosen], left[found]
        kept = inside[chosen, found]
        rows = np.concatenate([rows, chosen[kept]])
        columns = np.concatenate([columns, found[kept]])
        free[columns] = False
    own = np.exp(-cost[rows, columns] / 2)
    others = likelihood[:, columns].sum(axis=0) - likelihood[rows, columns]
    return rows, columns, own / (own + np.maximum(others, 0.0))


def _with_hits(
    bank: Bank,
    frame: Measurements,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    weights: NDArray[np.float64],
    looked: NDArray[np.bool_],
    settings: TrackerSettings,
) -> Bank:
    mean, covariance = bank.mean.copy(), bank.covariance.copy()
    spread = _spread(bank.take(rows), frame, settings)[np.arange(len(rows)), columns]
    # An ambiguous measurement moves a track less, or it would pull both tracks together.
    spread = spread / np.maximum(weights, 0.01)[:, None, None]
    mean[rows], covariance[rows] = kalman.update(
        bank.mean[rows], bank.covariance[rows], frame.xy[columns], spread
    )
    hit = np.zeros(len(bank), np.bool_)
    hit[rows] = True
    missed = looked & ~hit
    since = np.where(missed & np.isnan(bank.missed_since), frame.stamp, bank.missed_since)
    seen = list(bank.seen)
    for row in rows:
        seen[row] = {**seen[row], frame.camera: frame.stamp}
    together = bank.together.copy()
    together[rows[:, None], rows] = frame.stamp
    score, height_m = bank.score.copy(), bank.height_m.copy()
    score[rows] = frame.score[columns]
    height_m[rows] = _mean_height(bank.height_m[rows], frame.height_m[columns], bank.hits[rows])
    return replace(
        bank,
        mean=mean,
        covariance=covariance,
        hits=bank.hits + hit,
        looks=bank.looks + (hit | looked),
        last_hit=np.where(hit, frame.stamp, bank.last_hit),
        missed_since=np.where(hit, np.nan, since),
        seen=tuple(seen),
        together=together,
        score=score,
        height_m=height_m,
    )


def _mean_height(
    old: NDArray[np.float64], new: NDArray[np.float64], hits: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Float64 [N]: running means updated with one value each; NaN is ignored."""
    mean = old + (new - old) / np.minimum(hits + 1, HEIGHTS_IN_MEAN)
    return np.where(np.isnan(new), old, np.where(np.isnan(old), new, mean))


def _confirmed(bank: Bank, settings: TrackerSettings) -> Bank:
    born = np.array([birth[0] for birth in bank.births])
    ripe = (bank.hits >= settings.birth_hits) & (bank.last_hit - born >= settings.birth_s)
    ripe &= bank.hits >= settings.birth_share * bank.looks
    return replace(bank, confirmed=bank.confirmed | ripe)


def _with_births(
    bank: Bank,
    frame: Measurements,
    unmatched: NDArray[np.int64],
    hit: NDArray[np.bool_],
    settings: TrackerSettings,
) -> Bank:
    """The bank with a new tentative track for each unmatched measurement.

    Double detections of a person start no second track.
    """
    taken = [*bank.mean[hit, :2]]
    begun = []
    for index in unmatched:
        place = frame.xy[index]
        if all(np.hypot(*(place - other)) > settings.double_distance_m for other in taken):
            begun.append(index)
            taken.append(place)
    unmatched = np.array(begun, np.int64)
    count = len(unmatched)
    if not count:
        return bank
    mean = np.zeros((count, 4))
    mean[:, :2] = frame.xy[unmatched]
    covariance = np.zeros((count, 4, 4))
    covariance[:, :2, :2] = frame.covariance[unmatched]
    covariance[:, 2, 2] = covariance[:, 3, 3] = settings.initial_speed**2
    size = len(bank) + count
    together = np.full((size, size), -np.inf)
    together[: len(bank), : len(bank)] = bank.together
    shown = np.concatenate([np.flatnonzero(hit), np.arange(len(bank), size)])
    together[shown[:, None], shown] = frame.stamp
    ones = np.ones(count, np.int64)
    births = tuple((frame.stamp, frame.camera, int(index)) for index in unmatched)
    return Bank(
        bank.stamp,
        np.concatenate([bank.mean, mean]),
        np.concatenate([bank.covariance, covariance]),
        bank.births + births,
        np.concatenate([bank.hits, ones]),
        np.concatenate([bank.looks, ones]),
        np.concatenate([bank.last_hit, np.full(count, frame.stamp)]),
        np.concatenate([bank.missed_since, np.full(count, np.nan)]),
        np.concatenate([bank.confirmed, np.zeros(count, np.bool_)]),
        bank.seen + tuple({frame.camera: frame.stamp} for _ in unmatched),
        together,
        np.concatenate([bank.score, frame.score[unmatched]]),
        np.concatenate([bank.height_m, frame.height_m[unmatched]]),
    )


def _without_twins(bank: Bank, settings: TrackerSettings) -> Bank:
    """The bank with duplicate tracks merged: the older one is kept, with its key and the state of
    the one that was hit last.


    """
    apart = np.linalg.norm(bank.mean[:, None, :2] - bank.mean[None, :, :2], axis=2)
    twins = (apart < settings.twin_distance_m) & (bank.stamp - bank.together > settings.twin_s)
    np.fill_diagonal(twins, False)
    if not twins.any():
        return bank
    both = bank.covariance[:, None] + bank.covariance[None]
    difference = bank.mean[:, None] - bank.mean[None]
    limit = kalman.gate(settings.gate_probability)
    twins &= kalman.mahalanobis_squared(difference[..., :2], both[..., :2, :2]) <= limit
    twins &= kalman.mahalanobis_squared(difference[..., 2:], both[..., 2:, 2:]) <= limit
    order = sorted(range(len(bank)), key=lambda row: (not bank.confirmed[row], bank.births[row]))
    source = list(range(len(bank)))  # index of the track whose state each one takes over
    gone: set[int] = set()
    for place, elder in enumerate(order):
        for younger in order[place + 1 :]:
            if twins[elder, younger] and not gone & {elder, younger}:
                gone.add(younger)
                if bank.last_hit[younger] > bank.last_hit[elder]:
                    source[elder] = younger
    if not gone:
        return bank
    left = np.array([row for row in range(len(bank)) if row not in gone], np.int64)
    state = np.array([source[row] for row in left], np.int64)
    elders, states = bank.take(left), bank.take(state)
    seen = tuple(
        {**states.seen[row], **elders.seen[row]} if left[row] != state[row] else elders.seen[row]
        for row in range(len(left))
    )
    return replace(
        states,
        births=elders.births,
        hits=np.maximum(elders.hits, states.hits),
        looks=np.maximum(elders.looks, states.looks),
        confirmed=elders.confirmed | states.confirmed,
        seen=seen,
    )


def _without_dead(bank: Bank, settings: TrackerSettings) -> Bank:
    limit = np.where(bank.confirmed, settings.death_s, settings.tentative_death_s)
    with np.errstate(invalid="ignore"):
        missed = bank.stamp - bank.missed_since > limit
    forgotten = bank.stamp - bank.last_hit > settings.coast_s
    dead = missed | forgotten
    return bank.take(np.flatnonzero(~dead)) if dead.any() else bank
