# SPDX-License-Identifier: Apache-2.0
"""Lens models against closed forms and against OpenCV's own projection."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.share import local_path
from roi_codec_ros.perception.cameras import CameraModel, lens_of, read_calibration

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


def test_a_skewed_matrix_is_what_it_says():
    camera = CameraModel.from_matrix([600, 30, 320, 0, 500, 240, 0, 0, 1], 640, 480)

    # u = 600 x/z + 30 y/z + 320: half a unit down moves it by 15 px.
    assert camera.project([[1, 1, 2]])[0] == pytest.approx([320 + 300 + 15, 490])
    assert camera.undistort([[320 + 300 + 15, 490]])[0] == pytest.approx(
        np.array([1, 1, 2]) / math.sqrt(6)
    )
    assert camera.matrix[0, 1] == 30
    assert camera.scale_to(1280, 480).skew == 60


@pytest.mark.parametrize("camera", LENSES, ids=lens_name)
def test_a_skew_moves_pixels_and_leaves_rays_alone(camera):
    skewed = replace(camera, skew=12.0)
    places = np.array([[0.3, 0.2, 2.0], [-0.5, -0.4, 1.5]])

    pixels = skewed.project(places)

    plain = camera.project(places)
    lean = 12.0 * (plain[:, 1] - camera.cy) / camera.fy
    assert pixels == pytest.approx(plain + np.column_stack([lean, [0, 0]]))
    assert np.cross(skewed.undistort(pixels), places) == pytest.approx(0.0, abs=1e-6)


def test_what_rounding_leaves_in_a_matrix_does_not_matter():
    k = [600, -1e-13, 320, 1e-17, 500, 240, 0, 1e-12, 1 + 1e-9]

    assert CameraModel.from_matrix(k, 640, 480).project([[0, 0, 1]])[0] == pytest.approx(
        [320, 240]
    )


@pytest.mark.parametrize(
    "k",
    [
        [600, 0, 0, 0, 500, 0, 320, 240, 1],  # transposed, as some tools write it
        [600, 0, 320, 5, 500, 240, 0, 0, 1],
        [600, 0, 320, 0, 500, 240, 0, 0, 2],
        [600, 0, 320, 0, 500, 240, 0, 0, math.nan],
        [600, 0, 320],
    ],
)
def test_what_is_no_camera_matrix_is_refused(k):
    with pytest.raises(RoiCodecError, match="camera matrix fx skew cx"):
        CameraModel.from_matrix(k, 640, 480)


@pytest.mark.parametrize(
    ("model", "coefficients", "taken"),
    [
        ("plumb_bob", WIDE, ("plumb_bob", WIDE)),
        ("Plumb Bob", WIDE[:4], ("plumb_bob", WIDE[:4])),
        ("radtan", WIDE[:4], ("plumb_bob", WIDE[:4])),
        ("plumb_bob", (*WIDE, 0.0, 0.0), ("plumb_bob", WIDE)),
        ("plumb_bob", RATIONAL, ("rational_polynomial", RATIONAL)),
        ("plumb_bob", (*RATIONAL, *[0.0] * 6), ("rational_polynomial", (*RATIONAL, *[0.0] * 6))),
        ("rational_polynomial", WIDE, ("plumb_bob", WIDE)),
        ("rational_polynomial", (*RATIONAL, 0.0), ("rational_polynomial", RATIONAL)),
        ("fisheye", FISHEYE, ("equidistant", FISHEYE)),
        ("equidistant", (*FISHEYE, 0.0), ("equidistant", FISHEYE)),
        ("fisheye", (0.0,) * 5, ("equidistant", (0.0,) * 4)),
        ("plumb_bob", (0.0, 0.0, 0.0), ("plumb_bob", ())),
        ("", (), ("plumb_bob", ())),
        ("inverse_brown_conrady", (0.0,) * 5, ("plumb_bob", ())),
    ],
)
def test_lens_models_as_tools_write_them(model, coefficients, taken):
    assert lens_of(model, coefficients) == taken
    k = [410, 0, 330, 0, 400, 236, 0, 0, 1]
    camera = CameraModel.from_matrix(k, 640, 480, model, coefficients)
    assert (camera.distortion_model, camera.distortion) == taken


@pytest.mark.parametrize(
    ("model", "coefficients", "found"),
    [
        ("inverse_brown_conrady", WIDE, "found 'inverse_brown_conrady'"),
        ("", WIDE, "found ''"),
        ("plumb_bob", (0.1,), "found 1"),
        ("equidistant", (), "4 distortion coefficients .* found 0"),
        ("equidistant", (*FISHEYE, 0.1), "4 distortion coefficients .* found 5"),
        ("rational_polynomial", (*RATIONAL, 0.1), "found 9"),
        ("plumb_bob", (math.nan,) * 5, "finite"),
    ],
)
def test_lens_models_that_nobody_knows_are_refused(model, coefficients, found):
    with pytest.raises(RoiCodecError, match=found):
        CameraModel.from_matrix(PINHOLE.matrix.ravel(), 640, 480, model, coefficients)


@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (321, 240), (640, 478), (53, 40)])
def test_a_camera_scales_to_an_image_of_its_shape(size):
    assert PINHOLE.for_image(*size) == PINHOLE.scale_to(*size)


@pytest.mark.parametrize("size", [(640, 360), (640, 640), (1280, 720), (600, 480), (480, 640)])
def test_a_camera_is_refused_for_an_image_of_another_shape(size):
    with pytest.raises(RoiCodecError, match=rf"shape \(640×480\), found {size[0]}×{size[1]}"):
        CameraModel.from_hfov(640, 480, 60.0).for_image(*size)


def test_a_stretched_calibration_may_be_stretched_back():
    """Some codec's models code every picture as a square."""
    square = CameraModel.from_hfov(1280, 720, 60.0).scale_to(512, 512)

    assert square.for_image(1280, 720).fy == pytest.approx(square.for_image(1280, 720).fx)
    with pytest.raises(RoiCodecError, match="shape"):
        square.for_image(720, 1280)


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("name", ["projection_matrix", "rectification_matrix"])
def test_a_matrix_of_zeros_is_one_that_is_left_out(tmp_path, name, encoding):
    path = tmp_path / "front.yaml"
    count = 12 if name == "projection_matrix" else 9
    path.write_text(CALIBRATION + f"{name}: {{data: {[0] * count}}}\n", encoding=encoding)

    calibration = read_calibration(path)

    assert calibration.rectification == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert calibration.projection == (410, 0, 330, 0, 0, 400, 236, 0, 0, 0, 1, 0)


