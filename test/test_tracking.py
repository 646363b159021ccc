# SPDX-License-Identifier: Apache-2.0
"""The tracker: one person is one track, whatever cameras, clocks and the network do."""

from __future__ import annotations

import math

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.simulation.measured_hall import simulate_hall
from roi_codec_ros.perception.coverage import ViewWedge
from roi_codec_ros.perception.tracking import Outcome, Tracker, TrackerSettings, Tracks

SURE = np.eye(2) * 0.1**2


def see(tracker: Tracker, camera: str, stamp: float, *places: tuple[float, float]) -> None:
    tracker.update(camera, stamp, list(places), [SURE] * len(places))


def stand(tracker: Tracker, camera: str, start: float, end: float, *places) -> None:
    """Ten frames a second of persons who stand still."""
    for index in range(round((end - start) * 10)):
        see(tracker, camera, start + index / 10, *places)


def test_a_walking_person_is_followed_with_its_velocity():
    tracker = Tracker()
    for index in range(30):
        see(tracker, "a", index / 10, (1 + 0.1 * index, 5.0))

    tracks = tracker.tracks(3.4)

    assert tracks.id.tolist() == [1]
    assert tracks.xy[0] == pytest.approx([4.4, 5.0], abs=0.02)
    assert tracks.velocity[0] == pytest.approx([1.0, 0.0], abs=0.05)
    assert tracks.cameras == (("a",),)
    assert tracks.hits.tolist() == [30]
    assert tracks.age_s[0] == pytest.approx(3.4)
    assert tracks.unseen_s[0] == pytest.approx(0.5)


def test_covariance_grows_while_nobody_looks():
    tracker = Tracker()
    stand(tracker, "a", 0, 2, (1.0, 5.0))

    soon, later = tracker.tracks(2.0), tracker.tracks(3.0)

    assert np.linalg.det(later.covariance[0]) > 4 * np.linalg.det(soon.covariance[0])
    assert soon.covariance[0, 0, 0] < SURE[0, 0]  # many measurements are better than one


def test_a_track_is_confirmed_after_its_hits_and_not_before():
    tracker = Tracker(TrackerSettings(birth_hits=4, birth_s=0.2))
    stand(tracker, "a", 0, 0.3, (1.0, 5.0))
    before = tracker.tracks(0.2)

    see(tracker, "a", 0.3, (1.0, 5.0))

    assert (before.confirmed.tolist(), before.id.tolist()) == ([False], [0])
    assert len(before.only_confirmed()) == 0
    assert (tracker.tracks(0.3).confirmed.tolist(), tracker.tracks(0.3).id.tolist()) == (
        [True],
        [1],
    )


def test_a_single_false_detection_never_becomes_a_person():
    tracker = Tracker()
    stand(tracker, "a", 0, 1, (1.0, 5.0))
    see(tracker, "a", 1.0, (1.0, 5.0), (8.0, 2.0))
    stand(tracker, "a", 1.1, 2.1, (1.0, 5.0))

    assert tracker.tracks(2.1).xy.shape == (1, 2)


def test_measurements_outside_the_gate_leave_a_track_alone():
    tracker = Tracker(TrackerSettings(gate_probability=0.99, clock_spread_s=0.0))
    stand(tracker, "a", 0, 2, (0.0, 0.0))
    spread = tracker.tracks(2.0).covariance[0] + SURE
    limit = math.sqrt(9.2103 * spread[0, 0])
    inside, outside = Tracker(tracker.settings), Tracker(tracker.settings)
    for each, x in ((inside, 0.98 * limit), (outside, 1.02 * limit)):
        stand(each, "a", 0, 2, (0.0, 0.0))
        see(each, "a", 2.0, (x, 0.0))

    assert inside.tracks(2.0).hits.tolist() == [21]
    assert outside.tracks(2.0).hits.tolist() == [20, 1]
    assert outside.tracks(2.0).xy[0] == pytest.approx([0, 0], abs=1e-9)


def test_one_person_in_three_cameras_is_one_track():
    tracker = Tracker()
    random = np.random.default_rng(4)
    for index in range(40):
        for offset, camera in enumerate("abc"):
            # Clocks that are wrong by 50 ms either way, and not quite the same instant.
            taken = index / 10 + 0.03 * offset
            place = np.array([0.12 * taken * 10, 3.0]) + random.normal(0, 0.1, 2)
            tracker.update(camera, taken + 0.05 * (offset - 1), [place], [SURE])

    tracks = tracker.tracks(4.1)

    assert len(tracks) == 1
    assert tracks.cameras == (("a", "b", "c"),)
    assert tracks.hits.tolist() == [120]


