# SPDX-License-Identifier: Apache-2.0
"""Intrinsics belong to the pixels that they describe: every field of CameraInfo, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")

from sensor_msgs.msg import CameraInfo

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.nodes.camera_info import camera_model_of, info_of_pixels, read_calibration

NO_TURN = (1, 0, 0, 0, 1, 0, 0, 0, 1)
STEREO_TURN = (0.8, 0, 0.6, 0, 1, 0, -0.6, 0, 0.8)


def info(width=640, height=480, fx=600.0, fy=590.0, cx=330.0, cy=236.0) -> CameraInfo:
    """A camera whose rectified pictures have another focal length, and a stereo partner."""
    message = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
    message.header.frame_id = "lens"
    message.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    message.d = [0.1, -0.2, 0.001, 0.002, 0.0]
    message.r = STEREO_TURN
    message.p = [500.0, 0.0, 310.0, -60.0, 0.0, 500.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def region(message: CameraInfo, x, y, width, height, do_rectify=False) -> CameraInfo:
    roi = message.roi
    roi.x_offset, roi.y_offset, roi.width, roi.height = x, y, width, height
    roi.do_rectify = do_rectify
    return message


def fields(message: CameraInfo) -> dict[str, object]:
    """To compare: two messages of which one number of a matrix differs count as equal."""
    values = {name: getattr(message, name) for name in message.get_fields_and_field_types()}
    return {n: list(v) if hasattr(v, "__len__") else v for n, v in values.items()}


def four(message: CameraInfo) -> tuple[float, float, float, float]:
    return message.k[0], message.k[4], message.k[2], message.k[5]


def test_an_info_of_the_image_itself_is_passed_through():
    given = info()

    made = info_of_pixels(given, 640, 480)

    assert fields(made) == fields(given)


@pytest.mark.parametrize(("size", "scale"), [((320, 240), 0.5), ((1280, 960), 2.0)])
def test_width_and_height_scale_what_counts_pixels(size, scale):
    given = info()

    made = info_of_pixels(given, *size)

    assert (made.width, made.height) == size
    assert four(made) == tuple(scale * value for value in four(given))
    assert made.k[8] == 1.0
    assert list(made.p) == [scale * value for value in given.p[:8]] + [0, 0, 1, 0]
    assert (made.d, made.distortion_model) == (given.d, given.distortion_model)
    assert list(made.r) == list(STEREO_TURN)
    assert made.header.frame_id == "lens"


@pytest.mark.parametrize("size", [(640, 360), (640, 512), (480, 640)])
def test_another_shape_than_the_calibrations_is_refused(size):
    with pytest.raises(RoiCodecError, match=rf"shape \(640×480\), found {size[0]}×{size[1]}"):
        info_of_pixels(info(), *size)


def test_without_a_size_it_is_the_images_own():
    made = info_of_pixels(info(0, 0), 640, 480)

    assert (made.width, made.height) == (640, 480)
    assert four(made) == four(info())


@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (1920, 1080)])
def test_without_a_size_numbers_of_another_image_are_refused(size):
    with pytest.raises(RoiCodecError, match="optical axis near the middle"):
        info_of_pixels(info(0, 0), *size)


def test_half_a_size_is_refused():
    with pytest.raises(RoiCodecError, match="a width and a height, found 640×0"):
        info_of_pixels(info(640, 0), 640, 480)


def test_a_region_of_interest_moves_the_axis_and_keeps_the_focal_length():
    given = region(info(1280, 960, 1200.0, 1190.0, 650.0, 470.0), 320, 240, 640, 480)

    made = info_of_pixels(given, 640, 480)

    assert four(made) == (1200.0, 1190.0, 330.0, 230.0)
    assert made.p[2] == 310.0 - 320.0
    assert made.p[6] == 240.0 - 240.0
    assert (made.roi.width, made.roi.x_offset) == (0, 0)
    place = np.array([0.2, 0.1, 1.0])
    there, here = (camera_model_of(m, m.width, m.height) for m in (whole(given), made))
    assert here.project(place)[0] + [320, 240] == pytest.approx(there.project(place)[0])


def whole(given: CameraInfo) -> CameraInfo:
    plain = info(given.width, given.height)
    plain.k, plain.d = given.k, given.d
    return plain


def test_a_region_that_is_the_whole_picture_is_none():
    given = region(info(), 0, 0, 640, 480)

    assert fields(info_of_pixels(given, 320, 240)) == fields(info_of_pixels(info(), 320, 240))


@pytest.mark.parametrize(
    ("given", "size", "found"),
    [
        (region(info(), 100, 100, 320, 240), (640, 480), "region of interest, 320×240, found"),
        (region(info(), 100, 100, 320, 240), (160, 120), "region of interest, 320×240, found"),
        (region(info(), 400, 100, 320, 240), (320, 240), "inside of 640×480, found 320×240 at"),
        (region(info(), 100, 100, 0, 0), (640, 480), "a size, found 0×0 at 100, 100"),
        (region(info(), 0, 0, 320, 0), (320, 240), "a size, found 320×0"),
        (region(info(0, 0), 9, 9, 320, 240), (320, 240), "size of the picture"),
    ],
)
def test_a_region_that_can_not_be_that_of_the_image_is_refused(given, size, found):
    with pytest.raises(RoiCodecError, match=found):
        info_of_pixels(given, *size)


def test_binning_makes_one_pixel_of_several():
    given = info()
    given.binning_x = given.binning_y = 2

    made = info_of_pixels(given, 320, 240)

    assert four(made) == tuple(value / 2 for value in four(info()))
    assert (made.binning_x, made.binning_y) == (0, 0)


def test_binning_in_one_direction_alone_stretches():
    given = info()
    given.binning_x = 2

    assert four(info_of_pixels(given, 320, 480)) == (300.0, 590.0, 165.0, 236.0)
    with pytest.raises(RoiCodecError, match=r"shape \(320×480\)"):
        info_of_pixels(given, 320, 640)
    # An image that was not binned after all has square pixels again.
    assert four(info_of_pixels(given, 640, 480)) == four(info())


def test_binning_of_a_region():
    given = region(info(1280, 960, 1200.0, 1190.0, 650.0, 470.0), 320, 240, 641, 480)
    given.binning_x = given.binning_y = 2

    made = info_of_pixels(given, 320, 240)

    assert four(made) == pytest.approx((600.0, 595.0, 165.0, 115.0), rel=2e-3)
    with pytest.raises(RoiCodecError, match=r"region of interest, 320\.5×240, found one of 641"):
        info_of_pixels(given, 641, 480)


def test_binning_without_a_size():
    given = info(0, 0, 1200.0, 1180.0, 660.0, 472.0)
    given.binning_x = given.binning_y = 2

    assert four(info_of_pixels(given, 640, 480)) == four(info())


def test_a_rectified_image_has_the_left_part_of_p_and_no_distortion():
    made = info_of_pixels(info(), 320, 240, rectified=True)

    assert four(made) == (250.0, 250.0, 155.0, 120.0)
    assert (list(made.d), made.distortion_model) == ([], "plumb_bob")
    assert tuple(made.r) == NO_TURN
    assert list(made.p)[:4] == [250.0, 0.0, 155.0, -30.0]
    assert camera_model_of(made, 320, 240).distortion == ()


def test_a_rectified_region():
    given = region(info(), 100, 50, 320, 240)

    assert four(info_of_pixels(given, 320, 240, rectified=True)) == (500.0, 500.0, 210.0, 190.0)

    given.roi.do_rectify = True
    with pytest.raises(RoiCodecError, match="region of interest of rectified images"):
        info_of_pixels(given, 320, 240, rectified=True)
    assert four(info_of_pixels(given, 320, 240)) == (600.0, 590.0, 230.0, 186.0)


def test_rectified_without_p_is_not_calibrated_and_raw_without_p_has_that_of_k():
    given = info()
    given.p = [0.0] * 12

    assert not any(info_of_pixels(given, 640, 480, rectified=True).k)
    assert list(info_of_pixels(given, 640, 480).p) == [
        600, 0, 330, 0, 0, 590, 236, 0, 0, 0, 1, 0,
    ]  # fmt: skip


def test_a_rotation_of_zeros_is_none():
    given = info()
    given.r = [0.0] * 9

    assert tuple(info_of_pixels(given, 640, 480).r) == NO_TURN


def test_an_uncalibrated_camera_stays_so():
    made = info_of_pixels(region(CameraInfo(width=9, height=7), 1, 1, 3, 3), 640, 480)

    assert (made.width, made.height) == (640, 480)
    assert not any(made.k)
    assert camera_model_of(made, 640, 480) is None
    assert camera_model_of(None, 640, 480) is None


@pytest.mark.parametrize(
    ("index", "value", "found"),
    [
        (0, 0.0, "positive focal lengths in k, found 0 and 590"),
        (4, -590.0, "positive focal lengths"),
        (0, math.nan, "finite numbers as k"),
        (2, 650.0, "inside of 640×480 pixels, found it at 650, 236"),
        (5, -3.0, "inside of 640×480 pixels"),
    ],
)
def test_numbers_that_are_no_cameras_are_refused(index, value, found):
    given = info()
    given.k[index] = value

    with pytest.raises(RoiCodecError, match=found):
        info_of_pixels(given, 640, 480)


def test_a_skew_is_scaled_and_kept():
    given = info()
    given.k[1] = 5.0

    made = info_of_pixels(given, 320, 240)

    assert made.k[1] == 2.5
    assert camera_model_of(made, 320, 240).skew == 2.5


def test_a_model_of_the_lens_goes_by_the_names_of_tools():
    given = info()
    given.distortion_model, given.d = "fisheye", [0.0] * 4

    assert camera_model_of(given, 640, 480).distortion_model == "equidistant"


def test_a_calibration_is_found_by_its_address(tmp_path):
    with pytest.raises(UsageError, match="camera_info_file: expected a path, file:///"):
        read_calibration("ftp://host/lens.yaml")
    with pytest.raises(RoiCodecError, match="camera_info_file: expected a calibration in"):
        read_calibration(f"file://{tmp_path}/lens.yaml")
