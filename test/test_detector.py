# SPDX-License-Identifier: Apache-2.0
"""The person detector: which weights it takes, what it says without any, where it sees people."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception import person_detector as detector
from roi_codec_ros.perception.letterbox import Letterbox
from roi_codec_ros.perception.person_detector import PersonDetector, find_weights

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


def photographs() -> list[np.ndarray]:
    """Of several sizes; two pairs of them have one letterboxed size."""
    assets = Path(str(importlib.util.find_spec("ultralytics").origin)).parent / "assets"
    bus, zidane = (
        cv2.cvtColor(cv2.imread(str(assets / name)), cv2.COLOR_BGR2RGB)
        for name in ("bus.jpg", "zidane.jpg")
    )
    return [
        bus,
        zidane,
        bus[:, ::-1].copy(),
        cv2.resize(zidane, (641, 363)),
        np.zeros((1, 5000, 3), np.uint8),  # letterboxed it has less than a pixel of height
    ]


@needs_ultralytics
@needs_weights
def test_people_of_a_batch_are_those_of_each_image_alone():
    network = PersonDetector(WEIGHTS)

    together = network.detect_batch(photographs(), confidence=0.1)

    assert [found.image_size for found in together] == [p.shape[:2] for p in photographs()]
    assert [len(found) > 0 for found in together] == [True, True, True, True, False]
    for found, photograph in zip(together, photographs(), strict=True):
        alone = network.detect(photograph, confidence=0.1)
        assert found.xyxy == pytest.approx(alone.xyxy, abs=0.01)
        assert found.score == pytest.approx(alone.score, abs=1e-4)
    assert network.detect_batch([]) == []


@needs_ultralytics
@needs_weights
def test_images_of_one_letterboxed_size_go_through_together(monkeypatch):
    network = PersonDetector(WEIGHTS)
    batches = []
    predict = network._predict

    def counted(inputs, *rest):
        batches.append([image.shape[:2] for image in inputs])
        return predict(inputs, *rest)

    monkeypatch.setattr(network, "_predict", counted)

    network.detect_batch(photographs())

    # 1080×810, 720×1280 with its neighbour, and the flat one
    assert batches == [[(640, 480)] * 2, [(384, 640)] * 2, [(32, 640)]]


@needs_ultralytics
@needs_weights
def test_boxes_are_those_that_ultralytics_gives_for_an_image():
    """Its own letterbox and ours are the same."""
    network = PersonDetector(WEIGHTS)
    for photograph in photographs()[:4]:
        (result,) = network._network.predict(
            np.ascontiguousarray(photograph[:, :, ::-1]),
            conf=0.1,
            iou=0.7,
            imgsz=640,
            classes=network._person_classes,
            verbose=False,
        )

        found = network.detect(photograph, confidence=0.1)

        assert found.xyxy == pytest.approx(result.boxes.xyxy.numpy(), abs=0.01)


@pytest.mark.parametrize(
    ("size", "longest", "inner", "outer", "corner"),
    [
        ((360, 640), 640, (360, 640), (384, 640), (12, 0)),
        ((1080, 810), 640, (640, 480), (640, 480), (0, 0)),
        ((100, 200), 300, (160, 320), (160, 320), (0, 0)),  # 300 is no multiple of the stride
        ((1, 9000), 640, (1, 640), (32, 640), (15, 0)),
        ((37, 91), 640, (260, 640), (288, 640), (14, 0)),
    ],
)
def test_a_letterbox_keeps_the_aspect_and_pads_to_the_stride(size, longest, inner, outer, corner):
    box = Letterbox.of(size, longest, 32)

    assert (box.inner_size, box.outer_size, (box.top, box.left)) == (inner, outer, corner)
    whole = [[corner[1], corner[0], corner[1] + inner[1], corner[0] + inner[0]]]
    back = box.to_image(np.array(whole, np.float32))
    assert back[0] == pytest.approx([0, 0, size[1], size[0]], abs=1e-3)
    image = box.apply(np.full((*size, 3), 7, np.uint8))
    assert image.shape == (*outer, 3)
    assert (image == 7).all(axis=2).sum() == inner[0] * inner[1]


@needs_ultralytics
@needs_weights
def test_a_device_that_is_none_is_refused():
    with pytest.raises(RoiCodecError, match="torch device, found 'warp9'"):
        PersonDetector(WEIGHTS, device="warp9")
