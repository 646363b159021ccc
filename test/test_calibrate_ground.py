# SPDX-License-Identifier: Apache-2.0
"""A camera's pose from points with known places: the solver, and `roi-codec calibrate-ground`."""

from __future__ import annotations

import json
import math
import subprocess
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml

from roi_codec_ros.cli import main
from roi_codec_ros.commands import clicking
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception.calibration import point_errors, solve_pose
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose, ground_positions

CAMERA = CameraModel(640.0, 640.0, 640.0, 360.0, 1280, 720)  # 90° across
LENSES = [
    CAMERA,
    replace(CAMERA, distortion=(-0.28, 0.07, 0.0005, -0.0003, 0.0)),
    replace(CAMERA, fx=400.0, fy=410.0, distortion_model="equidistant",
            distortion=(-0.02, 0.004, -0.002, 0.0003)),
]  # fmt: skip
LENS_NAMES = ["pinhole", "plumb_bob", "equidistant"]
TRUTH = (0.4, 0.1, 2.6, 0.01, 0.35, -0.03)
POSE = CameraPose.from_xyz_rpy(*TRUTH)
FLOOR = np.array([[3, 1.5, 0], [3, -1.5, 0], [7, 2.5, 0], [7, -2.5, 0], [5, 0, 0], [4, 1, 0.5]])


def pixels_of(places, camera=CAMERA, pose=POSE):
    return camera.project(pose.to_camera(places))


def angle_between(one, other):
    turn, _ = cv2.Rodrigues(one.rotation.T @ other.rotation)
    return float(np.linalg.norm(turn))


# The solver


@pytest.mark.parametrize("camera", LENSES, ids=LENS_NAMES)
@pytest.mark.parametrize("count", [4, 5, 6], ids=["square", "plane", "body"])
def test_exact_points_give_the_exact_pose(camera, count):
    pose, residual_px = solve_pose(pixels_of(FLOOR[:count], camera), FLOOR[:count], camera)

    assert pose.to_xyz_rpy() == pytest.approx(TRUTH, abs=1e-5)
    assert residual_px == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("camera", LENSES, ids=LENS_NAMES)
def test_noisy_points_give_nearly_the_pose(camera):
    generator = np.random.default_rng(7)
    for _ in range(20):
        x, y, yaw = generator.uniform([-50, -50, -3], [50, 50, 3])
        truth = CameraPose.from_xyz_rpy(
            x, y, generator.uniform(2, 5), generator.normal(0, 0.05),
            generator.uniform(0.3, 0.8), yaw,
        )  # fmt: skip
        pixels = generator.uniform([250, 380], [1030, 680], (12, 2))
        rays = camera.undistort(pixels) @ truth.rotation.T
        places = truth.translation - rays * truth.translation[2] / rays[:, 2:]
        noisy = pixels + generator.normal(0, 0.7, pixels.shape)

        pose, residual_px = solve_pose(noisy, places, camera)

        assert np.linalg.norm(pose.translation - truth.translation) < 0.1
        assert angle_between(pose, truth) < math.radians(1.0)
        # 0.7 px in u and in v; six of 24 degrees of freedom go into the pose.
        assert 0.4 < residual_px < 1.3
        assert residual_px <= np.sqrt(np.mean(np.sum((pixels_of(places, camera, truth) - noisy)
                                                     ** 2, axis=1)))  # fmt: skip


def test_four_noisy_points_far_away_fit_at_least_as_well_as_the_truth():
    # Such planes look much alike from two poses.
    generator = np.random.default_rng(0)
    for _ in range(60):
        height, pitch = generator.uniform([3, 0.15], [8, 0.9])
        truth = CameraPose.from_xyz_rpy(0, 0, height, 0, pitch, 0)
        size = generator.uniform(0.3, 1.5)
        places = np.zeros((4, 3))
        places[:, 0] = height / math.tan(pitch)
        places[:, :2] += generator.uniform(-size, size, (4, 2))
        pixels = pixels_of(places, CAMERA, truth) + generator.normal(0, 1, (4, 2))
        if np.ptp(pixels[:, 1]) < 15:  # too flat for any method: the best fit may be from below
            continue

        _, residual_px = solve_pose(pixels, places, CAMERA)

        missed = np.sum((pixels_of(places, CAMERA, truth) - pixels) ** 2, axis=1)
        assert residual_px <= math.sqrt(missed.mean()) + 1e-6


