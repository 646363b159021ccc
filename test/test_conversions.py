# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays and back, camera infos and diagnostics (needs ROS and the built messages)."""

from __future__ import annotations

import array
import itertools
import math
import re

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from roi_codec_ros.codec import kernels
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.image_messages import (
    ENCODINGS,
    FAMILIES,
    ImageMessageError,
    rgb_from_image,
    unscaled,
)
from roi_codec_ros.msg import Person, PersonArray
from roi_codec_ros.nodes.camera_info import (
    camera_model_of,
    info_of_pixels,
    read_calibration,
    scaled_camera_info,
)
from roi_codec_ros.nodes.conversions import (
    detections_from_persons,
    image_from_rgb,
    jpeg_from_rgb,
    persons_from_detections,
    rgb_from_message,
    stamp_ns,
)
from roi_codec_ros.nodes.diagnostics import Level, Status, coder_statuses, to_message
from roi_codec_ros.nodes.markers import person_markers
from roi_codec_ros.perception.detections import Detections

HEADER = Header(stamp=Time(sec=12, nanosec=34), frame_id="front_optical_frame")
RED, GREEN, BLUE = (200, 30, 60)


def message(encoding, samples, padding=0, big_endian=0, height=None):
    """An image message of samples [rows, W] or [rows, W, channels], padded at the end of each row.

    height: where it is not the number of rows.
    """
    samples = np.asarray(samples)
    bytes_of_rows = np.ascontiguousarray(samples).view(np.uint8).reshape(len(samples), -1)
    padded = np.pad(bytes_of_rows, ((0, 0), (0, padding)), constant_values=255)
    return Image(
        height=height or len(samples),
        width=samples.shape[1],
        encoding=encoding,
        is_bigendian=big_endian,
        step=padded.shape[1],
        data=array.array("B", padded.tobytes()),
    )


def flat(pixel, dtype=np.uint8):
    return np.tile(np.array(pixel, dtype), (4, 6, 1))


