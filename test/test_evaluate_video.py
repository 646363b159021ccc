# SPDX-License-Identifier: Apache-2.0
"""Codecs compared on films: the command on a short clip, and its parts on worked values."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.codec.models import untrained_model
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.films import FilmError
from roi_codec_ros.lab.evaluation.film_baselines import parse_film_baselines
from roi_codec_ros.lab.evaluation.film_codecs import blurred
from roi_codec_ros.lab.evaluation.film_evaluation import FilmBench, encode_film
from roi_codec_ros.lab.evaluation.film_frames import Clip, read_clip
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.face_detectors import FACE_DETECTORS

HEIGHT, WIDTH, RATE_HZ, FRAMES = 66, 96, 10.0, 24
SIDE = 24  # of the white square that stands for a person


def square_at(index: int) -> int:
    return 8 + 2 * index


def frames(count: int = FRAMES) -> list[np.ndarray]:
    """A white square that walks to the right before a grey slope."""
    slope = np.broadcast_to(np.linspace(30, 90, WIDTH)[None, :, None], (HEIGHT, WIDTH, 3))
    images = [slope.astype(np.uint8).copy() for _ in range(count)]
    for index, image in enumerate(images):
        left = square_at(index)
        image[20 : 20 + SIDE, left : left + SIDE] = 240
    return images


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "walk.avi"
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), codec, RATE_HZ, (WIDTH, HEIGHT))
    for image in frames():
        writer.write(image)
    writer.release()
    return path


class White:
    """Sees one person, or one face, around all that is white."""

    name = "white"

    def detect(self, image: np.ndarray, *, confidence: float = 0.25) -> Detections:
        rows, columns = np.nonzero(image.min(axis=-1) > 160)
        if not len(rows):
            return Detections.from_arrays([], [], image.shape[:2])
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Detections.from_arrays([box], [0.9], image.shape[:2])


@pytest.fixture
def detectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    class Detector(White):
        def __init__(self, weights: Path, **options: object) -> None:
            pass

    monkeypatch.setattr("roi_codec_ros.perception.graph_detector.PersonDetector", Detector)
    monkeypatch.setitem(FACE_DETECTORS, "white", lambda argument, device: White())
    (tmp_path / "person.pt").write_bytes(b"weights")
    return ["--detector", str(tmp_path / "person.pt"), "--face-detector", "white"]


def test_a_film_in_our_packets_and_in_those_of_h264(
    film: Path, detectors: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("av")
    untrained_model("nano").save(tmp_path / "nano.safetensors")
    result = tmp_path / "films.json"
    status = main(
        ["evaluate", "--video", str(film), "--models", str(tmp_path / "nano.safetensors"),
         "--baselines", "x264:20,45", "jpeg:50", "--judge-every", "8",
         "--json", str(result), *detectors]
    )  # fmt: skip
    printed = capsys.readouterr()
    assert status == 0, printed.err
    report = json.loads(result.read_text())
    (video,) = report["videos"]
    assert (video["file"], video["frames"], video["rate_hz"]) == ("walk.avi", FRAMES, RATE_HZ)
    original, ours, fine, coarse, stills = video["rows"]
    needed = {"method", "preset", "kbit_s", "bpp", "person_ap50", "faces", "encode_ms"}
    assert all(needed | {"delay_frames"} <= set(row) for row in video["rows"])
    assert (original["method"], original["person_ap50"], original["faces"]) == ("original", 1.0, 3)
    assert original["kbit_s"] == pytest.approx(24 * HEIGHT * WIDTH * RATE_HZ / 1e3)
    assert ours["model_id"] and ours["encode_ms"] > 0
    assert (fine["method"], fine["preset"], fine["person_ap50"]) == ("x264", "20", 1.0)
    assert fine["faces_of_original"] == 3
    assert 0 < coarse["kbit_s"] < fine["kbit_s"] < original["kbit_s"]
    assert fine["bpp"] == pytest.approx(1e3 * fine["kbit_s"] / (RATE_HZ * HEIGHT * WIDTH))
    assert fine["delay_frames"] == ours["delay_frames"] == 0
    # A keyframe a second: who joins halfway waits for the next.
    assert fine["late_joiner_s"] == 0.5
    assert 0 < ours["late_joiner_s"] <= 1.0
    assert (stills["late_joiner_s"], stills["lost_packet_s"]) == (0.0, 0.1)
    assert "walk.avi: 24 frames of 96×66, 10 Hz" in printed.out


class Held:
    """Hands on each frame as one byte, two frames late; decodes to a picture of it."""

    name, preset, model_id, heal_s = "held", "", None, 1.0

    def encoder(self, size: tuple[int, int], rate_hz: float) -> Held:
        self.waiting: list[bytes] = []
        return self

    def put(self, image: np.ndarray, time_s: float) -> list[bytes]:
        self.waiting.append(bytes([round(time_s * RATE_HZ)]))
        return [self.waiting.pop(0)] if len(self.waiting) > 2 else []

    def flush(self) -> list[bytes]:
        return [self.waiting.pop(0) for _ in list(self.waiting)]

    def decoder(self, size: tuple[int, int]) -> HeldDecoder:
        return HeldDecoder()


class HeldDecoder:
    def put(self, data: bytes, number: int) -> list[tuple[int, np.ndarray]]:
        return [(number, frames()[data[0]])]

    def flush(self) -> list[tuple[int, np.ndarray]]:
        return []


def test_what_a_codec_holds_back_is_its_delay_and_a_gap_is_seen() -> None:
    clip = Clip("walk", frames(), RATE_HZ)
    assert encode_film(Held().encoder(clip.size, RATE_HZ), clip).delay_frames == 2
    _, row = FilmBench(White(), White(), every=6).rows(clip, [Held()])
    assert (row["delay_frames"], row["person_ap50"], row["faces"]) == (2, 1.0, 4)
    assert row["kbit_s"] == pytest.approx(8 * RATE_HZ / 1e3)
    # Each packet stands alone: a joiner sees all at once, and one that is lost is one frame.
    assert (row["late_joiner_s"], row["lost_packet_s"]) == (0.0, 0.1)


def test_a_codec_that_loses_frames_is_no_codec() -> None:
    class Loses(Held):
        def flush(self) -> list[bytes]:
            return []

    with pytest.raises(RoiCodecError, match="expected a packet for each of 24 frames, found 22"):
        FilmBench(White(), White()).rows(Clip("walk", frames(), RATE_HZ), [Loses()])


def test_a_camera_that_pans_sees_the_film_move(film: Path) -> None:
    still = read_clip(film, frames=3, rate_hz=5.0, size=(48, 33))
    assert (len(still.images), still.rate_hz, still.size) == (3, 5.0, (33, 48))
    walked = square_at(2) - square_at(0)  # every second frame, at half the size
    assert left_edge(still.images[1]) - left_edge(still.images[0]) == pytest.approx(
        walked / 2, abs=1
    )
    later = read_clip(film, frames=1, start_s=1.0)
    assert left_edge(later.images[0]) == pytest.approx(square_at(10), abs=1)
    with pytest.raises(FilmError, match="found none from 9 s on"):
        read_clip(film, frames=1, start_s=9.0)
    panned = read_clip(film, frames=4, size=(72, 50), pan_px_s=40.0)
    moved = left_edge(panned.images[3]) - left_edge(panned.images[0])
    assert moved == pytest.approx(3 * 2 - 3 * 4, abs=1.5)  # the square one way, the camera more


def left_edge(image: np.ndarray) -> int:
    return int(np.nonzero(image.min(axis=-1) > 160)[1].min())


def test_specifications_of_films() -> None:
    codecs = parse_film_baselines(
        ["x264:35,45", "svtav1@8:50", "blur+x265:40", "jpeg:5"], yunet="y.onnx"
    )
    names = [(codec.name, codec.preset) for codec in codecs]
    assert names == [
        ("x264", "35"),
        ("x264", "45"),
        ("svtav1@8", "50"),
        ("blur+x265", "40"),
        ("jpeg", "5"),
    ]
    assert codecs[0].heal_s == 1.0
    for wrong in ("vp9:30", "x264", "x264:", "x264:64", "x264:a", "x264@:30"):
        with pytest.raises(UsageError, match="expected a baseline"):
            parse_film_baselines([wrong])
    with pytest.raises(UsageError, match="x264:35 twice"):
        parse_film_baselines(["x264:35,35"])
    with pytest.raises(UsageError, match="expected --yunet FILE"):
        parse_film_baselines(["blur+x264:35"])


def test_faces_are_blurred_and_nothing_else() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    face = np.array([40.0, 20.0, 20.0, 20.0])
    result = blurred(noise, [face, np.array([-50.0, 0.0, 10.0, 10.0])])
    inside = np.s_[17:43, 37:63]
    assert result[inside].std() < noise[inside].std() / 3
    result[inside] = noise[inside]
    assert (result == noise).all()


def test_films_and_photographs_are_not_mixed(
    film: Path, detectors: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for more, complaint in (
        (["--video", str(film), "--data", "x"], "expected --video or --data, found both"),
        (["--split", "val"], "expected --data and --split, or --video"),
        (["--video", str(film), "--baselines", "vp9:10"], "expected a baseline of films"),
    ):
        assert main(["evaluate", *detectors, *more]) == 2
        assert complaint in capsys.readouterr().err
