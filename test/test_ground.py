# SPDX-License-Identifier: Apache-2.0
"""From boxes to the map's ground: cases worked by hand, OpenCV's projection, Monte Carlo."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import (
    CREDIBLE_HEIGHTS,
    CameraPose,
    GroundNoise,
    Reason,
    beyond_range,
    ground_positions,
    height_shares,
)

CAMERA = CameraModel(fx=500.0, fy=500.0, cx=320.0, cy=240.0, width=640, height=480)
HIGH = CameraPose.from_xyz_rpy(0, 0, 3, 0, math.radians(45), 0)  # looks at the ground 3 m ahead
LEVEL = CameraPose.from_xyz_rpy(0, 0, 2, 0, 0, 0)
LOW = CameraPose.from_xyz_rpy(0, 0, 1, 0, 0, 0)  # a robot's
LENSES = [
    CAMERA,
    replace(CAMERA, distortion=(-0.28, 0.07, 0.0005, -0.0003, 0.0)),
    replace(CAMERA, fx=300.0, fy=310.0, distortion_model="equidistant",
            distortion=(-0.02, 0.004, -0.002, 0.0003)),
]  # fmt: skip
EXACT = GroundNoise(0.0, 0.0, 0.0, 0.0, 0.0)


def box(foot_u, foot_v, height=100.0, width=40.0):
    return [foot_u - width / 2, foot_v - height, foot_u + width / 2, foot_v]


def cut_box(head_u, head_v, width=40.0):
    """A box whose lower end the image's border cuts."""
    return [head_u - width / 2, head_v, head_u + width / 2, 480.0]


def only(boxes, camera=CAMERA, pose=HIGH, **options):
    places = ground_positions([boxes], camera, pose, **options)
    return places.xy[0], places.covariance[0], places.reason[0], places.method[0]


def seen_by_opencv(places_map, camera, pose):
    rotation = pose.rotation.T
    turn, _ = cv2.Rodrigues(rotation)
    shift = -rotation @ pose.translation
    fisheye = camera.distortion_model == "equidistant"
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    places = np.asarray(places_map, np.float64).reshape(-1, 1, 3)
    pixels, _ = project(places, turn, shift, camera.matrix, np.array(camera.distortion))
    return pixels.reshape(-1, 2)


# Poses


def test_a_level_camera_sees_the_maps_axes_as_rep_103_says():
    pose = CameraPose.from_xyz_rpy(1, 2, 3, 0, 0, 0)

    ahead, left, above = pose.to_camera([[2, 2, 3], [1, 3, 3], [1, 2, 4]])

    assert ahead == pytest.approx([0, 0, 1])
    assert left == pytest.approx([-1, 0, 0])
    assert above == pytest.approx([0, -1, 0])


def test_tf_and_parameters_give_the_same_pose():
    # The well-known quaternion of an optical frame in a level body, and the same turned left.
    half = math.sqrt(0.5)
    for quaternion, yaw in (
        ([-0.5, 0.5, -0.5, 0.5], 0.0),
        ([-half, 0, 0, half], math.pi / 2),
        ([half, 0, 0, -half], math.pi / 2),
    ):
        by_tf = CameraPose.from_transform([1, 2, 3], quaternion)
        by_parameters = CameraPose.from_xyz_rpy(1, 2, 3, 0, 0, yaw)

        assert by_tf.rotation == pytest.approx(by_parameters.rotation)
        assert by_tf.translation.tolist() == [1, 2, 3]


@given(
    st.tuples(*[st.floats(-9, 9)] * 3, st.floats(-3.1, 3.1), st.floats(-1.5, 1.5),
              st.floats(-3.1, 3.1))
)  # fmt: skip
@settings(deadline=None)
def test_parameters_come_back_from_a_pose(parameters):
    assert CameraPose.from_xyz_rpy(*parameters).to_xyz_rpy() == pytest.approx(parameters)