def test_far_from_the_maps_origin_it_is_as_exact():
    away = np.array([510_000.0, -7_300_000.0, 120.0])  # a map in the metres of a UTM zone

    pose, _ = solve_pose(pixels_of(FLOOR), FLOOR + away, CAMERA)

    assert pose.translation - away == pytest.approx(TRUTH[:3], abs=1e-5)
    assert angle_between(pose, POSE) < 1e-6


def test_errors_of_points_are_pixels_and_metres_on_the_ground():
    pixels = pixels_of(FLOOR)
    pixels[0] += [3, 4]
    places = FLOOR.copy()
    places[1] += [0.3, 0.4, 0]

    error_px, error_m = point_errors(pixels, places, CAMERA, POSE)

    foot = ground_positions([[*pixels[0] - [5, 50], pixels[0, 0] + 5, pixels[0, 1]]], CAMERA, POSE)
    assert error_px[0] == pytest.approx(5)
    assert error_m[0] == pytest.approx(np.linalg.norm(foot.xy[0] - FLOOR[0, :2]))
    assert error_m[1] == pytest.approx(0.5)
    assert error_px[2:] == pytest.approx(0, abs=1e-9)
    assert error_m[2:] == pytest.approx(0, abs=1e-9)


def test_a_ray_that_never_meets_its_height_has_no_metres():
    _, error_m = point_errors([[640, 0], [640, 400]], [[9, 0, 0], [9, 0, 3]], CAMERA, POSE)

    assert np.isnan(error_m).all()


LINE = np.array([[3, 0, 0], [4, 0, 0], [5, 0, 0], [6, 0, 0], [7, 0, 0]])


@pytest.mark.parametrize(
    ("pixels", "places", "found"),
    [
        (pixels_of(FLOOR[:3]), FLOOR[:3], "at least 4 points with different places, found 3"),
        (pixels_of(FLOOR[[0, 1, 2, 2]]), FLOOR[[0, 1, 2, 2]], "different places, found 3"),
        (pixels_of(FLOOR[[0, 1, 2, 2]]), FLOOR[:4], "different pixels, found 3"),
        (pixels_of(LINE), LINE, "places on one line"),
        (pixels_of(LINE), FLOOR[:5], "pixels on one line"),
        (pixels_of(FLOOR), FLOOR[:4], "found 6 pixels, 4 places"),
        ([[math.nan, 0]] * 4, FLOOR[:4], "finite"),
        (pixels_of(FLOOR[:5]), FLOOR[:5] * [1, -1, 1], "above the ground, found it at z = -"),
        ([], [], "found 0"),
    ],
)
def test_points_that_give_no_pose_are_refused(pixels, places, found):
    with pytest.raises(RoiCodecError, match=found) as caught:
        solve_pose(pixels, places, CAMERA)
    assert str(caught.value).startswith("expected ")


def test_a_pixel_outside_the_lens_model_is_named():
    folded = replace(CAMERA, distortion=(-1 / 3, 0, 0, 0))  # ends 427 px from the centre

    with pytest.raises(RoiCodecError, match=r"lens model describes, found 1100, 360 \(point 2\)"):
        solve_pose([[640, 400], [1100, 360], [700, 500], [500, 500]], FLOOR[:4], folded)


def test_a_camera_below_a_raised_ground_is_refused():
    with pytest.raises(RoiCodecError, match=r"found it at z = 2\.60 m"):
        solve_pose(pixels_of(FLOOR), FLOOR, CAMERA, ground_z_m=3.0)


# The command


LENS = ["--hfov", "90", "--size", "1280x720"]


def as_points(pixels, places):
    return [
        argument
        for (u, v), (x, y, z) in zip(pixels, places, strict=True)
        for argument in ("--point", f"{u},{v},{x},{y},{z}")
    ]


def calibrate(*arguments):
    return main(["calibrate-ground", *map(str, arguments)])


