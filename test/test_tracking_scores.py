# SPDX-License-Identifier: Apache-2.0
"""Scores of tracks, held against sequences worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.evaluation.tracking_scores import Sample, live_samples, score
from roi_codec_ros.lab.simulation.measured_hall import simulate_hall
from roi_codec_ros.perception.tracking import Tracker

pytest.importorskip("motmetrics")

Places = dict[int, tuple[float, float]]


def sequence(*moments: tuple[Places, Places]) -> list[Sample]:
    """Samples at 10 Hz, each of persons and tracks: id → place."""
    return [
        Sample(
            index / 10,
            np.array(list(persons), np.int64),
            np.array(list(persons.values()), float).reshape(-1, 2),
            np.array(list(tracks), np.int64),
            np.array(list(tracks.values()), float).reshape(-1, 2),
        )
        for index, (persons, tracks) in enumerate(moments)
    ]


def test_perfect_tracks():
    scores = score(sequence(*[({1: (0, 0), 2: (5, 0)}, {8: (0, 0), 9: (5, 0)})] * 10))

    assert (scores.idf1, scores.mota) == (1.0, 1.0)
    assert (scores.position_error_p50_m, scores.position_error_p95_m) == (0.0, 0.0)
    assert (scores.false_tracks, scores.switches) == (0, 0)


def test_a_miss_and_a_false_track():
    # Ten moments of one person: followed in eight of them; a track that is nobody in three.
    moments = [({1: (0, 0)}, {7: (0.3, 0)})] * 8 + [({1: (0, 0)}, {})] * 2
    moments[:3] = [({1: (0, 0)}, {7: (0.3, 0), 9: (6, 6)})] * 3

    scores = score(sequence(*moments))

    assert scores.mota == pytest.approx(1 - (2 + 3) / 10)
    assert scores.idf1 == pytest.approx(2 * 8 / (2 * 8 + 3 + 2))
    assert scores.position_error_p50_m == pytest.approx(0.3)
    assert scores.false_tracks == 1
    assert scores.false_tracks_per_minute == pytest.approx(60.0)  # one in one second


def test_a_person_whose_track_changes_half_way():
    moments = [({1: (0, 0)}, {7: (0, 0)})] * 6 + [({1: (0, 0)}, {8: (0, 0)})] * 4

    scores = score(sequence(*moments))

    assert scores.switches == 1
    assert scores.mota == pytest.approx(1 - 1 / 10)
    assert scores.idf1 == pytest.approx(2 * 6 / (10 + 10))  # only one of two tracks counts as it
    assert scores.false_tracks == 0


def test_a_metre_is_near_enough_and_more_is_not():
    near = score(sequence(*[({1: (0, 0)}, {7: (0.99, 0)})] * 4))
    far = score(sequence(*[({1: (0, 0)}, {7: (1.01, 0)})] * 4))

    assert (near.idf1, near.false_tracks) == (1.0, 0)
    assert (far.idf1, far.mota, far.false_tracks) == (0.0, -1.0, 1)
    assert far.position_error_p50_m is None


def test_percentiles_are_over_all_matches():
    moments = [({1: (0, 0)}, {7: (x / 100, 0)}) for x in range(101)][:100]

    scores = score(sequence(*moments))

    assert scores.position_error_p50_m == pytest.approx(0.495)
    assert scores.position_error_p95_m == pytest.approx(0.9405)


def test_nothing_to_score_is_refused():
    with pytest.raises(RoiCodecError, match="found none"):
        score([])


def test_samples_know_nothing_that_has_not_arrived():
    hall = simulate_hall(1, 2.0)
    arrived = [sum(frame.arrival <= tick / 10 for frame in hall.frames) for tick in (5, 20)]
    tracker = Tracker(coverage=hall.cameras)
    taken = {}
    for sample, tracks in live_samples(hall, tracker):
        taken[sample.stamp] = tracker.counts.taken + tracker.counts.too_late
        assert tracks.confirmed.all() and sample.track_ids.all()

    assert [taken[0.5], taken[2.0]] == arrived
    assert len(taken) == 20