def test_a_camera_that_looks_straight_down_comes_back_without_roll():
    pose = CameraPose.from_xyz_rpy(1, 2, 3, 0.2, math.pi / 2, 0.5)

    parameters = pose.to_xyz_rpy()

    assert parameters == pytest.approx((1, 2, 3, 0, math.pi / 2, 0.3))
    assert CameraPose.from_xyz_rpy(*parameters).rotation == pytest.approx(pose.rotation)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: CameraPose.from_transform([0, 0, 0], [0, 0, 0, 0]), "unit quaternion"),
        (lambda: CameraPose.from_transform([0, 0, 0], [0, 0, 1]), "unit quaternion"),
        (lambda: CameraPose(np.diag([1.0, 1, -1]), np.zeros(3)), "rotation matrix"),
        (lambda: CameraPose(np.eye(3) * 2, np.zeros(3)), "rotation matrix"),
        (lambda: CameraPose(np.eye(3), np.array([0, 0, math.nan])), "finite translation"),
        (lambda: CameraPose(np.eye(4), np.zeros(3)), r"found \[4, 4\]"),
    ],
)
def test_what_is_no_pose_is_refused(make, found):
    with pytest.raises(RoiCodecError, match=found):
        make()


# Places worked by hand


def test_a_camera_at_3_m_that_looks_45_degrees_down_sees_3_m_ahead():
    xy, _, reason, method = only(box(320, 240))

    assert xy == pytest.approx([3, 0])
    assert (reason, method) == ("ok", "foot")


def test_a_level_camera_sees_the_ground_one_height_away_at_45_degrees():
    # f_y px below the axis is 45° down; f_x px to the right there is as far across.
    camera = replace(CAMERA, fx=200.0, fy=200.0)

    ahead, right = ground_positions([box(320, 440), box(520, 440)], camera, LEVEL).xy

    assert ahead == pytest.approx([2, 0])
    assert right == pytest.approx([2, -2])


def test_where_the_camera_stands_and_how_it_turns_moves_the_place():
    pose = CameraPose.from_xyz_rpy(1, 2, 3, 0, math.radians(45), math.radians(90))

    assert only(box(320, 240), pose=pose)[0] == pytest.approx([1, 5])


def test_a_camera_upside_down_sees_a_turned_image():
    upright = only(box(400, 300))[0]
    turned = CameraPose.from_xyz_rpy(0, 0, 3, math.pi, math.radians(45), 0)

    assert only(box(240, 180), pose=turned)[0] == pytest.approx(upright)


def test_a_ceiling_camera_sees_what_is_below_it():
    down = CameraPose.from_xyz_rpy(4, 5, 4, 0, math.pi / 2, 0)

    # 125 px of 500 at 4 m: 1 m. Up in the image is ahead.
    assert only(box(320, 115), pose=down)[0] == pytest.approx([5, 5])
    assert only(box(445, 240), pose=down)[0] == pytest.approx([4, 4])


def test_a_raised_ground_is_nearer():
    assert only(box(320, 240), ground_z_m=1.0)[0] == pytest.approx([2, 0])


def test_a_cut_box_is_placed_by_its_head():
    xy, _, reason, method = only(cut_box(320, 240))

    assert xy == pytest.approx([3 - 1.7, 0])  # 45° down to a plane 1.3 m below
    assert (reason, method) == ("ok", "head")
    assert only(cut_box(320, 240), person_height_m=1.5)[0] == pytest.approx([1.5, 0])


def test_a_camera_lower_than_heads_looks_up_at_them():
    # 0.7 m over 5 m.
    xy, _, reason, method = only(cut_box(320, 240 - 500 * 0.7 / 5), pose=LOW)

    assert xy == pytest.approx([5, 0])
    assert (reason, method) == ("ok", "head")


# Round trips