def test_points_on_the_command_line_give_a_pose(tmp_path, capsys):
    report, out = tmp_path / "pose.json", tmp_path / "pose.yaml"

    status = calibrate(*LENS, *as_points(pixels_of(FLOOR), FLOOR), "--json", report, "--out", out)

    printed = capsys.readouterr().out
    assert status == 0
    assert "x 0.400  y 0.100  z 2.600" in printed
    assert "roll 0.57  pitch 20.05  yaw -1.72" in printed
    assert "residual         0.00 px" in printed
    assert printed.count(" px, ") == len(FLOOR)
    written = json.loads(report.read_text())
    assert list(written["pose"].values()) == pytest.approx(TRUTH, abs=1e-5)
    assert written["degrees"]["pitch"] == pytest.approx(math.degrees(0.35))
    assert len(written["points"]) == len(FLOOR)
    assert written["points"][5]["z"] == 0.5
    assert written["points"][5]["error_m"] == pytest.approx(0, abs=1e-6)
    fragment = yaml.safe_load(out.read_text())
    assert list(fragment) == ["x", "y", "z", "roll", "pitch", "yaw"]
    assert list(fragment.values()) == pytest.approx(TRUTH, abs=1e-5)


def test_a_wrong_point_shows_in_the_residual_and_in_its_own_error(tmp_path):
    generator = np.random.default_rng(1)
    places = np.column_stack([generator.uniform([3, -2], [8, 2], (12, 2)), np.zeros(12)])
    pixels = pixels_of(places)
    pixels[4, 0] += 60

    assert calibrate(*LENS, *as_points(pixels, places), "--json", tmp_path / "r.json") == 0

    written = json.loads((tmp_path / "r.json").read_text())
    errors = [point["error_px"] for point in written["points"]]
    assert int(np.argmax(errors)) == 4
    assert written["residual_px"] == pytest.approx(math.sqrt(np.mean(np.square(errors))))
    assert written["residual_px"] > 5


def test_points_of_a_file_and_a_calibration_at_another_size(tmp_path):
    wide = LENSES[1]
    calibration = tmp_path / "front.yaml"
    calibration.write_text(
        "image_width: 1280\nimage_height: 720\ndistortion_model: plumb_bob\n"
        f"camera_matrix: {{data: {wide.matrix.ravel().tolist()}}}\n"
        f"distortion_coefficients: {{data: {list(wide.distortion)}}}\n"
    )
    lines = [
        f"{u}, {v}, {x}, {y}" + (f", {z}" if z else "")
        for (u, v), (x, y, z) in zip(pixels_of(FLOOR, wide) / 2, FLOOR, strict=True)
    ]
    points = tmp_path / "points.csv"
    points.write_text("u,v,x,y,z\n\n# by the door\n" + "\n".join(lines) + "  # the box\n")
    report = tmp_path / "pose.json"

    status = calibrate(
        "--camera", calibration, "--size", "640x360", "--points", points, "--json", report
    )

    assert status == 0
    written = json.loads(report.read_text())
    assert list(written["pose"].values()) == pytest.approx(TRUTH, abs=1e-5)
    assert [point["z"] for point in written["points"]] == FLOOR[:, 2].tolist()


