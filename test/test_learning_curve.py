# SPDX-License-Identifier: Apache-2.0
"""What a model card says of how its training went."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.codec import RoiCodecError, get_preset
from roi_codec_ros.codec.models import untrained_model
from roi_codec_ros.lab.training.progress import learning_curve


def write_log(path: Path, steps: list[int], **figures: float) -> None:
    lines = [{"step": s, "elapsed_s": s / 2, "bpp": s / 1000, "loader": 0.1} for s in steps]
    lines[-1] |= figures
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_parts_of_the_log_are_averaged(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", [100, 200, 300, 400, 500, 600], psnr_db=20.0)
    assert learning_curve(tmp_path / "log.jsonl", points=3) == {
        "step": [200, 400, 600],
        "bpp": [0.15, 0.35, 0.55],
        "psnr_db": [None, None, 20.0],
    }


def test_what_a_later_run_went_over_again_is_left_out(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", [100, 200, 300, 200, 280])
    assert learning_curve(tmp_path / "log.jsonl")["step"] == [100, 200, 280]


def test_no_log_is_no_curve_and_a_broken_one_an_error(tmp_path: Path) -> None:
    assert learning_curve(tmp_path / "log.jsonl") == {}
    (tmp_path / "log.jsonl").write_text("step 1\n")
    with pytest.raises(RoiCodecError, match=r"expected a training log at .*log\.jsonl"):
        learning_curve(tmp_path / "log.jsonl")


def test_the_curve_of_a_card_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    model = untrained_model("nano")
    curve = {"step": [1, 2], "bpp": [0.5, 0.25], "head.fill": [None, 3.0]}
    model.with_card(training={"curve": curve}).save(tmp_path / "site.safetensors")
    picture = tmp_path / "curve.png"
    assert main(["models", str(tmp_path / "site.safetensors"), "--curve", str(picture)]) == 0
    drawn = cv2.imread(str(picture))
    assert drawn.shape[0] > 100 and np.ptp(drawn) > 200
    assert get_preset("nano").name in capsys.readouterr().out

    model.save(tmp_path / "bare.safetensors")
    assert main(["models", str(tmp_path / "bare.safetensors"), "--curve", str(picture)]) == 1
    assert "expected a learning curve" in capsys.readouterr().err