@pytest.mark.parametrize("camera", LENSES, ids=["pinhole", "plumb_bob", "equidistant"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_feet_seen_by_opencv_come_back_to_their_place(camera, seed):
    generator = np.random.default_rng(seed)
    x, y, z = generator.uniform([-20, -20, 1], [20, 20, 6])
    roll, pitch, yaw = generator.uniform([-0.2, 0.1, -3], [0.2, 1.2, 3])
    pose = CameraPose.from_xyz_rpy(x, y, z, roll, pitch, yaw)
    focus = pose.rotation[:, 2]
    middle = pose.translation - focus * z / focus[2]
    places = np.zeros((60, 3))
    places[:, :2] = middle[:2] + generator.uniform(-4, 4, (60, 2))
    places = places[pose.to_camera(places)[:, 2] > 0.1]
    feet = seen_by_opencv(places, camera, pose)
    inside = (feet > 5).all(axis=1) & (feet < [635, 470]).all(axis=1)

    found = ground_positions([box(*foot, height=80) for foot in feet[inside]], camera, pose)

    near = np.linalg.norm(places[inside, :2] - pose.translation[:2], axis=1) < 20
    steep = z / 20 > math.tan(math.radians(2.5))
    assert found.valid[near & steep].all()
    assert found.xy[found.valid] == pytest.approx(places[inside][found.valid, :2], abs=1e-4)


def test_a_rescaled_image_gives_the_same_place():
    generator = np.random.default_rng(5)
    corners = generator.uniform([0, 0], [640, 480], (200, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes[::4, 3] = 480
    boxes[::5, 3] = 478.5  # almost at the border: at any size
    for camera in LENSES:
        small = camera.scale_to(512, 256)
        scale = np.array([512 / 640, 256 / 480] * 2)
        here = ground_positions(boxes, camera, HIGH)
        there = ground_positions(boxes * scale, small, HIGH)

        assert there.xy == pytest.approx(here.xy, abs=1e-5, nan_ok=True)
        assert there.reason.tolist() == here.reason.tolist()
        assert set(here.method[here.valid]) == {"foot", "head"}


def test_boxes_do_not_touch_each_other():
    boxes = [box(320, 240), cut_box(320, 240), box(100, 30), [math.nan] * 4, box(500, 400)]

    together = ground_positions(boxes, CAMERA, HIGH)

    for index, one in enumerate(boxes):
        xy, covariance, reason, method = only(one)
        assert together.xy[index] == pytest.approx(xy, nan_ok=True)
        assert together.covariance[index] == pytest.approx(covariance, nan_ok=True)
        assert (together.reason[index], together.method[index]) == (reason, method)


def test_nobody_gives_empty_arrays():
    places = ground_positions([], CAMERA, HIGH)

    assert places.xy.shape == (0, 2)
    assert places.covariance.shape == (0, 2, 2)
    assert places.valid.shape == places.reason.shape == places.method.shape == (0,)


# Covariance


def test_pixel_noise_grows_with_the_square_of_the_range():
    # Level camera: x = h f / v, so dx = x² / (h f) dv, and dy = x / f du.
    noise = replace(EXACT, edge_px=2.0)

    xy, covariance, _, _ = only(box(320, 240 + 100), pose=LEVEL, noise=noise)

    assert xy == pytest.approx([10, 0])
    assert covariance == pytest.approx(np.diag([(0.1 * 2) ** 2, (10 / 500 * 2) ** 2]), rel=1e-4)


def test_edges_of_large_boxes_are_less_certain_in_pixels():
    noise = replace(EXACT, edge_px=3.0, edge_share=0.04)
    square = [
        only(box(320, 340, height), pose=LEVEL, noise=noise)[1][0, 0] for height in (50, 100)
    ]

    assert square[1] / square[0] == pytest.approx((3**2 + 4**2) / (3**2 + 2**2))


def test_camera_height_and_tilt_move_a_place_by_hand():
    # At 45°: as far as the height is wrong; a tilt swings the 4.24 m ray over a slope of 45°.
    height = only(box(320, 240), noise=replace(EXACT, camera_height_m=0.1))[1]
    tilt = only(box(320, 240), noise=replace(EXACT, tilt_rad=0.01))[1]

    assert height == pytest.approx(np.diag([0.1**2, 0]), abs=1e-12)
    assert tilt == pytest.approx(np.diag([(0.01 * 6) ** 2, (0.01 * 3) ** 2]), abs=1e-12)


def test_the_spread_of_heights_is_the_spread_of_heads():
    noise = replace(EXACT, person_height_share=0.1)

    assert only(cut_box(320, 240), noise=noise)[1] == pytest.approx(
        np.diag([0.17**2, 0]), abs=1e-12
    )
    assert not only(box(320, 240), noise=noise)[1].any()


def test_a_place_by_the_head_is_less_certain():
    by_foot, by_head = only(box(320, 240))[1], only(cut_box(320, 240))[1]

    assert by_head[0, 0] > 4 * by_foot[0, 0]


def test_a_box_cut_at_the_side_is_less_certain_across():
    noise = replace(EXACT, edge_px=2.0)
    whole = only([6, 140, 46, 240], noise=noise)[1]
    cut = only([0, 140, 52, 240], noise=noise)[1]

    # Half of 52 px at 3 √2 m along the axis; straight across, as the foot lies on the middle row.
    across_m = 26 * 3 * math.sqrt(2) / 500
    assert cut - whole == pytest.approx(np.diag([0, across_m**2]), abs=1e-5)


@pytest.mark.parametrize("camera", LENSES, ids=["pinhole", "plumb_bob", "equidistant"])
@pytest.mark.parametrize("way", ["foot", "head"])
def test_covariance_is_that_of_thousands_of_draws(camera, way):
    generator = np.random.default_rng(11)
    pose = CameraPose.from_xyz_rpy(2, -1, 4, 0.1, 0.6, 0.8)
    noise = GroundNoise(1.0, 0.01, 0.03, 0.004, 0.03)
    seen = box(430, 350) if way == "foot" else cut_box(430, 250)
    _, covariance, _, method = only(seen, camera, pose, noise=noise)
    assert method == way
    count = 20_000
    edge_px = math.hypot(1.0, 0.01 * (seen[3] - seen[1]))
    drawn = np.array(seen) + np.zeros((count, 4))
    drawn[:, [0, 2]] += generator.normal(0, edge_px, (count, 1))
    drawn[:, 3 if way == "foot" else 1] += generator.normal(0, edge_px, count)
    rays = camera.undistort(
        np.column_stack([drawn[:, [0, 2]].mean(axis=1), drawn[:, 3 if way == "foot" else 1]])
    )
    turns = np.zeros((count, 3))
    turns[:, :2] = generator.normal(0, 0.004, (count, 2))
    tilted = rays @ pose.rotation.T
    tilted += np.cross(turns, tilted)
    person = 1.7 * (1 + generator.normal(0, 0.03, count)) if way == "head" else np.zeros(count)
    fall = person - (4 + generator.normal(0, 0.03, count))

    places = tilted[:, :2] / tilted[:, 2:] * fall[:, None]

    size = np.sqrt(np.linalg.eigvalsh(covariance))
    assert np.sqrt(np.linalg.eigvalsh(np.cov(places.T))) == pytest.approx(size, rel=0.03)
    assert np.cov(places.T) == pytest.approx(covariance, abs=0.03 * size[1] ** 2)


# Refused, not guessed


@pytest.mark.parametrize(
    ("boxes", "pose", "reason"),
    [
        (box(320, 239), LEVEL, Reason.ABOVE_HORIZON),
        (box(320, 240), LEVEL, Reason.ABOVE_HORIZON),
        (box(320, 240 + 500 * math.tan(math.radians(1.9))), LEVEL, Reason.NEAR_HORIZON),
        (box(320, 240 + 500 * 2 / 30.1), LEVEL, Reason.OUT_OF_RANGE),
        (cut_box(320, 0), HIGH, Reason.CUT_AT_BOTTOM),
        (cut_box(320, 10), HIGH, Reason.OK),
        (cut_box(320, 100), CameraPose.from_xyz_rpy(0, 0, 1.5, 0, 0, 0), "head_at_camera_height"),
        (cut_box(320, 250), LOW, Reason.BELOW_HORIZON),
        (cut_box(320, 235), LOW, Reason.NEAR_HORIZON),
        (cut_box(320, 200), CameraPose.from_xyz_rpy(0, 0, 3, 0, 0, 0), Reason.ABOVE_HORIZON),
        (box(320, 300), CameraPose.from_xyz_rpy(0, 0, -0.1, 0, 0, 0), "camera_below_ground"),
        (box(320, 240), CameraPose.from_xyz_rpy(0, 0, 0, 0, 1, 0), "camera_below_ground"),
        ([300, 200, 340, 200], HIGH, Reason.EMPTY_BOX),
        ([300, 200, 340, 150], HIGH, Reason.EMPTY_BOX),
        ([340, 100, 300, 200], HIGH, Reason.EMPTY_BOX),
        ([300, math.nan, 340, 200], HIGH, Reason.EMPTY_BOX),
        ([300, 100, 340, math.inf], HIGH, Reason.EMPTY_BOX),
    ],
)
def test_what_can_not_be_known_is_refused_with_its_reason(boxes, pose, reason):
    places = ground_positions([boxes, boxes], CAMERA, pose)

    assert places.reason.tolist() == [Reason(reason).value] * 2
    assert places.valid.tolist() == [reason is Reason.OK] * 2
    assert np.isnan(places.xy).all() == (reason is not Reason.OK)
    assert np.isnan(places.covariance).all() == (reason is not Reason.OK)


def test_a_foot_outside_the_lens_model_is_refused():
    # r - r³/3 ends at 2/3: 333 px from the centre.
    folded = replace(CAMERA, cx=100.0, distortion=(-1 / 3, 0, 0, 0))

    places = ground_positions([box(440, 240), box(330, 240)], folded, HIGH)

    assert places.reason.tolist() == ["outside_lens_model", "ok"]


def test_limits_are_those_that_are_asked_for():
    far, low = box(320, 240 + 500 * 2 / 30.1), box(320, 240 + 500 * math.tan(math.radians(4)))

    assert only(far, pose=LEVEL, max_range_m=31)[0] == pytest.approx([30.1, 0])
    assert only(low, pose=LEVEL)[2] == "ok"
    assert only(low, pose=LEVEL, horizon_margin_rad=math.radians(5))[2] == "near_horizon"
    assert only(low, pose=LEVEL, ground_z_m=2.0)[2] == "camera_below_ground"


# Too far away, or a wrong pose


def placed(box, pose, camera=CAMERA, max_range_m=30.0):
    """Reason of a box, and whether its person is credibly beyond the range."""
    places = ground_positions([box], camera, pose, max_range_m=max_range_m)
    beyond = beyond_range(places, [box], camera, max_range_m=max_range_m)
    return str(places.reason[0]), bool(beyond[0])


def test_a_small_person_beyond_the_range_is_there_and_a_tall_one_is_not():
    pose = CameraPose.from_xyz_rpy(0, 0, 3.0, 0, 0.0, 0)
    # Feet 40 m away are 37.5 px below the axis, and 1.7 m there are 21 px.
    assert placed([318, 256, 322, 277.5], pose) == ("out_of_range", True)
    assert placed([300, 157, 340, 277.5], pose) == ("out_of_range", False)
    assert placed([318, 225, 322, 245], pose) == ("near_horizon", True)
    assert placed([318, 220, 322, 239], pose) == ("above_horizon", True)
    assert placed([300, 100, 340, 239], pose) == ("above_horizon", False)


def test_who_has_a_place_or_no_height_is_not_beyond_the_range():
    pose = CameraPose.from_xyz_rpy(0, 0, 3.0, 0, 0.0, 0)

    assert placed([300, 250, 340, 400], pose) == ("ok", False)
    assert placed([300, 400, 340, 400], pose) == ("empty_box", False)
    assert beyond_range(ground_positions([], CAMERA, pose), [], CAMERA).shape == (0,)


def test_a_pose_in_millimetres_puts_nobody_credibly_away():
    pose = CameraPose.from_xyz_rpy(0, 0, 3000.0, 0, 0.4, 0)

    assert placed([300, 200, 340, 320], pose) == ("out_of_range", False)


def test_a_person_is_as_tall_as_one_who_stands_at_its_place_and_a_wrong_unit_shows():
    camera = CameraModel.from_hfov(640, 480, 80.0)
    right = CameraPose.from_xyz_rpy(0, 0, 3.0, 0, 0.4, 0)
    feet, heads = (
        camera.project(right.to_camera([[5.0, y, z] for y in (-1.0, 0.0, 2.0)]))
        for z in (0.0, 1.7)
    )
    boxes = np.column_stack([feet[:, 0] - 9, heads[:, 1], feet[:, 0] + 9, feet[:, 1]])

    def shares(z):
        pose = CameraPose.from_xyz_rpy(0, 0, z, 0, 0.4, 0)
        places = ground_positions(boxes, camera, pose, max_range_m=100.0)
        return height_shares(places, boxes, camera, pose)

    assert shares(3.0) == pytest.approx(1.0, abs=0.2)
    assert (shares(0.3) < CREDIBLE_HEIGHTS[0]).all()
    assert (shares(30.0) > CREDIBLE_HEIGHTS[1]).all()


def test_whom_the_image_cuts_and_who_has_no_place_has_no_height():
    pose = CameraPose.from_xyz_rpy(0, 0, 3.0, 0, 0.4, 0)
    boxes = [[300, 0, 340, 300], [300, 200, 340, 480], [300, 10, 340, 20]]
    places = ground_positions(boxes, CAMERA, pose)

    assert np.isnan(height_shares(places, boxes, CAMERA, pose)).all()


def test_who_lies_or_is_seen_from_above_is_credible():
    ceiling = CameraPose.from_xyz_rpy(0, 0, 3.0, 0, math.pi / 2, 0)
    low, high = CREDIBLE_HEIGHTS

    for box in ([300, 200, 380, 280], [300, 200, 560, 300]):  # 0.5 m at the floor; one lying
        places = ground_positions([box], CAMERA, ceiling)
        assert low < height_shares(places, [box], CAMERA, ceiling)[0] < high
