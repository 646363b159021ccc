# SPDX-License-Identifier: Apache-2.0
"""The person detector: which weights it takes, what it says without any, where it sees people."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.perception import detector
from roi_codec_ros.perception.detector import PersonDetector, find_weights

WEIGHTS = Path(
    os.environ.get("ROI_CODEC_TEST_DETECTOR")
    or Path(__file__).resolve().parents[2] / "shared" / "weights" / "yolov8n-person-st.pt"
)
needs_ultralytics = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="ultralytics is not installed"
)
needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="no person weights: name some in ROI_CODEC_TEST_DETECTOR"
)


# Which weights


def test_an_explicit_path_comes_first(tmp_path):
    (tmp_path / "person-a.pt").touch()
    (tmp_path / "mine.pt").touch()

    assert find_weights(str(tmp_path / "mine.pt"), [tmp_path]) == tmp_path / "mine.pt"


def test_a_path_that_is_not_there_is_no_reason_to_look_elsewhere(tmp_path):
    (tmp_path / "person-a.pt").touch()

    with pytest.raises(RoiCodecError, match=r"mine\.pt, found no such file"):
        find_weights(str(tmp_path / "mine.pt"), [tmp_path])


def test_model_folders_are_searched_in_order(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    (second / "person-b.pt").touch()
    (second / "person-a.pt").touch()
    (first / "yolo.pt").touch()

    assert find_weights("", [first, second]) == second / "person-a.pt"


def test_weights_fetched_before_are_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "roi_codec_ros").mkdir()
    (tmp_path / "roi_codec_ros" / "yolov8n.pt").touch()

    assert find_weights() == tmp_path / "roi_codec_ros" / "yolov8n.pt"


class Ultralytics:
    """Stands in for ultralytics where its download must not reach the network."""

    def __init__(self, fetch):
        self.utils = self.downloads = self
        self.attempt_download_asset = fetch


def test_without_any_weights_one_sentence_says_how_to_get_some(tmp_path, monkeypatch):
    def offline(path):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(detector, "_ultralytics", lambda: Ultralytics(offline))

    with pytest.raises(RoiCodecError) as caught:
        find_weights("", [tmp_path])

    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "no network" in sentence
    assert "models/person-NAME.pt" in sentence
    assert "--detector" in sentence


def test_a_fetch_that_leaves_no_file_is_told_too(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(detector, "_ultralytics", lambda: Ultralytics(lambda path: path))

    with pytest.raises(RoiCodecError, match="nothing was fetched"):
        find_weights()


# What it sees


@needs_ultralytics
def test_a_file_that_is_no_weights_is_refused_in_one_line(tmp_path):
    (tmp_path / "noise.pt").write_bytes(bytes(100))

    with pytest.raises(RoiCodecError, match=r"expected YOLO weights in .*noise\.pt") as caught:
        PersonDetector(tmp_path / "noise.pt")

    assert "\n" not in str(caught.value)


def test_weights_that_know_no_person_are_refused():
    names = {0: "cat", 1: "dog"}

    with pytest.raises(RoiCodecError, match=r"class named person in cats\.pt, found cat, dog"):
        detector._person_classes(names, Path("cats.pt"))


def test_persons_are_found_by_name_whatever_their_number():
    assert detector._person_classes({0: "cat", 7: "Person"}, Path("a.pt")) == [7]


@needs_ultralytics
@needs_weights
def test_people_of_a_photograph_are_found_in_its_pixels():
    origin = importlib.util.find_spec("ultralytics").origin
    bgr = cv2.imread(str(Path(origin).parent / "assets" / "bus.jpg"))
    network = PersonDetector(WEIGHTS)

    found = network.detect(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), confidence=0.4)
    nobody = network.detect(np.zeros((37, 91, 3), np.uint8))

    assert found.image_size == bgr.shape[:2]
    assert len(found) >= 3
    best = found.xyxy[0]
    assert best == pytest.approx([223, 409, 344, 861], abs=15)
    assert (np.diff(found.score) <= 0).all()
    assert len(nobody) == 0
    assert nobody.image_size == (37, 91)


@needs_ultralytics
@needs_weights
def test_a_device_that_is_none_is_refused():
    with pytest.raises(RoiCodecError, match="torch device, found 'warp9'"):
        PersonDetector(WEIGHTS, device="warp9")
