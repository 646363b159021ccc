# SPDX-License-Identifier: Apache-2.0
"""The simulated hall goes wrong as often as it says, and tells the truth beside it."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.evaluation.film_frames import read_clip
from roi_codec_ros.lab.simulation.measured_hall import (
    Hall,
    HallSettings,
    measurement_covariance,
    simulate_hall,
    visible,
)
from roi_codec_ros.lab.simulation.walking import FASTEST, SLOWEST, STEP_S
from roi_codec_ros.perception.coverage import ViewWedge

EAST = ViewWedge(0.0, 0.0, 0.0, math.radians(90), 10.0)


@pytest.fixture(scope="module")
def hall() -> Hall:
    return simulate_hall(11, 30.0)


def test_a_wedge_covers_what_lies_in_its_angle_and_range():
    places = np.array([[9.9, 0], [10.1, 0], [3, 2.9], [3, 3.1], [-1, 0], [math.nan, 0]])

    assert EAST.covers(places).tolist() == [True, False, True, False, False, False]


def test_a_wedge_across_the_half_turn():
    west = ViewWedge(0.0, 0.0, math.pi, math.radians(90), 10.0)

    assert west.covers(np.array([[-5.0, 0.1], [-5.0, -0.1], [5.0, 0.0]])).tolist() == [1, 1, 0]


def test_who_stands_behind_another_is_not_visible():
    places = np.array([[4.0, 0.0], [6.0, 0.1], [6.0, 1.0], [4.2, 0.0]])

    # The second is hidden by the first; the third stands beside; the fourth is too near to hide.
    assert visible(EAST, places).tolist() == [True, False, True, True]


def test_measurements_are_worse_along_the_ray_and_far_away():
    covariance = measurement_covariance(EAST, np.array([[10.0, 0.0], [0.0, 10.0]]))

    along, across = 0.05 + 0.15, 0.04 + 0.06
    assert covariance[0] == pytest.approx(np.diag([along**2, across**2]))
    assert covariance[1] == pytest.approx(np.diag([across**2, along**2]))


def test_the_same_seed_is_the_same_hall_and_another_is_not():
    one, same, other = (simulate_hall(seed, 2.0).frames for seed in (3, 3, 4))

    assert [f.arrival for f in one] == [f.arrival for f in same]
    np.testing.assert_array_equal(one[-1].measurements.xy, same[-1].measurements.xy)
    assert [f.arrival for f in one] != [f.arrival for f in other]


def test_people_walk_at_the_speed_of_people_and_stay_in_the_hall(hall):
    xy, ids = hall.walk.xy, hall.walk.ids
    same = (ids[1:] == ids[:-1]) & (ids[1:] > 0)
    speed = np.linalg.norm(np.diff(xy, axis=0), axis=2)[same] / STEP_S

    assert speed.min() >= SLOWEST - 1e-6 and speed.max() <= FASTEST + 1e-6
    assert np.abs(xy[ids > 0, 0]).max() < 11.5 and xy[ids > 0, 1].min() > -1.5
    assert len(np.unique(ids[ids > 0])) > 20  # some left, others came
    assert 17 < (ids > 0).sum(axis=1).mean() <= 20


def test_people_seldom_walk_through_each_other(hall):
    apart = np.linalg.norm(hall.walk.xy[:, :, None] - hall.walk.xy[:, None], axis=3)
    first, second = np.triu_indices(20, 1)

    assert np.nanmean(apart[:, first, second] < 0.4) < 0.001


def test_frames_arrive_out_of_order_late_and_some_never(hall):
    stamps = [frame.measurements.stamp for frame in hall.frames]

    assert sorted(stamps) != stamps
    assert [f.arrival for f in hall.frames] == sorted(f.arrival for f in hall.frames)
    assert len(stamps) / (4 * 300) == pytest.approx(0.95, abs=0.03)


def test_clocks_are_wrong_by_up_to_50_ms_and_each_by_its_own():
    without = HallSettings(latency_s=0.1, latency_tail_s=0.0, jitter_s=0.0)
    offsets: dict[str, set[float]] = {}
    for frame in simulate_hall(8, 5.0, without).frames:
        seen = frame.measurements
        offsets.setdefault(seen.camera, set()).add(round(seen.stamp - frame.arrival + 0.1, 9))

    assert all(len(of_camera) == 1 for of_camera in offsets.values())
    wrong = [of_camera.pop() for of_camera in offsets.values()]
    assert max(map(abs, wrong)) <= 0.05 and len(set(wrong)) == 4


def test_noise_is_what_the_covariance_says():
    clean = HallSettings(
        missed=0.0, false_per_frame=0.0, dropped=0.0, clock_offset_s=0.0, persons=1
    )
    hall = simulate_hall(2, 60.0, clean)
    distances = []
    for frame in hall.frames:
        seen = frame.measurements
        _, xy = hall.walk.at(seen.stamp)
        if len(seen.xy) == len(xy) == 1:
            error = seen.xy[0] - xy[0]
            distances.append(error @ np.linalg.inv(seen.covariance[0]) @ error)

    # Two degrees of freedom: a mean of 2, and its standard deviation here is 2 / √n < 0.06.
    assert len(distances) > 1200
    assert np.mean(distances) == pytest.approx(2.0, abs=0.2)


def test_one_in_ten_is_missed_and_some_are_false():
    def detections(**wrong: float) -> float:
        settings = HallSettings(**{"missed": 0.0, "false_per_frame": 0.0, "dropped": 0.0} | wrong)
        frames = simulate_hall(6, 20.0, settings).frames
        return float(np.mean([len(frame.measurements.xy) for frame in frames]))

    all_seen = detections()
    assert detections(missed=0.1) / all_seen == pytest.approx(0.9, abs=0.03)
    assert detections(false_per_frame=0.5, false_stays=0.0) - all_seen > 0.2


def test_too_short_a_time_is_refused():
    with pytest.raises(RoiCodecError, match="a second or more"):
        simulate_hall(1, 0.2)


# -------------------------------------------------------------------------------------- the verb


def test_simulate_writes_its_figures_and_a_video_and_they_are_good(tmp_path, capsys):
    pytest.importorskip("motmetrics")
    report, video = tmp_path / "r.json", tmp_path / "hall.mp4"

    arguments = ["simulate", "--seed", "1", "--minutes", "0.3", "--json", str(report)]

    status = main([*arguments, "--video", str(video)])

    assert status == 0
    figures = json.loads(report.read_text())
    assert set(figures) == {
        "generator", "idf1", "mota", "position_error_m", "false_tracks_per_minute",
        "persons", "cameras", "seed", "minutes",
    }  # fmt: skip
    assert figures["idf1"] >= 0.85
    assert 0.8 <= figures["mota"] <= 1.0
    assert 0.0 < figures["position_error_m"]["p50"] <= 0.25
    assert figures["position_error_m"]["p50"] < figures["position_error_m"]["p95"]
    assert figures["false_tracks_per_minute"] <= 1.0
    assert (figures["persons"], figures["cameras"]) == (20, 4)
    assert (figures["seed"], figures["minutes"]) == (1, 0.3)
    assert f"{figures['idf1']:.3f}" in capsys.readouterr().out
    film = cv2.VideoCapture(str(video))
    assert film.get(cv2.CAP_PROP_FRAME_COUNT) == 180
    read, picture = film.read()
    assert read and picture.std() > 5


def test_a_camera_films_a_hall_that_stands_still(tmp_path, capsys):
    film = tmp_path / "hall.avi"
    arguments = ["simulate", "--seed", "1", "--minutes", "0.05"]

    assert main([*arguments, "--film", str(film)]) == 0

    clip = read_clip(film, frames=100)
    assert (len(clip.images), clip.rate_hz, clip.size) == (30, 10.0, (480, 640))
    apart = np.abs(clip.images[0].astype(np.int16) - clip.images[-1]).max(axis=2)
    blocks = apart.reshape(30, 16, 40, 16).mean(axis=(1, 3))
    assert 0.5 < np.median(blocks) < 6.0  # a sensor's noise
    assert 3 <= (blocks > 20).sum() < 200  # and people who walk
    assert main([*arguments, "--film", str(film), "--json", str(tmp_path / "r"), "--force"]) == 2
    assert main([*arguments, "--film", str(tmp_path / "hall.mp4")]) == 2
    assert "expected a film's name to end with .avi" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--minutes", "x"], ["--seed", "-1"]])
def test_simulate_refuses_what_it_can_not_do(wrong, capsys):
    with pytest.raises(SystemExit) as left:
        main(["simulate", *wrong])

    assert left.value.code == 2
    assert "number" in capsys.readouterr().err
