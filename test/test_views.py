# SPDX-License-Identifier: Apache-2.0
"""Camera poses as people write them, and what a camera sees of the ground."""

from __future__ import annotations

import math

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception import views
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose, ground_positions
from roi_codec_ros.perception.pose_points import pose_yaml
from roi_codec_ros.perception.poses import parse_camera_poses
from roi_codec_ros.perception.views import GroundView

CAMERA = CameraModel.from_hfov(640, 480, 80.0)
POSE = CameraPose.from_xyz_rpy(0.0, 0.0, 2.5, 0.0, 0.4, 0.0)


def test_poses_are_read_in_metres_and_radians():
    poses = parse_camera_poses(["front: 1 2 3.5 0 0.1 -1.5", "", "hall/back:0 0 2 0 0 0"])

    assert poses["front"].to_xyz_rpy() == pytest.approx((1, 2, 3.5, 0, 0.1, -1.5))
    assert list(poses) == ["front", "hall/back"]


def test_a_pose_comes_from_the_file_of_calibrate_ground(tmp_path):
    path = tmp_path / "front.yaml"
    path.write_text(pose_yaml(POSE, 0.5), encoding="utf-8")

    pose = parse_camera_poses([f"front: {path}"])["front"]

    assert pose.to_xyz_rpy() == pytest.approx(POSE.to_xyz_rpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (["front"], 'expected "name: x y z roll pitch yaw", found'),
        (["front: 1 2 3"], "expected six numbers"),
        (["front: 1 2 3 4 5 six"], "expected six numbers"),
        (["front: 1 2 3 4 5 nan"], "expected six numbers"),
        (["a: 0 0 2 0 0 0", "a: 0 0 2 0 0 0"], "found two for a"),
        (["front: /no/such.yaml"], "in /no/such.yaml, found: No such file or directory$"),
        (["front: 0 0 2 0 25 180"], "expected roll, pitch and yaw in radians"),
    ],
)
def test_what_is_no_pose_is_refused(entries, sentence):
    with pytest.raises(RoiCodecError, match=sentence):
        parse_camera_poses(entries)


def test_a_file_without_the_six_numbers_is_refused(tmp_path):
    path = tmp_path / "front.yaml"
    path.write_text("x: 1\n", encoding="utf-8")

    with pytest.raises(RoiCodecError, match="expected x, y, z, roll, pitch, yaw in"):
        parse_camera_poses([f"front: {path}"])


def test_a_view_covers_what_the_image_shows_of_the_floor():
    places = np.array([[5.0, 0.0], [5.0, 3.0], [5.0, 9.0], [-5.0, 0.0], [0.5, 0.0], [12.0, 0.0]])

    covered = GroundView(CAMERA, POSE, 10.0).covers(places)

    # ahead, to the left, out of the image, behind, under the camera, out of range
    assert covered.tolist() == [True, True, False, False, False, False]


def test_a_covered_place_is_one_that_a_box_can_be_put_on():
    random = np.random.default_rng(5)
    places = random.uniform([-2, -8], [12, 8], (500, 2))
    view = GroundView(CAMERA, POSE, 10.0)
    feet = CAMERA.project(POSE.to_camera(np.column_stack([places, np.zeros(500)])))
    boxes = np.column_stack([feet - (10, 80), feet + np.array([10, 0])])
    found = ground_positions(boxes, CAMERA, POSE, max_range_m=10.0)
    covered = view.covers(places)

    assert covered.sum() > 50
    by_foot = found.valid & (found.method == "foot")
    assert by_foot[covered].all()
    assert found.xy[covered] == pytest.approx(places[covered], abs=0.01)


def test_cells_are_those_whose_middle_is_covered():
    view = GroundView(CAMERA, POSE, 6.0, cell_m=0.5)
    cells = view.cells

    assert len(cells)
    assert view.covers((cells + 0.5) * 0.5).all()
    assert [8, 0] in cells.tolist()  # 4.25 m ahead
    area_m2 = len(cells) * 0.25
    assert 10 < area_m2 < math.pi * 36 * 80 / 360  # the wedge, less what is below the image


def test_a_camera_below_the_ground_covers_nothing():
    pose = CameraPose.from_xyz_rpy(0.0, 0.0, -1.0, 0.0, -0.4, 0.0)

    assert not len(GroundView(CAMERA, pose, 6.0).cells)


def test_who_stands_behind_another_is_hidden():
    hidden = GroundView(CAMERA, POSE, 10.0).hidden(np.array([[3.0, 0.0], [6.0, 0.0], [6.0, 4.0]]))

    assert hidden.tolist() == [False, True, False]


def test_a_view_is_made_anew_only_for_another_lens_pose_or_range():
    view = GroundView(CAMERA, POSE, 10.0)
    again = CameraPose.from_xyz_rpy(0.0, 0.0, 2.5, 0.0, 0.4, 0.0)

    assert view.same_as(CAMERA.scale_to(640, 480), again, 10.0)
    assert not view.same_as(CAMERA.scale_to(320, 240), again, 10.0)
    assert not view.same_as(CAMERA, CameraPose.from_xyz_rpy(0, 0, 2, 0, 0, 0), 10.0)
    assert not view.same_as(CAMERA, again, 9.0)


@pytest.mark.parametrize(
    ("pose", "reason"),
    [
        ((0, 0, 2.5, 0, 0.35, 0), ""),
        ((0, 0, 3.0, 0, math.pi / 2, 0), ""),  # from a ceiling
        ((0, 0, 1.0, 0, 0.0, 0), ""),
        ((0, 0, -2.5, 0, 0.35, 0), "camera_below_ground"),
        ((0, 0, 2.5, 0, -1.2, 0), "above_horizon"),  # looks up
        ((0, 0, 2500.0, 0, 0.35, 0), "out_of_range"),  # millimetres
        ((0, 0, 2.5, math.pi / 2, 0.0, math.pi / 2), ""),  # on its side
    ],
)
@pytest.mark.parametrize("cell_m", [0.25, 10.0])
def test_a_camera_that_can_see_no_floor_is_blind_whatever_the_cells(pose, reason, cell_m):
    view = GroundView(CAMERA, CameraPose.from_xyz_rpy(*pose), 30.0, cell_m)

    assert view.blindness == reason


def test_cells_are_found_in_parts_as_at_once(monkeypatch):
    at_once = GroundView(CAMERA, POSE, 10.0).cells
    monkeypatch.setattr(views, "CELLS_AT_ONCE", 200)

    assert np.array_equal(GroundView(CAMERA, POSE, 10.0).cells, at_once)


def test_floor_where_the_picture_is_unknown_is_not_covered():
    view = GroundView(CAMERA, POSE, 20.0)
    unknown = np.zeros((30, 40), bool)
    unknown[:, :10] = True  # the left quarter

    shown = view.shown(unknown)

    assert view.shown(None) is view
    left, right = np.array([[4.0, 2.5]]), np.array([[4.0, -2.5]])  # y points left
    assert view.covers(np.vstack([left, right])).all()
    assert not shown.covers(left).any() and shown.covers(right).all()
    assert 0.6 < len(shown.cells) / len(view.cells) < 0.9
    assert not len(view.shown(np.ones((30, 40), bool)).cells)