@pytest.mark.parametrize(
    ("encoding", "pixel"),
    [
        ("rgb8", (RED, GREEN, BLUE)),
        ("bgr8", (BLUE, GREEN, RED)),
        ("8UC3", (BLUE, GREEN, RED)),
        ("rgba8", (RED, GREEN, BLUE, 9)),
        ("bgra8", (BLUE, GREEN, RED, 9)),
        ("8UC4", (BLUE, GREEN, RED, 9)),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings(encoding, pixel, padding):
    pixels = rgb_from_image(message(encoding, flat(pixel), padding))

    assert pixels.shape == (4, 6, 3)
    assert (pixels == (RED, GREEN, BLUE)).all()


@pytest.mark.parametrize(
    ("encoding", "order"),
    [
        ("rgb16", (0, 1, 2)),
        ("bgr16", (2, 1, 0)),
        ("16UC3", (2, 1, 0)),
        ("rgba16", (0, 1, 2, 0)),
        ("bgra16", (2, 1, 0, 0)),
        ("16UC4", (2, 1, 0, 0)),
    ],
)
@pytest.mark.parametrize("big_endian", [0, 1])
def test_sixteen_bits_a_colour(encoding, order, big_endian):
    colours = np.array([256 * RED + 7, 256 * GREEN + 200, 256 * BLUE + 255])
    samples = flat(colours[list(order)], ">u2" if big_endian else "<u2")

    pixels = rgb_from_image(message(encoding, samples, padding=4, big_endian=big_endian))

    assert pixels.shape == (4, 6, 3)
    assert (pixels == (RED, GREEN, BLUE)).all()


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey(encoding):
    pixels = rgb_from_image(message(encoding, np.array([[1, 2], [3, 4]], np.uint8), padding=2))

    assert pixels[:, :, 1].tolist() == [[1, 2], [3, 4]]
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@pytest.mark.parametrize("big_endian", [0, 1])
def test_grey_of_sixteen_bits(encoding, big_endian):
    samples = np.array([[0, 255], [256, 65535]], ">u2" if big_endian else "<u2")

    pixels = rgb_from_image(message(encoding, samples, padding=2, big_endian=big_endian))

    assert pixels[:, :, 0].tolist() == [[0, 0], [1, 255]]


def test_sixteen_bits_that_nobody_scaled_are_told_apart():
    """As thermal cameras send them: 14 bits, of which a scene takes a few hundred."""
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    raw = rgb_from_image(message("mono16", (7000 + 500 * ramp).astype("<u2")))
    scaled = rgb_from_image(message("mono16", (65535 * ramp).astype("<u2")))

    assert unscaled("mono16", raw)
    assert not unscaled("mono16", scaled)
    assert not unscaled("mono8", np.zeros((8, 8, 3), np.uint8))  # a covered lens, for example


Y, U, V = 100, 90, 200  # BT.601, limited range
LUMA = 1.164 * (Y - 16)
RGB_OF_YUV = [
    LUMA + 1.596 * (V - 128),
    LUMA - 0.813 * (V - 128) - 0.391 * (U - 128),
    LUMA + 2.018 * (U - 128),
]


@pytest.mark.parametrize(
    ("encoding", "pair"),
    [
        ("yuv422", ((U, Y), (V, Y))),
        ("uyvy", ((U, Y), (V, Y))),
        ("yuv422_yuy2", ((Y, U), (Y, V))),
        ("yuyv", ((Y, U), (Y, V))),
    ],
)
@pytest.mark.parametrize("padding", [0, 6])
def test_both_byte_orders_of_yuv422(encoding, pair, padding):
    pixels = rgb_from_image(message(encoding, np.tile(np.uint8(pair), (2, 3, 1)), padding))

    assert pixels.shape == (2, 6, 3)
    assert np.abs(pixels - np.array(RGB_OF_YUV)).max() <= 2


@pytest.mark.parametrize(("encoding", "pair"), [("nv12", (U, V)), ("nv21", (V, U))])
@pytest.mark.parametrize("padding", [0, 6])
def test_both_orders_of_two_planes(encoding, pair, padding):
    luma, chroma = np.full((4, 6), Y, np.uint8), np.tile(np.uint8(pair), (2, 3))

    pixels = rgb_from_image(message(encoding, np.vstack([luma, chroma]), padding, height=4))

    assert pixels.shape == (4, 6, 3)
    assert np.abs(pixels - np.array(RGB_OF_YUV)).max() <= 2


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(("bits", "big_endian"), [(8, 0), (16, 0), (16, 1)])
def test_bayer_patterns(pattern, bits, big_endian):
    levels = {"r": RED, "g": GREEN, "b": BLUE}
    tile = np.array([levels[c] for c in pattern]).reshape(2, 2)
    dtype = {8: "u1", 16: ">u2" if big_endian else "<u2"}[bits]
    samples = (np.tile(tile, (4, 4)) << (bits - 8)).astype(dtype)

    pixels = rgb_from_image(message(f"bayer_{pattern}{bits}", samples, big_endian=big_endian))

    assert (pixels[2:-2, 2:-2] == (RED, GREEN, BLUE)).all()


def test_what_people_read_names_every_encoding():
    def spelled(pattern):
        parts = re.split(r"\{(.*?)\}", pattern)  # between braces at odd places
        choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
        return {"".join(choice) for choice in itertools.product(*choices)}

    assert set().union(*map(spelled, FAMILIES.split(", "))) == set(ENCODINGS)


@pytest.mark.parametrize("encoding", ["32FC1", "8UC2", "nv24", "", "MONO8"])
def test_any_other_encoding_is_one_clear_error(encoding):
    with pytest.raises(ImageMessageError, match=f"expected an .* nv21, found '{encoding}'"):
        rgb_from_image(Image(height=2, width=2, step=16, encoding=encoding, data=bytes(32)))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("height", "width", "step", "size"),
    [(4, 4, 3, 100), (4, 4, 32, 127), (0, 4, 16, 0), (4, 0, 16, 64), (2**31, 2**31, 2**32 - 1, 8)],
)
def test_a_layout_that_can_not_be_is_refused(encoding, height, width, step, size):
    image = Image(height=height, width=width, step=step, encoding=encoding, data=bytes(size))

    with pytest.raises(ImageMessageError, match="expected"):
        rgb_from_image(image)


def test_a_second_plane_that_is_missing_is_refused():
    with pytest.raises(ImageMessageError, match="in 6 rows"):
        rgb_from_image(message("nv12", np.zeros((4, 6), np.uint8)))


def test_odd_sizes_that_an_encoding_has_no_place_for_are_refused():
    with pytest.raises(ImageMessageError, match="even width"):
        rgb_from_image(message("yuv422", np.zeros((2, 3, 2), np.uint8)))
    with pytest.raises(ImageMessageError, match="even height"):
        rgb_from_image(message("nv21", np.zeros((5, 4), np.uint8), height=3))
    with pytest.raises(ImageMessageError, match="3×3"):
        rgb_from_image(message("bayer_rggb8", np.zeros((2, 2), np.uint8)))


# Compressed images


def compressed(suffix, bgr, format_text=""):
    _, data = cv2.imencode(suffix, np.asarray(bgr))
    return CompressedImage(format=format_text, data=array.array("B", data.tobytes()))


FLAT_BGR = np.full((16, 24, 3), (BLUE, GREEN, RED), np.uint8)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_colour(suffix):
    pixels = rgb_from_message(compressed(suffix, FLAT_BGR, "rgb8; compressed bgr8"))

    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels.astype(int) - (RED, GREEN, BLUE)).max() <= 3


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_large_picture_of_one_colour_is_one(suffix):
    black = compressed(suffix, np.zeros((2160, 3840, 3), np.uint8))

    assert rgb_from_message(black).shape == (2160, 3840, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressed_grey(dtype):
    grey = np.full((5, 7), 77 if dtype == np.uint8 else 77 * 256 + 5, dtype)

    assert (rgb_from_message(compressed(".png", grey)) == 77).all()


def test_a_compressed_bayer_pattern_is_what_its_format_says():
    tile = np.array([[RED, GREEN], [GREEN, BLUE]], np.uint8)
    message = compressed(".png", np.tile(tile, (4, 4)), "bayer_rggb8; png compressed")

    assert (rgb_from_message(message)[2:-2, 2:-2] == (RED, GREEN, BLUE)).all()


def test_a_rotation_tag_is_left_alone():
    """The camera info describes the pixels as they lie."""
    jpeg = compressed(".jpg", FLAT_BGR).data.tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    tag = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    turned = array.array("B", jpeg[:2] + tag + jpeg[2:])

    assert rgb_from_message(CompressedImage(data=turned)).shape == (16, 24, 3)


JPEG_BOMB = b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03" + bytes(64)
PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
PNG_BOMB = PNG_START + bytes([0, 1, 0, 0, 0, 1, 0, 0, 8, 2]) + bytes(7)
PNG_SMALL = PNG_START + bytes([0, 0, 0, 9, 0, 0, 0, 9, 8, 2]) + bytes(7)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "expected JPEG or PNG in a compressed image, found format 'h264'"),
        (b"\0\0\0\1" + bytes(100), "found format 'h264'"),
        (JPEG_BOMB, "at most 150 megapixels, found 65535×65535"),
        (PNG_BOMB + PNG_END, "at most 150 megapixels, found 65536×65536"),
        (PNG_SMALL + b"\xf0\0\0\0IDAT" + PNG_END, "PNG that can be decoded"),
        (PNG_SMALL + b"\0\0\0\x13IEND" + b"\xff" * 40, "PNG that can be decoded"),
        (JPEG_BOMB.replace(b"\xff\xff\xff\xff", b"\x0f\xff\x0f\xff"), "data of 4095×4095 pixels"),
        (b"\x89PNG\r\n\x1a\n", "with a size, found none"),
        (b"\xff\xd8\xff\xd9", "with a size, found none"),
        (b"\xff\xd8\xff\xe1\xff\xff", "with a size, found none"),
        (PNG_SMALL + PNG_END, "can be decoded"),
    ],
)
def test_what_is_no_picture_is_refused(data, sentence):
    message = CompressedImage(format="h264", data=array.array("B", data))

    with pytest.raises(ImageMessageError, match=sentence):
        rgb_from_message(message)


