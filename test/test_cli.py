# SPDX-License-Identifier: Apache-2.0
"""`roi-codec` as its users type it: real processes, files, exit statuses, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from PIL import Image

from roi_codec_ros.cli import VERBS
from roi_codec_ros.codec import untrained_model


def roi_codec(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "roi_codec_ros.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


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
    content: bytes, reason: str, models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    done = roi_codec(
        "encode", path, tmp_path / "a.roic", "--model", "shed", ROI_CODEC_MODELS=str(models)
    )
    assert done.returncode == 1
    expected = f"roi-codec encode: expected a photograph at {path}, found {reason}"
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


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
) -> None:
    filled = [a.format(photo=photograph, tmp=tmp_path) for a in arguments]
    done = roi_codec(*filled, ROI_CODEC_MODELS=str(models))
    assert done.returncode == status
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    if status == 1:
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    done = roi_codec(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"roi-codec {verb}" in done.stdout.split("example:")[1]