def test_twins_become_one_and_the_elder_keeps_its_id():
    # Two cameras that disagree by more than the gate, and then agree.
    tracker = Tracker()
    for index in range(15):
        see(tracker, "a", index / 10, (0.0, 0.0))
        see(tracker, "b", index / 10 + 0.05, (1.2, 0.0))
    assert tracker.tracks(1.45).id.tolist() == [1, 2]

    for index in range(15, 60):
        see(tracker, "a", index / 10, (0.0, 0.0))
        see(tracker, "b", index / 10 + 0.05, (max(1.2 - 0.08 * (index - 15), 0.0), 0.0))

    assert tracker.tracks(5.95).id.tolist() == [1]


def test_two_close_persons_whom_one_camera_tells_apart_stay_two():
    tracker = Tracker()
    for index in range(50):  # so uncertain that each could be the other
        tracker.update("a", index / 10, [(0.0, 0.0), (0.45, 0.0)], [0.4**2 * np.eye(2)] * 2)

    assert tracker.tracks(4.9).id.tolist() == [1, 2]


def test_a_person_that_a_detector_reports_twice_is_one_track():
    tracker = Tracker()
    stand(tracker, "a", 0, 3, (0.0, 0.0), (0.1, 0.05))

    assert len(tracker.tracks(2.9)) == 1


def test_two_persons_who_cross_keep_their_ids():
    tracker = Tracker()
    random = np.random.default_rng(2)

    def places(t: float) -> np.ndarray:
        return np.array([[-3 + t, 0.2], [3 - t, -0.2]])

    for index in range(60):
        order = random.permutation(2)
        seen = (places(index / 10) + random.normal(0, 0.1, (2, 2)))[order]
        tracker.update("ab"[index % 2], index / 10, seen, [SURE, SURE])
        if index == 10:
            before = {tuple(np.sign(xy)): i for i, xy in ids_and_places(tracker, 1.0)}

    after = {tuple(np.sign(xy)): i for i, xy in ids_and_places(tracker, 5.9)}
    assert before[-1.0, 1.0] == after[1.0, 1.0]
    assert before[1.0, -1.0] == after[-1.0, -1.0]
    assert len(after) == 2


def ids_and_places(tracker: Tracker, at: float) -> list[tuple[int, np.ndarray]]:
    tracks = tracker.tracks(at).only_confirmed()
    return list(zip(tracks.id.tolist(), tracks.xy, strict=True))


def test_a_measurement_between_two_is_of_the_one_in_front():
    camera = ViewWedge(0.0, 0.0, 0.0, math.radians(90), 20.0)
    knowing, unknowing = Tracker(coverage={"front": camera}), Tracker()
    for tracker in (knowing, unknowing):
        stand(tracker, "side", 0, 3, (5.0, 0.0), (5.6, 0.0))
        see(tracker, "front", 3.0, (5.31, 0.0))  # a little nearer to the one behind

    assert knowing.tracks(3.0).cameras == (("front", "side"), ("side",))
    assert unknowing.tracks(3.0).cameras == (("side",), ("front", "side"))


def test_a_measurement_that_may_be_anothers_moves_a_track_less():
    alone, doubtful = Tracker(), Tracker()
    stand(alone, "a", 0, 2, (0.0, 0.0))
    stand(doubtful, "a", 0, 2, (0.0, 0.0), (0.45, 0.0))
    for tracker in (alone, doubtful):
        see(tracker, "b", 2.0, (0.2, 0.0))

    moved = [tracker.tracks(2.0).xy[0, 0] for tracker in (alone, doubtful)]
    assert 0.02 < moved[1] < 0.8 * moved[0]