def test_image_goes_there_and_back():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)

    image = image_from_rgb(pixels[:, ::-1], HEADER)

    assert (image.encoding, image.height, image.width, image.step) == ("rgb8", 5, 7, 21)
    assert image.header == HEADER
    assert (rgb_from_image(image) == pixels[:, ::-1]).all()


def test_jpeg_is_what_a_viewer_reads():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., 0] = 255

    jpeg = jpeg_from_rgb(pixels, HEADER, 90)

    decoded = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)
    assert jpeg.format == "rgb8; jpeg compressed bgr8"
    assert decoded[8, 8].tolist() == pytest.approx([0, 0, 255], abs=4)


def test_persons_carry_boxes_of_the_original_image_and_of_the_published_one():
    found = Detections.from_arrays([[5, 10, 15, 30]], [0.75], (540, 960))

    persons = persons_from_detections(found, (1080, 1920), HEADER, "front", 12.5)

    assert (persons.image_height, persons.image_width) == (1080, 1920)
    assert (persons.camera, persons.detect_ms, persons.header) == ("front", 12.5, HEADER)
    (person,) = persons.persons
    assert (person.x, person.y, person.width, person.height) == (10, 20, 20, 40)
    assert (persons.anonymized_height, persons.anonymized_width) == (540, 960)
    assert (person.anonymized_x, person.anonymized_y) == (5, 10)
    assert (person.anonymized_width, person.anonymized_height) == (10, 20)
    assert (person.score, person.track_id, person.position_valid) == (0.75, 0, False)
    assert person.cameras == ["front"]
    assert detections_from_persons(persons).xyxy.tolist() == [[10, 20, 30, 60]]


def test_stamp_in_nanoseconds():
    assert stamp_ns(HEADER) == 12_000_000_034


def test_a_kernel_that_was_left_out_is_a_warning_of_its_own(monkeypatch):
    monkeypatch.delitem(kernels.KERNELS, kernels.ENTROPY_CODER)

    (status,) = coder_statuses()

    assert (status.subject, status.level) == ("entropy coder", Level.WARN)
    assert "expected the C++ entropy coder, found none" in status.message