GOOD = as_points(pixels_of(FLOOR), FLOOR)


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        ([*LENS, *GOOD[:6]], 1, "expected at least 4 points with different places, found 3"),
        ([*LENS, "--points", "absent.csv"], 1, "expected a file at absent.csv"),
        ([*LENS, "--points", "{tmp}/bad.csv"], 1, "expected u,v,x,y[,z] in line 2 of"),
        ([*LENS, "--points", "{tmp}/empty.csv"], 1, "found 0"),
        (["--camera", "absent.yaml", *GOOD], 1, "expected a calibration in absent.yaml"),
        (["--hfov", "200", "--size", "9x9", *GOOD], 1, "field of view of 0 to 180"),
        (["--image", "absent.jpg", "--click", "--hfov", "90"], 1, "photograph at absent.jpg"),
        (["--hfov", "90", *GOOD], 2, "expected --size with --hfov"),
        (
            ["--camera", "{tmp}/square.yaml", "--size", "640x480", *GOOD],
            1,
            "expected an image of the calibration's shape (90×90), found 640×480",
        ),
        ([*LENS, "--click"], 2, "expected --image and --click together"),
        ([*LENS, *GOOD, "--image", "a.jpg"], 2, "expected --image and --click together"),
        ([*LENS, "--click", "--image", "{tmp}/photo.png"], 2, "--size or --image, found both"),
    ],
)
def test_wrong_use_is_one_line_and_a_status(arguments, status, sentence, tmp_path, capsys):
    (tmp_path / "bad.csv").write_text("1,2,3,4\n1,2,three,4\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "square.yaml").write_text(
        "{image_width: 90, image_height: 90, camera_matrix: {data: [50,0,45,0,50,45,0,0,1]}, "
        "distortion_coefficients: {data: [0,0,0,0,0]}}"
    )
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((4, 4, 3), np.uint8))

    assert calibrate(*(argument.format(tmp=tmp_path) for argument in arguments)) == status

    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.err.startswith("roi-codec calibrate-ground: ")
    assert len(printed.err.splitlines()) == 1
    assert not printed.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([*LENS], "one of the arguments --points --point --click is required"),
        ([*GOOD], "one of the arguments --camera --hfov is required"),
        ([*LENS, "--point", "1,2,3"], "invalid point value: '1,2,3'"),
        ([*LENS, "--point", "1,2,3,4,5,6"], "invalid point value"),
        ([*LENS, "--point", "1,2,3,nan"], "invalid point value"),
        (["--hfov", "90", "--size", "0x9", *GOOD], "invalid size value: '0x9'"),
    ],
)
def test_arguments_that_can_not_be_read_leave_with_status_2(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as left:
        calibrate(*arguments)

    assert left.value.code == 2
    assert sentence in capsys.readouterr().err


# Clicking


class Window:
    """Stands in for OpenCV's window: gives the clicks of a user, then Enter."""

    def __init__(self, monkeypatch, clicks):
        self.clicks = clicks
        self.sizes = []
        monkeypatch.setattr(clicking, "check_display", lambda: None)
        monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
        monkeypatch.setattr(cv2, "setMouseCallback", self.listen)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
        monkeypatch.setattr(cv2, "imshow", lambda _, image: self.sizes.append(image.shape))
        monkeypatch.setattr(cv2, "waitKey", self.wait_key)
        monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)

    def listen(self, _, on_mouse):
        self.on_mouse = on_mouse

    def wait_key(self, _):
        if not self.clicks:
            return 13
        self.on_mouse(cv2.EVENT_MOUSEMOVE, 1, 1, 0, None)
        self.on_mouse(cv2.EVENT_LBUTTONDOWN, *self.clicks.pop(0), 0, None)
        return -1


def test_clicked_points_take_the_places_that_are_typed(monkeypatch):
    Window(monkeypatch, [(10, 20), (30, 40), (50, 60), (70, 80)])
    answers = iter(["1,2", "1,2,0.5", "", "one", "3", "1,2,3,4", "nan,1", " -3 , 4 "])
    asked = []

    def ask(question):
        asked.append(question.split(" is")[0])
        return next(answers)

    points = clicking.click_points(np.zeros((90, 90, 3), np.uint8), ask)

    assert points == [(10, 20, 1, 2, 0), (30, 40, 1, 2, 0.5), (70, 80, -3, 4, 0)]
    assert asked == ["10, 20", "30, 40", "50, 60", *["70, 80"] * 5]


def test_clicks_in_an_image_of_another_size_than_the_calibrations(monkeypatch, tmp_path):
    pixels = pixels_of(FLOOR) / 2
    places = iter([",".join(map(str, place)) for place in FLOOR])
    window = Window(monkeypatch, [tuple(pixel) for pixel in pixels])
    monkeypatch.setattr(cv2, "drawMarker", lambda *_: None)  # which takes whole pixels only
    monkeypatch.setattr(clicking, "ask_in_terminal", lambda _: next(places))
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.zeros((360, 640, 3), np.uint8))
    report = tmp_path / "pose.json"

    assert calibrate("--hfov", "90", "--image", photo, "--click", "--json", report) == 0

    assert window.sizes[0] == (360, 640, 3)
    written = json.loads(report.read_text())
    assert list(written["pose"].values()) == pytest.approx(TRUTH, abs=1e-5)


def test_without_a_display_clicking_is_refused_in_one_line(monkeypatch, tmp_path, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.zeros((36, 64, 3), np.uint8))

    assert calibrate("--hfov", "90", "--image", photo, "--click") == 1

    error = capsys.readouterr().err
    assert "expected a display" in error
    assert len(error.splitlines()) == 1


def test_a_window_that_opens_is_a_display(monkeypatch):
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0)
    )

    clicking.check_display()