def test_a_file_may_be_named_as_ros_does(tmp_path, monkeypatch):
    path = tmp_path / "share" / "site_of_ours" / "config" / "front lens.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(CALIBRATION)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")

    for text in (
        str(path),
        f"file://{path}",
        path.as_uri(),
        "package://site_of_ours/config/front lens.yaml",
        "package://site_of_ours/config/front%20lens.yaml",
    ):
        assert local_path(text) == path
    assert local_path("~/lens.yaml") == Path.home() / "lens.yaml"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("package://not_there/lens.yaml", "found 'not_there' in"),
        ("package://", "found 'package://'"),
        ("http://host/lens.yaml", "expected a path, file:///… or package://"),
        ("file://another/lens.yaml", "expected a path, file:///… or package://"),
        ("file://[/lens.yaml", "expected a path or an address"),
    ],
)
def test_an_address_that_is_no_file_is_refused(text, found):
    with pytest.raises(UsageError, match=found):
        local_path(text)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("image_width: 640", "image_width: wide", "image_width ≥ 1 .* found 'wide'"),
        ("image_height: 480", "", "image_height ≥ 1 .* found None"),
        ("[410, 0, 330, 0, 400, 236, 0, 0, 1]", "[1, 2, 3]", "9 numbers as camera_matrix"),
        ("[410, 0,", "[0, 0,", "positive focal .* in .*front.yaml"),
        ("[-0.02, 0.004, -0.002, 0.0003]", "[a]", "distortion_coefficients"),
        ("camera_name: front", "projection_matrix: {data: [1, 2]}", "12 numbers as projection"),
        ("[-0.02, 0.004, -0.002, 0.0003]", "[1, 2]", "4 distortion .* found 2 in .*front.yaml"),
        ("equidistant", "barrel", "found 'barrel' in .*front.yaml"),
        ("camera_name: front", "projection_matrix: 3", "12 numbers as projection_matrix"),
        (CALIBRATION, "- a list", "no mapping"),
        (CALIBRATION, "{ broken", "expected a calibration"),
        ("camera_name: front", "camera_name: !!timestamp front", "expected a calibration"),
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
