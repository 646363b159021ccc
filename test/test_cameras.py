# SPDX-License-Identifier: Apache-2.0
"""Lens models against closed forms and against OpenCV's own projection."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception.cameras import CameraModel, read_calibration

PINHOLE = CameraModel(fx=600.0, fy=500.0, cx=320.0, cy=240.0, width=640, height=480)
WIDE = (-0.28, 0.07, 0.0005, -0.0003, 0.0)  # a lens of about 100° across
RATIONAL = (0.5, -0.1, 0.0002, 0.0003, 0.01, 0.8, 0.05, 0.001)
FISHEYE = (-0.02, 0.004, -0.002, 0.0003)


def camera_with(model: str, distortion: tuple[float, ...]) -> CameraModel:
    return CameraModel(410.0, 400.0, 330.0, 236.0, 640, 480, model, distortion)


LENSES = [
    camera_with("plumb_bob", ()),
    camera_with("plumb_bob", WIDE[:4]),
    camera_with("plumb_bob", WIDE),
    camera_with("rational_polynomial", RATIONAL),
    camera_with("rational_polynomial", (*RATIONAL, 0.001, -0.0005, 0.0008, 0.0002)),
    camera_with("rational_polynomial", (*RATIONAL, 0.001, 0.0, 0.0, 0.0, 0.01, -0.02)),
    camera_with("equidistant", FISHEYE),
]


def lens_name(camera: CameraModel) -> str:
    return f"{camera.distortion_model}-{len(camera.distortion)}"


# Closed forms


def test_a_pinhole_pixel_is_the_ray_of_its_tangents():
    rays = PINHOLE.undistort([[320, 240], [920, 240], [320, 740]])

    half = math.sqrt(0.5)
    assert rays == pytest.approx(np.array([[0, 0, 1], [half, 0, half], [0, half, half]]))


def test_an_ideal_fisheye_pixel_is_the_ray_of_its_angle():
    # θd = θ without coefficients: 400 · π/3 px right of the axis is 60° off it.
    fisheye = CameraModel(400, 400, 500, 500, 1000, 1000, "equidistant", (0, 0, 0, 0))

    ray = fisheye.undistort([[500 + 400 * math.pi / 3, 500]])

    assert ray[0] == pytest.approx([math.sin(math.pi / 3), 0, 0.5])
    assert fisheye.project(ray)[0] == pytest.approx([500 + 400 * math.pi / 3, 500])


def test_one_coefficient_pulls_a_point_towards_the_axis():
    # k1 = -0.2 at x/z = 0.5: 0.5 (1 - 0.2 · 0.25) = 0.475.
    camera = CameraModel(100, 100, 50, 50, 100, 100, "plumb_bob", (-0.2, 0, 0, 0))

    assert camera.project([[1, 0, 2]])[0] == pytest.approx([50 + 47.5, 50])
    assert camera.undistort([[97.5, 50]])[0] == pytest.approx(np.array([1, 0, 2]) / math.sqrt(5))


def test_where_a_polynomial_turns_back():
    # d/dr (r - r³/3) = 1 - r² is zero at r = 1: 45°.
    assert camera_with("plumb_bob", (-1 / 3, 0, 0, 0)).max_angle == pytest.approx(math.pi / 4)
    # r / (1 - r²/3) has its pole at r = √3: 60°.
    rational = (0, 0, 0, 0, 0, -1 / 3, 0, 0)
    assert camera_with("rational_polynomial", rational).max_angle == pytest.approx(math.pi / 3)
    # θ - θ³/3: at 1 rad.
    assert camera_with("equidistant", (-1 / 3, 0, 0, 0)).max_angle == pytest.approx(1.0)
    assert PINHOLE.max_angle == pytest.approx(math.pi / 2)


# Round trips


@pytest.mark.parametrize("camera", LENSES, ids=lens_name)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_points_seen_by_opencv_come_back_as_their_rays(camera, seed):
    generator = np.random.default_rng(seed)
    across = generator.uniform(-0.9, 0.9, (20, 2))
    depth = generator.uniform(0.3, 40, 20)
    places = np.column_stack([across * depth[:, None], depth])
    turn, shift = generator.uniform(-2, 2, 3), generator.uniform(-5, 5, 3)
    # OpenCV is given the same places in a frame that the camera does not stand in.
    elsewhere = (places - shift) @ cv2.Rodrigues(turn)[0]
    project = (
        cv2.fisheye.projectPoints
        if camera.distortion_model == "equidistant"
        else cv2.projectPoints
    )
    seen, _ = project(elsewhere[:, None], turn, shift, camera.matrix, np.array(camera.distortion))

    pixels = camera.project(places)
    rays = camera.undistort(seen.reshape(-1, 2))

    assert pixels == pytest.approx(seen.reshape(-1, 2), abs=1e-6)
    assert np.cross(rays, places / depth[:, None]) == pytest.approx(0.0, abs=1e-6)
    assert np.linalg.norm(rays, axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("camera", LENSES, ids=lens_name)
def test_a_rescaled_image_has_the_same_rays(camera):
    pixels = np.random.default_rng(3).uniform([60, 60], [580, 420], (30, 2))
    small = camera.scale_to(512, 256)

    assert small.undistort(pixels * [512 / 640, 256 / 480]) == pytest.approx(
        camera.undistort(pixels), abs=1e-7
    )


# Refused, not guessed


def test_a_pixel_that_the_lens_can_not_show_has_no_ray():
    # r - r³/3 reaches 2/3 and no farther: 66.7 px from the centre.
    camera = CameraModel(100, 100, 100, 100, 200, 200, "plumb_bob", (-1 / 3, 0, 0, 0))

    rays = camera.undistort([[100 + 66, 100], [100 + 67, 100], [100, 199]])

    assert np.isfinite(rays[0]).all()
    assert np.isnan(rays[1:]).all()


def test_a_fisheye_pixel_beyond_ninety_degrees_has_no_ray():
    fisheye = CameraModel(400, 400, 800, 800, 1600, 1600, "equidistant", (0, 0, 0, 0))

    rays = fisheye.undistort([[800 + 400 * 1.5, 800], [800 + 400 * 1.6, 800]])

    assert np.isfinite(rays[0]).all()
    assert np.isnan(rays[1]).all()


@pytest.mark.parametrize("camera", LENSES, ids=lens_name)
def test_a_place_behind_the_lens_has_no_pixel(camera):
    pixels = camera.project([[0.1, 0.1, 2], [0.1, 0.1, -2], [1, 0, 0], [0, 0, math.nan]])

    assert np.isfinite(pixels[0]).all()
    assert np.isnan(pixels[1:]).all()


def test_a_place_beyond_the_fold_has_no_pixel():
    # OpenCV alone would put it at r (1 - r²/3) = 0.42, into the image.
    camera = CameraModel(100, 100, 100, 100, 200, 200, "plumb_bob", (-1 / 3, 0, 0, 0))

    assert np.isnan(camera.project([[1.5, 0, 1]])).all()


def test_pixels_that_are_no_numbers_have_no_rays():
    rays = PINHOLE.undistort([[math.nan, 1], [320, 240], [math.inf, 1]])

    assert np.isnan(rays[[0, 2]]).all()
    assert rays[1] == pytest.approx([0, 0, 1])


def test_no_points_give_empty_arrays():
    for camera in LENSES:
        assert camera.undistort([]).shape == (0, 3)
        assert camera.project([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"fx": 0.0}, "focal"),
        ({"height": 0}, "image size"),
        ({"distortion_model": "thin_prism"}, "found 'thin_prism'"),
        ({"distortion": (0.1, 0.2)}, "0 or 4 or 5 distortion coefficients for plumb_bob, found 2"),
        ({"distortion_model": "equidistant"}, "4 distortion coefficients .* found 0"),
        ({"cx": math.nan}, "finite"),
        ({"distortion": (0.1, math.inf, 0, 0)}, "finite"),
    ],
)
def test_an_impossible_camera_is_refused(changes, found):
    arguments = {"fx": 1.0, "fy": 1.0, "cx": 1.0, "cy": 1.0, "width": 2, "height": 2} | changes
    with pytest.raises(RoiCodecError, match=found):
        CameraModel(**arguments)


# Intrinsics


def test_field_of_view_of_ninety_degrees():
    camera = CameraModel.from_hfov(640, 480, 90.0)

    assert (camera.fx, camera.fy) == pytest.approx((320.0, 320.0))
    assert (camera.cx, camera.cy) == (320.0, 240.0)


@pytest.mark.parametrize("hfov_deg", [0.0, 180.0, -5.0])
def test_an_impossible_field_of_view_is_refused(hfov_deg):
    with pytest.raises(RoiCodecError, match="field of view"):
        CameraModel.from_hfov(640, 480, hfov_deg)


def test_a_matrix_gives_the_camera_and_back():
    k = [600, 0, 320, 0, 500, 240, 0, 0, 1]

    camera = CameraModel.from_matrix(k, 640, 480)

    assert camera == PINHOLE
    assert camera.matrix.ravel().tolist() == k


def test_a_skewed_matrix_is_refused():
    with pytest.raises(RoiCodecError, match=r"camera matrix .* found 600 3 320"):
        CameraModel.from_matrix([600, 3, 320, 0, 500, 240, 0, 0, 1], 640, 480)


# Calibration files

CALIBRATION = """
image_width: 640
image_height: 480
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [410, 0, 330, 0, 400, 236, 0, 0, 1]}
distortion_model: equidistant
distortion_coefficients: {rows: 1, cols: 4, data: [-0.02, 0.004, -0.002, 0.0003]}
"""
MATRICES = """
rectification_matrix: {rows: 3, cols: 3, data: [0, 1, 0, 1, 0, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [390, 0, 310, 5, 0, 380, 230, 0, 0, 0, 1, 0]}
"""


def test_a_calibration_file_gives_the_camera(tmp_path):
    path = tmp_path / "front.yaml"
    path.write_text(CALIBRATION + MATRICES)

    calibration = read_calibration(path)

    assert calibration.camera == camera_with("equidistant", FISHEYE)
    assert calibration.rectification == (0, 1, 0, 1, 0, 0, 0, 0, 1)
    assert calibration.projection == (390, 0, 310, 5, 0, 380, 230, 0, 0, 0, 1, 0)


def test_left_out_matrices_are_those_of_a_single_camera(tmp_path):
    path = tmp_path / "front.yaml"
    path.write_text(CALIBRATION)

    calibration = read_calibration(path)

    assert calibration.rectification == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert calibration.projection == (410, 0, 330, 0, 0, 400, 236, 0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("image_width: 640", "image_width: wide", "image_width ≥ 1 .* found 'wide'"),
        ("image_height: 480", "", "image_height ≥ 1 .* found None"),
        ("[410, 0, 330, 0, 400, 236, 0, 0, 1]", "[1, 2, 3]", "9 numbers as camera_matrix"),
        ("[410, 0,", "[0, 0,", "positive focal .* in .*front.yaml"),
        ("[-0.02, 0.004, -0.002, 0.0003]", "[a]", "distortion_coefficients"),
        ("[-0.02, 0.004, -0.002, 0.0003]", "[1, 2]", "4 distortion .* found 2 in .*front.yaml"),
        ("equidistant", "barrel", "found 'barrel' in .*front.yaml"),
        ("camera_name: front", "projection_matrix: 3", "12 numbers as projection_matrix"),
        (CALIBRATION, "- a list", "no mapping"),
        (CALIBRATION, "{ broken", "expected a calibration"),
        (CALIBRATION, None, "No such file"),
    ],
)
def test_a_bad_calibration_is_refused_in_one_line(tmp_path, before, after, found):
    path = tmp_path / "front.yaml"
    if after is not None:
        assert before in CALIBRATION
        path.write_text(CALIBRATION.replace(before, after))

    with pytest.raises(RoiCodecError, match=found) as caught:
        read_calibration(path)
    assert str(caught.value).startswith("expected ")
    assert "\n" not in str(caught.value)
