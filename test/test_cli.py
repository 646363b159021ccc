# SPDX-License-Identifier: Apache-2.0
"""`roi-codec` as its users type it: real processes, files, exit statuses, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.cli import VERBS, main
from roi_codec_ros.codec import Encoder, Payload, load_model, untrained_model


def roi_codec(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "roi_codec_ros.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def here(*arguments: object) -> int:
    """The same in this process, for what needs none of its own."""
    try:
        return main([*map(str, arguments)])
    except SystemExit as end:  # argparse's
        return int(end.code or 0)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    skimage_data = pytest.importorskip("skimage.data")
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), skimage_data.astronaut()[:200, 100:333, ::-1])
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    untrained_model("nano").save(tmp_path / "models" / "shed.safetensors")
    return tmp_path / "models"


def test_encode_then_decode(photograph: Path, models: Path, tmp_path: Path) -> None:
    coded, shown, report = tmp_path / "p.roic", tmp_path / "p.png", tmp_path / "p.json"
    done = roi_codec(
        "encode", photograph, coded, "--model", "shed", "--json", report,
        ROI_CODEC_MODELS=str(models),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())
    assert figures["bytes"] == coded.stat().st_size
    assert figures["bits_per_pixel"] == pytest.approx(8 * figures["bytes"] / (200 * 233))

    done = roi_codec("decode", coded, shown, ROI_CODEC_MODELS=str(models))
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(shown)).shape == (200, 233, 3)


def test_a_photograph_is_encoded_as_it_is_shown(models: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright
    Image.new("RGB", (96, 64)).save(tmp_path / "phone.jpg", exif=exif)
    options = ("--model", "shed", "--json", tmp_path / "p.json")
    done = roi_codec(
        "encode", tmp_path / "phone.jpg", tmp_path / "p.roic", *options,
        ROI_CODEC_MODELS=str(models),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "p.json").read_text())["original_size"] == [96, 64]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "an empty file"), (b"no picture", "no picture"), (b"GIF89a", "a broken picture")],
)
def test_what_is_no_photograph_is_one_line(
    content: bytes, reason: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    status = here("encode", path, tmp_path / "a.roic", "--model", models / "shed.safetensors")
    said = capsys.readouterr().err
    assert status == 1
    assert said.startswith(f"roi-codec encode: expected a photograph at {path}, found {reason}")
    assert said.count("\n") == 1


def test_a_frame_that_is_not_decoded_by_default_is_said_to_be(
    models: Path, tmp_path: Path
) -> None:
    """8.3 megapixels and a little, from an encoder that knows."""
    Image.new("RGB", (4000, 2100)).save(tmp_path / "big.png")
    paths = [str(tmp_path / name) for name in ("big.png", "big.roic", "shown.png")]
    encode = roi_codec("encode", *paths[:2], "--model", "shed", ROI_CODEC_MODELS=str(models))
    assert encode.returncode == 0, encode.stderr
    assert "4000×2100 is larger than what is decoded by default" in encode.stderr
    assert "--max-megapixels 9," in encode.stderr

    decode = ("decode", *paths[1:])
    refused = roi_codec(*decode, ROI_CODEC_MODELS=str(models))
    assert refused.returncode == 1
    assert "found 4000×2100 pixels: --max-megapixels 9 takes it" in refused.stderr
    taken = roi_codec(*decode, "--max-megapixels", "9", ROI_CODEC_MODELS=str(models))
    assert taken.returncode == 0, taken.stderr
    assert Image.open(paths[2]).size == (4000, 2100)


def test_what_was_encoded_decodes_after_its_model_was_measured(
    photograph: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, coded, report = models / "shed.safetensors", tmp_path / "p.roic", tmp_path / "r.json"
    assert here("encode", photograph, coded, "--model", model) == 0
    made = {"person_ap50": 0.5, "faces_found": 9, "bpp_mean": 0.1, "psnr_mean": 20.0}
    original = {"method": "original", "preset": "", **made}
    row = {"method": "shed", "preset": "nano", "model_id": load_model(model).id.hex(), **made}
    about = {"dataset": "d", "split": "val", "images": 1, "detector": "x", "face_detector": "haar"}
    report.write_text(json.dumps({**about, "rows": [original, row]}))
    model.chmod(0o640)

    capsys.readouterr()
    assert here("models", model, "--measured", report) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["faces"] == 9
    assert load_model(model).figures["faces"] == 9
    assert model.stat().st_mode & 0o777 == 0o640
    assert here("decode", coded, tmp_path / "p.png", "--model", model) == 0


def test_no_verb_writes_over_what_it_reads_or_somebody_else_made(
    photograph: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = photograph.read_bytes()
    model, coded = models / "shed.safetensors", tmp_path / "p.roic"
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    (tmp_path / "link.png").symlink_to(photograph)
    encode = ["encode", photograph, "--model", model]
    for arguments, status, sentence in (
        (["encode", photograph, photograph, "--model", model], 2, "over the input"),
        (["encode", photograph, tmp_path / "link.png", "--model", model], 2, "over the input"),
        ([*encode[:2], model, *encode[2:], "--force"], 2, "over the input"),
        ([*encode[:2], coded, *encode[2:], "--json", photograph], 2, "over the input"),
        ([*encode[:2], coded, *encode[2:], "--json", coded], 2, "a file of its own"),
        ([*encode[:2], notes, *encode[2:]], 1, "a file that roi-codec did not make; --force"),
        (["models", model, "--json", notes], 1, "a file that roi-codec did not make; --force"),
        (["export", model, "--onnx", model], 2, "over the input"),
    ):
        assert here(*arguments) == status
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert sentence in said
    assert photograph.read_bytes() == kept
    assert notes.read_text() == "mine"
    assert load_model(model).name == "untrained-nano"
    # What we made is made again, and the rest where the user says so.
    for _ in range(2):
        assert here("models", model, "--json", tmp_path / "card.json") == 0
    assert here("models", model, "--json", notes, "--force") == 0
    assert json.loads(notes.read_text())["name"] == "untrained-nano"


def test_pictures_go_through_pipes(photograph: Path, models: Path) -> None:
    """What is said of them goes elsewhere."""
    model = models / "shed.safetensors"
    command = [sys.executable, "-m", "roi_codec_ros.cli"]
    encode = subprocess.run(
        [*command, "encode", photograph, "/dev/stdout", "--model", model], capture_output=True
    )
    assert encode.returncode == 0, encode.stderr
    assert b"bits per pixel" in encode.stderr
    decode = subprocess.run(
        [*command, "decode", "/dev/stdin", "/dev/stdout", "--model", model],
        input=encode.stdout,
        capture_output=True,
    )
    assert decode.returncode == 2, "the suffix says which format it shall be"
    assert Payload.from_bytes(encode.stdout).original_height == 200


def test_no_room_for_what_is_printed_is_one_line(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "roi_codec_ros.cli", "models"]
    for environment in ({}, {"PYTHONUNBUFFERED": "1"}):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "", "ROI_CODEC_MODELS": str(models)}
                | environment,
            )
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    done = roi_codec("models", "--json", "/dev/full", ROI_CODEC_MODELS=str(models))
    assert done.returncode == 1
    assert done.stderr == ("roi-codec models: cannot write /dev/full: No space left on device\n")


def test_a_terminal_that_knows_ascii_alone(photograph: Path, models: Path, tmp_path: Path) -> None:
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    model = models / "shed.safetensors"
    done = roi_codec("encode", photograph, tmp_path / "p.roic", "--model", model, **old)
    assert done.returncode == 0, done.stderr
    assert "bits per pixel at 233x200" in done.stdout
    done = roi_codec("train", "--help", **old)
    assert done.returncode == 0, done.stderr
    assert "--lambda-rate lambda" in done.stdout
    odd = tmp_path / os.fsdecode(b"p\xff.roic")  # a name that no encoding has
    done = roi_codec("encode", photograph, odd, "--model", model)
    assert done.returncode == 0, done.stderr
    assert odd.is_file()


def test_models_lists_what_is_there_and_what_cannot_be_read(models: Path) -> None:
    (models / "torn.safetensors").write_bytes(b"torn")
    done = roi_codec("models", ROI_CODEC_MODELS=str(models))
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert untrained_model("nano").id.hex() in lines["shed"]
    assert "unreadable" in lines["torn"]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (
            ["encode", "absent.jpg", "o.roic", "--model", "shed"],
            1,
            "expected a photograph at absent.jpg, found no such file",
        ),
        (["encode", "{photo}", "o.roic", "--model", "barn"], 1, "found 'barn'"),
        (["decode", "{photo}", "o.png"], 1, "expected"),
        (["train", "--data", "absent", "--out", "{tmp}/run"], 1, "expected a data folder"),
        (["train", "--data", "{tmp}", "--out", "{tmp}/run", "--preset", "swift"], 2, "'swift'"),
        (["encode"], 2, "the following arguments are required"),
        (["encode", "{photo}", "o.roic", "--max-width", "-5"], 2, "--max-width: invalid positive"),
        (["paint"], 2, "invalid choice"),
        ([], 2, "required"),
    ],
)
def test_wrong_use_is_one_line_and_a_status(
    arguments: list[str],
    status: int,
    sentence: str,
    photograph: Path,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ROI_CODEC_MODELS", str(models))
    filled = [a.format(photo=photograph, tmp=tmp_path) for a in arguments]
    assert here(*filled) == status
    said = capsys.readouterr().err
    assert sentence in said
    if status == 1:
        assert len(said.strip().splitlines()) == 1


def test_wrong_use_ends_a_process_with_its_status_and_no_traceback(tmp_path: Path) -> None:
    done = roi_codec("encode", tmp_path / "absent.jpg", tmp_path / "o.roic")
    assert done.returncode == 1
    assert done.stderr.startswith("roi-codec encode: expected a photograph at")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert here(verb, "--help") == 0
    assert f"roi-codec {verb}" in capsys.readouterr().out.split("example:")[1]


def test_a_folder_of_frames_is_decoded_as_the_stream_that_they_are(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = Encoder(untrained_model("nano"), skip=True)
    picture = np.random.default_rng(0).integers(100, 110, (48, 80, 3), np.uint8)  # of nobody
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(13):
        coded = encoder.encode(picture, stamp_s=0.1 * index)
        if index:  # the slice begins in the middle
            (frames / f"{index:04d}.roic").write_bytes(coded.data)
    (frames / "0002.roic").write_bytes(b"not a frame")
    shown, report = tmp_path / "shown", tmp_path / "report.json"
    model = models / "shed.safetensors"

    status = here("decode", frames, shown, "--model", model, "--json", report)

    said = capsys.readouterr()
    assert status == 0, said.err
    assert "11 of 12 frames" in said.out and "0002.roic: payload: expected" in said.err
    entries = json.loads(report.read_text())["frames"]
    assert [entry["file"] for entry in entries][:2] == ["0001.png", "0003.png"]
    shares = [entry["known_share"] for entry in entries]
    assert shares[0] < 0.5 and shares[-1] == 1.0
    assert cv2.imread(str(shown / "0012.png")).shape == picture.shape
    assert here("decode", tmp_path / "models", shown) == 1


@pytest.fixture
def without_libgl(tmp_path: Path) -> str:
    """A PYTHONPATH on which OpenCV fails as its wheel for desktops does on a minimal system."""
    (tmp_path / "hidden").mkdir()
    reason = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "hidden" / "cv2.py").write_text(f"raise ImportError({reason!r}, name='cv2')\n")
    return os.pathsep.join([str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize("command", ["encode x.jpg", "models", "grab 0 x.jpg"])
def test_an_opencv_that_does_not_load_is_named_in_one_line(
    command: str, without_libgl: str
) -> None:
    verb, *arguments = command.split()

    done = roi_codec(verb, *arguments, PYTHONPATH=without_libgl)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"roi-codec {verb}: cannot load OpenCV (libGL.so.1")
    assert "opencv-python-headless" in line


def test_the_doctor_looks_on_where_opencv_does_not_load(without_libgl: str) -> None:
    done = roi_codec("doctor", PYTHONPATH=without_libgl)

    assert done.returncode == 1
    assert "cannot load OpenCV (libGL.so.1" in done.stdout
    assert "shared memory" in done.stdout
    assert "Traceback" not in done.stderr
