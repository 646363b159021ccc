# SPDX-License-Identifier: Apache-2.0
"""How well tracks follow persons: CLEAR MOT and identity scores, position errors, false tracks.

MOTA: Bernardin and Stiefelhagen, Evaluating Multiple Object Tracking Performance, 2008, eq. 2.
IDF1: Ristani et al., Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking,
2016, eq. 11. Both as `motmetrics` computes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.lab.simulation.measured_hall import Hall
from roi_codec_ros.perception.tracking import Tracker, Tracks

MATCH_M = 1.0  # a track this near to a person may be that person's
SAMPLE_HZ = 10.0


@dataclass(frozen=True, eq=False)
class Sample:
    """Truth and tracks at one moment: ids [N] and [M], places [N, 2] and [M, 2] in metres."""

    stamp: float
    person_ids: NDArray[np.int64]
    person_xy: NDArray[np.float64]
    track_ids: NDArray[np.int64]
    track_xy: NDArray[np.float64]


@dataclass(frozen=True)
class TrackingScores:
    """idf1 in [0, 1], mota up to 1; errors over all matches, None without any; per minute of time.

    false_tracks: tracks that were never matched to a person, at most MATCH_M away. persons: that
    were there at all; persons_found: those of them whom a track ever followed.
    """

    idf1: float
    mota: float
    position_error_p50_m: float | None
    position_error_p95_m: float | None
    false_tracks: int
    false_tracks_per_minute: float
    switches: int
    persons: int
    persons_found: int


def live_samples(hall: Hall, tracker: Tracker) -> Iterator[tuple[Sample, Tracks]]:
    """Feed the tracker as frames arrive; what it says of each moment at that moment, confirmed.

    Nothing is known of a moment afterwards: frames still under way then are not waited for.
    """
    frames = iter(hall.frames)
    waiting = next(frames, None)
    for tick in range(1, int(hall.seconds * SAMPLE_HZ) + 1):
        now = tick / SAMPLE_HZ
        while waiting is not None and waiting.arrival <= now:
            seen = waiting.measurements
            tracker.update(seen.camera, seen.stamp, seen.xy, seen.covariance)
            waiting = next(frames, None)
        tracks = tracker.tracks(now).only_confirmed()
        yield Sample(now, *hall.persons_in_view(now), tracks.id, tracks.xy), tracks


def score(samples: Iterable[Sample]) -> TrackingScores:
    """Score samples that follow one another in time. Raises RoiCodecError for none."""
    motmetrics = optional(
        "motmetrics", needed_for="scores of tracks", install="pip install motmetrics"
    )
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    ever: set[int] = set()
    persons: set[int] = set()
    stamps: list[float] = []
    for sample in samples:
        distance = np.linalg.norm(sample.person_xy[:, None] - sample.track_xy[None], axis=2)
        allowed = np.where(distance <= MATCH_M, distance, np.nan)
        accumulator.update(sample.person_ids, sample.track_ids, allowed)
        ever.update(sample.track_ids.tolist())
        persons.update(sample.person_ids.tolist())
        stamps.append(sample.stamp)
    if not stamps:
        raise RoiCodecError("expected samples of persons and tracks, found none")
    figures = motmetrics.metrics.create().compute(
        accumulator, metrics=["idf1", "mota", "num_switches"], return_dataframe=False
    )
    events = accumulator.mot_events
    matches = events[events["Type"].isin(["MATCH", "SWITCH"])]
    errors = matches["D"].to_numpy(float)
    false_tracks = len(ever - {int(track) for track in matches["HId"].unique()})
    minutes = (stamps[-1] - stamps[0] + 1 / SAMPLE_HZ) / 60
    return TrackingScores(
        idf1=float(figures["idf1"]),
        mota=float(figures["mota"]),
        position_error_p50_m=_percentile(errors, 50),
        position_error_p95_m=_percentile(errors, 95),
        false_tracks=false_tracks,
        false_tracks_per_minute=false_tracks / minutes,
        switches=int(figures["num_switches"]),
        persons=len(persons),
        persons_found=len({int(person) for person in matches["OId"].unique()}),
    )


def hall_result(
    scores: TrackingScores, hall: Hall, *, seed: int, minutes: float
) -> dict[str, Any]:
    """Scores of tracks in a simulated hall, and what it was; JSON types only."""
    return {
        "idf1": scores.idf1,
        "mota": scores.mota,
        "position_error_m": {
            "p50": scores.position_error_p50_m,
            "p95": scores.position_error_p95_m,
        },
        "false_tracks_per_minute": scores.false_tracks_per_minute,
        "persons": hall.settings.persons,
        "cameras": len(hall.cameras),
        "seed": seed,
        "minutes": minutes,
    }


def result_lines(result: Mapping[str, Any], scores: TrackingScores) -> list[str]:
    """For the terminal: what was simulated, then a line for each score."""
    rows = [
        ("IDF1", f"{scores.idf1:.3f}"),
        ("MOTA", f"{scores.mota:.3f}"),
        ("position error, median", _metres(scores.position_error_p50_m)),
        ("position error, 95 %", _metres(scores.position_error_p95_m)),
        ("false tracks per minute", f"{scores.false_tracks_per_minute:.2f}"),
        ("identity switches", f"{scores.switches}"),
    ]
    return [
        f"{result['persons']} persons, {result['cameras']} cameras, "
        f"{result['minutes']:g} min, seed {result['seed']}",
        *(f"{name:<26}{figure:>8}" for name, figure in rows),
    ]


def _metres(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} m"


def _percentile(errors: NDArray[np.float64], percent: float) -> float | None:
    return float(np.percentile(errors, percent)) if len(errors) else None
