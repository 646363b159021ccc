# SPDX-License-Identifier: Apache-2.0
"""The bench's contract: a row for each codec, ratios within a run, shares that add up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.codec import untrained_model
from roi_codec_ros.lab.tools.encode_bench import fitted, model_of

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def test_bench_writes_the_contracts_rows_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    report, figure = tmp_path / "bench.json", tmp_path / "bench.png"
    arguments = ["--presets", "fast", "paper-128-2"]
    arguments += ["--backends", "torch", "onnxruntime", "onnxruntime-int8"]
    arguments += ["--sizes", "96x64", "--threads", "1", "--rounds", "2", "--limit", "1"]

    assert main(["bench", *arguments, "--json", str(report), "--plot", str(figure)]) == 0

    written = json.loads(report.read_text())
    rows = {(row["codec"], row["preset"], row["backend"]): row for row in written["rows"]}
    ours = rows["roi-codec", "fast", "onnxruntime"]
    paper = {name: rows["roi-codec", "paper-128-2", name] for name in ("torch", "onnxruntime")}
    assert written["machine"]["packages"]["onnxruntime"]
    assert {row["size"] for row in rows.values()} == {"96x64"}
    assert {row["threads"] for row in rows.values()} == {1}
    # JPEG by two libraries, AV1 at two speeds, ours by two backends alone and in films, the
    # paper's by three.
    assert len(rows) == 3 + 3 + 3 + 3 + 2 * 2 + 3
    film = rows["roi-codec", "fast film", "onnxruntime-int8"]
    assert film["trained"] and film["parts_ms"].keys() == ours["parts_ms"].keys()
    assert rows["av1", "1", None]["ratio_av1_1"] == 1
    assert rows["av1@10", "1", None]["ratio_av1_1_speed10"] == 1
    assert rows["jpeg", "1", None]["ratio_jpeg_1"] == 1
    assert ours["trained"] is True
    assert 0 < ours["encode_ms"]["min"] <= ours["encode_ms"]["p50"]
    assert ours["entropy_ms"] == ours["parts_ms"]["entropy"] > 0
    assert set(ours["parts_ms"]) == {
        "preprocessing", "regions", "transform", "entropy", "packing"
    }  # fmt: skip
    assert sum(ours["parts_ms"].values()) <= 1.5 * ours["encode_ms"]["p50"]
    assert ours["parts_ms"]["regions"] > 0
    assert paper["onnxruntime"]["bpp"] == pytest.approx(paper["torch"]["bpp"], rel=0.02)
    assert figure.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "paper-128-2 onnxruntime-int8" in printed and "untrained" not in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--presets", "swift"], "expected a preset among"),
        (["--backends", "tflite"], "expected backends among torch,"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    assert main(["bench", "--sizes", "64x64", "--threads", "1", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_broken_photograph_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"no picture")
    arguments = ["bench", "--sizes", "64x64", "--threads", "1", "--images", str(tmp_path)]
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert "1 of 1 photographs left out, the first: expected a photograph at" in printed
    assert f"expected photographs in {tmp_path}, found none that can be read" in printed


def test_a_photograph_keeps_its_aspect() -> None:
    photograph = np.zeros((100, 300, 3), np.uint8)
    photograph[:, 100:200] = 255  # the middle square

    assert (fitted(photograph, (40, 40)) == 255).all()
    assert fitted(photograph, (600, 100)).shape == (100, 600, 3)


def test_an_installed_model_of_a_presets_name_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROI_CODEC_MODELS", str(tmp_path))
    untrained_model("nano", seed=5).save(tmp_path / "nano.safetensors")
    untrained_model("nano", seed=6).save(tmp_path / "fast.safetensors")

    assert model_of("nano").id == untrained_model("nano", seed=5).id
    assert model_of("fast").preset.name == "fast"