def test_who_is_hidden_does_not_count_as_missed():
    camera = ViewWedge(0.0, 0.0, 0.0, math.radians(90), 20.0)
    settings = TrackerSettings(death_s=1.0, coast_s=5.0)
    knowing, unknowing = Tracker(settings, {"a": camera}), Tracker(settings)
    for tracker in (knowing, unknowing):
        for index in range(20):  # one stands still, another walks in front of her
            see(tracker, "a", index / 10, (8.0, 0.0), (5.0, 2.0 - 0.1 * index))
        stand(tracker, "a", 2.0, 4.0, (5.0, 0.0))

    assert len(knowing.tracks(3.9)) == 2
    assert knowing.tracks(3.9).unseen_s.max() == pytest.approx(2.0)
    assert len(unknowing.tracks(3.9)) == 1


# ------------------------------------------------------------------------------ order and clocks


def assert_same(one: Tracks, other: Tracks) -> None:
    for name in vars(one):
        here, there = getattr(one, name), getattr(other, name)
        if isinstance(here, np.ndarray):
            np.testing.assert_array_equal(here, there)
        else:
            assert here == there


def test_frames_out_of_order_give_exactly_the_tracks_of_frames_in_order():
    frames = [frame.measurements for frame in simulate_hall(5, 4.0).frames]
    in_order = sorted(frames, key=lambda frame: (frame.stamp, frame.camera))
    assert [f.stamp for f in frames] != [f.stamp for f in in_order]
    straight, shuffled = Tracker(), Tracker()

    for tracker, order in ((straight, in_order), (shuffled, frames)):
        for frame in order:
            tracker.update(frame.camera, frame.stamp, frame.xy, frame.covariance)

    assert shuffled.counts.late > 20 and shuffled.counts.too_late == 0
    assert straight.counts.late == 0
    assert len(straight.tracks(4.0)) > 10
    assert_same(straight.tracks(4.0), shuffled.tracks(4.0))


def test_a_frame_that_is_too_late_is_counted_and_changes_nothing():
    tracker = Tracker(TrackerSettings(late_horizon_s=0.5))
    stand(tracker, "a", 0, 2, (1.0, 5.0))
    before = tracker.tracks(2.0)

    see(tracker, "b", 1.39, (1.3, 5.0))

    assert (tracker.counts.too_late, tracker.counts.late, tracker.counts.taken) == (1, 0, 20)
    assert_same(before, tracker.tracks(2.0))

    see(tracker, "b", 1.41, (1.3, 5.0))  # 1.9 s is the newest: this one is not too late

    assert (tracker.counts.too_late, tracker.counts.late, tracker.counts.taken) == (1, 1, 21)
    assert tracker.tracks(2.0).hits.tolist() == [21]


def test_the_same_frame_twice_counts_once():
    tracker = Tracker()
    stand(tracker, "a", 0, 1, (1.0, 5.0))
    see(tracker, "a", 0.9, (1.0, 5.0))

    assert tracker.counts.repeated == 1
    assert tracker.tracks(0.9).hits.tolist() == [10]


@pytest.mark.parametrize("start", [3.0, 1002.5, 5000.0])
def test_after_a_restart_nobody_is_known_and_no_number_comes_again(start):
    tracker = Tracker()
    stand(tracker, "a", 1000, 1002, (1.0, 5.0))
    assert tracker.tracks(1002.0).id.tolist() == [1]

    tracker.restart()
    stand(tracker, "a", start, start + 2, (1.0, 5.0))

    assert tracker.tracks(start + 2).hits.tolist() == [20]
    assert tracker.tracks(start + 2).id.tolist() == [2]
    assert tracker.counts.taken == 40


def test_after_a_pause_that_nobody_outlives_tracks_begin_anew():
    tracker = Tracker(TrackerSettings(coast_s=3.0))
    stand(tracker, "a", 0, 2, (1.0, 5.0))

    assert tracker.update("a", 4.8, [[1.0, 5.0]], [SURE]) is Outcome.NEWEST
    assert tracker.tracks(4.8).hits.tolist() == [21]
    assert tracker.update("a", 8.0, [[1.0, 5.0]], [SURE]) is Outcome.NEWEST
    assert tracker.tracks(8.0).hits.tolist() == [1]


def test_an_update_says_what_became_of_the_frame():
    tracker = Tracker(TrackerSettings(late_horizon_s=0.5))

    def outcome(camera, stamp):
        return tracker.update(camera, stamp, [], [])

    assert [outcome("b", 1.0), outcome("a", 1.0), outcome("c", 1.0)] == [
        Outcome.NEWEST, Outcome.TAKEN, Outcome.TAKEN,
    ]  # fmt: skip
    assert outcome("a", 1.4) is Outcome.NEWEST
    assert outcome("b", 0.95) is Outcome.TAKEN
    assert outcome("b", 0.95) is Outcome.REPEATED
    assert outcome("b", 0.8) is Outcome.TOO_LATE