def test_diagnostics_are_named_after_node_and_subject():
    status = Status("codec", Level.WARN, "late", {"fps": 1 / 3, "n": 3, "none": math.nan}, "cam")

    array_message = to_message("/camera1/encoder", HEADER.stamp, [status])

    (shown,) = array_message.status
    assert (shown.name, shown.message, shown.hardware_id) == (
        "camera1/encoder: codec",
        "late",
        "cam",
    )
    assert shown.level == b"\x01"
    assert {pair.key: pair.value for pair in shown.values} == {
        "fps": "0.3333",
        "n": "3",
        "none": "",
    }


def test_markers_stand_on_their_feet():
    person = Person(score=0.5, position_valid=True)
    person.position.x, person.position.y, person.position.z = 3.0, 1.5, 4.0
    persons = PersonArray(header=HEADER, camera="front", persons=[Person(), person])

    markers = person_markers(persons, 1.8, 0.5).markers

    body, text = markers
    assert {m.header.frame_id for m in markers} == {"front_optical_frame"}
    assert body.pose.position.y == pytest.approx(1.5 - 0.9)
    assert body.scale.z == 1.8
    assert (body.lifetime.sec, body.lifetime.nanosec) == (0, 500_000_000)
    assert text.text == "0.50, 5.0 m"
    assert (body.ns, text.ns, body.id) == ("front", "front/text", 1)


# Camera infos

CALIBRATION = """
image_width: 1280
image_height: 720
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [1000, 0, 640, 0, 900, 360, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0, 0, 0]}
rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}
projection_matrix: {rows: 3, cols: 4, data: [990, 0, 630, 5, 0, 890, 350, 0, 0, 0, 1, 0]}
"""


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "front.yaml"
    path.write_text(CALIBRATION, encoding="utf-8")
    return read_calibration(str(path))


def test_calibration_file_is_read(calibration):
    assert (calibration.width, calibration.height) == (1280, 720)
    assert calibration.k[0] == 1000
    assert list(calibration.d) == [0.1, -0.2, 0, 0, 0]
    assert calibration.distortion_model == "plumb_bob"


def test_camera_info_scales_to_the_coded_size(calibration):
    scaled = scaled_camera_info(calibration, 640, 480)

    assert (scaled.width, scaled.height) == (640, 480)
    assert list(scaled.k) == pytest.approx([500, 0, 320, 0, 600, 240, 0, 0, 1])
    assert list(scaled.p) == pytest.approx(
        [495, 0, 315, 2.5, 0, 890 * 2 / 3, 350 * 2 / 3, 0, 0, 0, 1, 0]
    )
    assert scaled.d == calibration.d


def test_an_uncalibrated_camera_stays_so():
    scaled = info_of_pixels(CameraInfo(), 640, 480)

    assert (scaled.width, scaled.height) == (640, 480)
    assert not any(scaled.k)
    assert camera_model_of(scaled, 640, 480) is None
    assert camera_model_of(None, 640, 480) is None


def test_a_camera_of_the_coded_size_scales_back_to_the_original(calibration):
    coded = scaled_camera_info(calibration, 512, 512)

    camera = camera_model_of(coded, 1280, 720)

    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx((1000, 900, 640, 360))
    assert camera.distortion == (0.1, -0.2, 0, 0, 0)


@pytest.mark.parametrize("d", [[], [0.0] * 5])
def test_without_coefficients_any_lens_model_is_a_pinhole(calibration, d):
    calibration.distortion_model, calibration.d = "inverse_brown_conrady", d

    assert camera_model_of(calibration, 1280, 720).distortion == ()


def test_an_unknown_lens_model_is_refused(calibration):
    calibration.distortion_model = "thin_prism"

    with pytest.raises(RoiCodecError, match="found 'thin_prism'"):
        camera_model_of(calibration, 1280, 720)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("image_width: 1280", "image_width: wide", "image_width"),
        ("[1000, 0, 640, 0, 900, 360, 0, 0, 1]", "[1, 2, 3]", "9 numbers as camera_matrix"),
        ("[0.1, -0.2, 0, 0, 0]", "[a]", "distortion_coefficients"),
        ("camera_matrix:", "matrix:", "camera_matrix"),
    ],
)
def test_a_calibration_that_is_none_is_refused(tmp_path, before, after, found):
    path = tmp_path / "front.yaml"
    path.write_text(CALIBRATION.replace(before, after), encoding="utf-8")

    with pytest.raises(RoiCodecError, match=found):
        read_calibration(str(path))


@pytest.mark.parametrize("content", [None, "- a list", "{ broken"])
def test_a_file_that_is_no_calibration_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "front.yaml"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    with pytest.raises(RoiCodecError, match="camera_info_file") as caught:
        read_calibration(str(path))
    assert "\n" not in str(caught.value)
