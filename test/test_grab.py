# SPDX-License-Identifier: Apache-2.0
"""`roi-codec grab`: a picture of the camera itself, with heads hidden unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from test_cli import roi_codec


@pytest.fixture
def person(tmp_path: Path) -> Path:
    data = pytest.importorskip("skimage.data", reason="its photograph of a person is the source")
    path = tmp_path / "camera.png"
    cv2.imwrite(str(path), cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR))
    return path


def test_a_head_is_hidden_and_the_rest_stays_as_it_is(person: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"

    done = roi_codec("grab", str(person), str(out))

    assert done.returncode == 0, done.stderr
    changed = (cv2.imread(str(out)) != cv2.imread(str(person))).any(axis=2)
    assert changed[80:160, 190:260].mean() > 0.9  # the face
    assert not changed[400:].any()
    assert "blocks hidden" in done.stdout


def test_raw_hides_nothing_and_says_so(person: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"

    done = roi_codec("grab", str(person), str(out), "--raw")

    assert done.returncode == 0, done.stderr
    assert np.array_equal(cv2.imread(str(out)), cv2.imread(str(person)))
    assert "can be recognised" in done.stderr


@pytest.mark.parametrize(
    ("camera", "status", "sentence"),
    [
        ("topic:/image_raw", 2, "expected a device, file or stream, found 'topic:/image_raw'"),
        ("/dev/video97", 1, "expected a camera at /dev/video97, found: No such file"),
    ],
)
def test_what_is_no_camera_is_one_line(
    camera: str, status: int, sentence: str, tmp_path: Path
) -> None:
    done = roi_codec("grab", camera, str(tmp_path / "out.png"))

    assert done.returncode == status
    assert sentence in done.stderr
    assert not (tmp_path / "out.png").exists()