# ------------------------------------------------------------------------------- birth and death


def test_a_camera_that_goes_dark_takes_no_track_along_that_another_sees():
    tracker = Tracker()
    for index in range(20):
        see(tracker, "a", index / 10, (1.0, 5.0))
        see(tracker, "b", index / 10 + 0.05, (1.0, 5.0))
    before = tracker.tracks(2.0).id.tolist()

    stand(tracker, "b", 2.05, 7.05, (1.0, 5.0))

    tracks = tracker.tracks(7.0)
    assert tracks.id.tolist() == before
    assert tracks.cameras == (("b",),)


def test_a_person_that_leaves_is_gone_after_the_time_of_death():
    tracker = Tracker(TrackerSettings(death_s=1.5))
    stand(tracker, "a", 0, 2, (1.0, 5.0))

    stand(tracker, "a", 2.0, 3.5)
    assert len(tracker.tracks(3.4)) == 1

    stand(tracker, "a", 3.5, 3.8)
    assert len(tracker.tracks(3.7)) == 0


def test_only_a_camera_that_covers_the_place_counts_against_a_track():
    left = ViewWedge(0.0, 0.0, math.pi, math.radians(90), 20.0)
    right = ViewWedge(0.0, 0.0, 0.0, math.radians(90), 20.0)
    knowing, unknowing = Tracker(coverage={"l": left, "r": right}), Tracker()

    for tracker in (knowing, unknowing):
        stand(tracker, "l", 0, 2, (-3.0, 0.0))
        stand(tracker, "r", 2, 4)  # l is dark; r looks the other way

    assert len(knowing.tracks(3.9)) == 1
    assert len(unknowing.tracks(3.9)) == 0
    stand(knowing, "r", 4, 6)
    assert len(knowing.tracks(5.9)) == 0  # 4 s without any look


def test_tracks_that_nobody_has_updated_for_long_are_not_told():
    tracker = Tracker(TrackerSettings(coast_s=3.0))
    stand(tracker, "a", 0, 1, (1.0, 5.0))

    assert len(tracker.tracks(3.8)) == 1
    assert len(tracker.tracks(4.0)) == 0


# ------------------------------------------------------------------------------------- wrong use


def test_before_any_frame_there_is_nobody():
    tracks = Tracker().tracks(12.0)

    assert (len(tracks), tracks.xy.shape, tracks.covariance.shape) == (0, (0, 2), (0, 2, 2))


@pytest.mark.parametrize(
    ("stamp", "xy", "covariance", "sentence"),
    [
        (0.1, [[0, 0]], [[[1, 2], [2, 1]]], "positive definite"),
        (0.1, [[0, math.nan]], [SURE], "finite positions"),
        (math.nan, [[0, 0]], [SURE], "finite stamp"),
        (0.1, [[0, 0, 0]], [SURE], r"shape \[N, 2\]"),
        (0.1, [[0, 0], [1, 1]], [SURE], r"shape \[2, 2, 2\]"),
    ],
)
def test_numbers_that_can_not_be_are_refused_and_change_nothing(stamp, xy, covariance, sentence):
    tracker = Tracker()
    stand(tracker, "a", 0, 1, (1.0, 5.0))

    with pytest.raises(RoiCodecError, match=sentence):
        tracker.update("b", stamp, xy, covariance)

    assert tracker.counts.taken == 10
    assert tracker.tracks(0.9).hits.tolist() == [10]


def test_what_is_forgotten_is_not_made_up():
    tracker = Tracker()
    stand(tracker, "a", 0, 3, (1.0, 5.0))

    with pytest.raises(RoiCodecError, match="forgotten"):
        tracker.tracks(1.0)
    assert tracker.tracks(2.5).unseen_s[0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [{"gate_probability": 1.0}, {"death_s": -1.0}, {"birth_hits": 0}],
)
def test_settings_that_can_not_work_are_refused(wrong):
    with pytest.raises(RoiCodecError, match=next(iter(wrong))):
        TrackerSettings(**wrong)
