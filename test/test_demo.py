# SPDX-License-Identifier: Apache-2.0
"""`roi-codec demo` as a user runs it: real processes, real photographs, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.cli import main

ROOT = Path(__file__).resolve().parents[1]
DETECTOR = Path(
    os.environ.get(
        "ROI_CODEC_TEST_DETECTOR", ROOT.parent / "shared" / "weights" / "yolov8n-person-st.pt"
    )
)
PATIENCE_S = 90.0
LATENCIES = ("encode_ms", "decode_ms", "detect_ms", "end_to_end_ms")

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("roi_codec_ros.msg", reason="needs the built messages")
pytest.importorskip("ultralytics", reason="needs the detector")
needs_detector = pytest.mark.skipif(not DETECTOR.is_file(), reason=f"no weights at {DETECTOR}")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The trained model, or one with random weights where none is installed."""
    from roi_codec_ros.codec.models import find_model, untrained_model
    from roi_codec_ros.common.errors import ModelFileError

    try:
        return str(find_model("fast"))
    except ModelFileError:
        path = tmp_path_factory.mktemp("models") / "untrained.safetensors"
        untrained_model("fast").save(path)
        return str(path)


def start(out: Path, *arguments: str) -> subprocess.Popen:
    """Start the demo; its children can be told by its `--out` and by their parent."""
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": search_path}
    environment.pop("ROS_DOMAIN_ID", None)
    return subprocess.Popen(
        [sys.executable, "-m", "roi_codec_ros.cli", "demo", "--out", str(out), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def children_of(pid: int) -> set[int]:
    """All processes that the kernel knows as children of this one, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = (int(fields[1]), fields[0])
    found: set[int] = set()
    grown = True
    while grown:
        grown = False
        for child, (parent, state) in parents.items():
            if state != "Z" and child not in found and (parent == pid or parent in found):
                found.add(child)
                grown = True
    return found


def read_until(demo: subprocess.Popen, text: str, from_s: float = 0.0) -> None:
    """Read the demo's output up to a line with this text, and the table up to this time."""
    said = []
    assert demo.stdout is not None
    for line in demo.stdout:
        said.append(line)
        time_s = re.match(r" *(\d+) s ", line)
        if text in line and (time_s is None or int(time_s[1]) >= from_s):
            return
    raise AssertionError(f"expected {text!r}, the demo said\n{''.join(said)}")


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


@pytest.fixture
def demos() -> Iterator[list[subprocess.Popen]]:
    """Whatever a test started is gone after it."""
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@needs_detector
@pytest.mark.graph
def test_the_demo_leaves_its_report_and_its_pictures(tmp_path, model, demos):
    out = tmp_path / "out"
    demo = start(out, "--seconds", "5", "--model", model, "--detector", str(DETECTOR))
    demos.append(demo)
    said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, said

    report = json.loads((out / "report.json").read_text())
    assert set(report) == {"generator", "model", "seconds", "cameras"}
    assert report["seconds"] == pytest.approx(5.0, abs=0.2)
    [camera] = report["cameras"]
    assert camera["name"] == "camera"
    assert camera["frames"] >= 1 and camera["dropped"] >= 0
    assert camera["fps"] == pytest.approx(camera["frames"] / report["seconds"], abs=0.02)
    assert 0 < camera["bpp"] < 24
    assert 0 < camera["kbit_s"] < camera["raw_kbit_s"]
    assert camera["bpp"] == pytest.approx(24 * camera["kbit_s"] / camera["raw_kbit_s"], rel=0.02)
    assert camera["persons_mean"] >= 0
    for name in LATENCIES:
        assert 0 < camera[name]["p50"] <= camera[name]["p95"] < 60_000
    one_after_the_other = sum(camera[name]["p50"] for name in LATENCIES[:3])
    assert camera["end_to_end_ms"]["p95"] > 0.5 * one_after_the_other

    video = cv2.VideoCapture(str(out / "side_by_side.mp4"))
    frames = []
    while True:
        found, frame = video.read()
        if not found:
            break
        frames.append(frame)
    assert 1 <= len(frames) <= 60  # ten a second over the time of the pictures
    assert frames[0].shape == (434, 1488, 3)
    raw, decoded = frames[0][34:394, 12:492], frames[0][34:394, 504:984]
    assert raw.std() > 20, "the camera's third is empty"
    assert np.abs(raw.astype(int) - decoded).mean() > 2, "the decoded third is the camera's"

    sheet = cv2.imread(str(out / "contact_sheet.png"))
    assert sheet.shape[1] >= 360 and sheet.std() > 20
    assert {path.name for path in (out / "log").glob("*.log")} == {
        "camera.encoder.log",
        "server.log",
        "tracker.log",
    }


@needs_detector
@pytest.mark.graph
def test_the_hall_goes_into_the_map_until_ctrl_c_ends_every_process(tmp_path, model, demos):
    out = tmp_path / "out"
    arguments = ["--cameras", "2", "--seconds", "0", "--rate", "4", "--pace", "0.1"]
    demo = start(out, *arguments, "--model", model, "--detector", str(DETECTOR))
    demos.append(demo)
    read_until(demo, " s  camera1", from_s=20)
    children = children_of(demo.pid)
    assert len(children) == 5  # two encoders, the hall, server and tracker
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=3 * PATIENCE_S)
    assert demo.returncode == 0, said
    assert alive(children) == set()

    report = json.loads((out / "report.json").read_text())
    assert [camera["name"] for camera in report["cameras"]] == ["camera1", "camera2"]
    assert set(report) == {"generator", "model", "seconds", "cameras", "twin", "faces"}
    twin, faces = report["twin"], report["faces"]
    assert twin["pace"] == 0.1 and 1 <= twin["persons"] <= 8
    assert faces["frames"] >= 2 and faces["anonymized"] <= faces["camera"]
    if "untrained" not in model:
        assert twin["persons_found"] >= 1
        assert twin["position_error_m"]["p50"] < 0.5
    video = cv2.VideoCapture(str(out / "side_by_side.mp4"))
    found, frame = video.read()
    assert found and frame.shape[0] <= 1000 and frame.shape[1] > frame.shape[0]
    assert (out / "log" / "hall.log").is_file()


@needs_detector
@pytest.mark.graph
def test_ctrl_c_while_starting_ends_every_process(tmp_path, model, demos):
    demo = start(tmp_path / "out", "--model", model, "--detector", str(DETECTOR))
    demos.append(demo)
    read_until(demo, "starting ")
    children = children_of(demo.pid)
    assert len(children) == 3  # encoder, server, tracker
    demo.send_signal(signal.SIGTERM)
    started = time.monotonic()
    demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 128 + signal.SIGINT
    assert alive(children) == set()
    assert time.monotonic() - started < 30


@pytest.fixture
def refused(tmp_path, model, capfd) -> Callable[..., str]:
    """The one line by which a demo refuses arguments, before it starts anything."""

    def said(*arguments: object) -> str:
        asked = ["demo", "--out", tmp_path / "out", "--model", model, *arguments]
        assert main([*map(str, asked)]) == 1
        output = capfd.readouterr()
        (line,) = (output.out + output.err).strip().splitlines()
        assert line.startswith("roi-codec demo: ")
        return line

    return said


def test_a_source_that_is_not_there_is_one_line(tmp_path, refused):
    detector = tmp_path / "weights.pt"
    detector.touch()
    given = ("--detector", detector, "--source")
    assert "no-such.mp4" in refused(*given, "no-such.mp4")
    assert "/dev/video99" in refused(*given, "/dev/video99")
    (tmp_path / "text.mp4").write_text("not a video")
    assert "text.mp4" in refused(*given, tmp_path / "text.mp4")


def test_missing_weights_and_models_are_one_line(refused):
    assert "no-such.pt" in refused("--detector", "no-such.pt")
    assert "no-such-model" in refused("--model", "no-such-model")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, refused):
    (tmp_path / "out").write_text("a file")
    assert f"{tmp_path}/out: it is no folder" in refused()


@pytest.mark.graph
def test_a_node_that_dies_is_named_and_ends_the_demo(tmp_path, model):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not weights")
    demo = start(tmp_path / "out", "--model", model, "--detector", str(broken))
    said, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("roi-codec demo: server ended with status 1") and "broken.pt" in last
