# SPDX-License-Identifier: Apache-2.0
"""What regions hide and overlook, on a real photograph, and its limits on worked values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.cli import main
from roi_codec_ros.codec.policy import StepPolicy
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.face_detectors import FACE_DETECTORS
from roi_codec_ros.regions import RegionFinder
from roi_codec_ros.regions.finder import Faces, Regions, Thresholds

pytest.importorskip("torch")
pytest.importorskip("scipy")

from roi_codec_ros.lab.privacy.region_recall import (
    RegionJudge,
    height_bin,
    height_bins,
    missed_at_most,
)

FACE = [195.0, 85.0, 250.0, 155.0]
HEAD = [180, 60, 85, 110]  # x, y, width, height
SLEEVE = [60, 420, 50, 50]  # which nobody takes for a head
PERSON = [20, 50, 440, 462]


def box(*sides: float) -> np.ndarray:
    return np.array(sides, np.float32)


def test_nothing_missed_is_not_none() -> None:
    # With none of n missed the limit is 1 - 0.05^(1/n).
    assert missed_at_most(59, 0) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert missed_at_most(10, 1) == pytest.approx(0.3941633, abs=1e-6)  # Clopper and Pearson's
    assert (missed_at_most(0, 0), missed_at_most(3, 3)) == (None, 1.0)
    with pytest.raises(ValueError, match="expected 0 to 2 missed, found 3"):
        missed_at_most(2, 3)


def test_a_height_at_an_edge_is_in_the_taller_bin() -> None:
    assert height_bins() == ["0-16", "16-32", "32-64", "64-128", "128+"]
    heights = {15.9: "0-16", 16: "16-32", 127.9: "64-128", 128: "128+"}
    assert {h: height_bin(box(0, 0, 500, h)) for h in heights} == heights


def test_a_person_counts_as_missed_by_what_the_model_codes_as_background() -> None:
    """Far away a few doubtful blocks count, which a threshold alone leaves out."""
    scores = np.zeros((8, 10), np.float32)
    scores[2:6, 2:4] = 0.25
    scores[3, 2] = 0.35

    class Finder:
        thresholds = Thresholds(person=0.5)

        def find(self, image: np.ndarray) -> Regions:
            return Regions(np.zeros_like(scores), scores, Faces())

    person = np.array([[32, 32, 64, 96]], np.float32)
    none = np.zeros((0, 4), np.float32)
    annotation = Annotation(Path("a.png"), "a", 160, 128, person, none, none)
    missed = []
    for policy in (None, StepPolicy()):
        judge = RegionJudge(cast(RegionFinder, Finder()), policy)
        judge.add(np.zeros((128, 160, 3), np.uint8), annotation, none)
        missed.append(judge.result.report()["persons"]["all"]["missed"])
    assert missed == [1, 0]


class FaceSeen:
    name = "seen"

    def detect(self, image: np.ndarray) -> Detections:
        return Detections.from_arrays([FACE], [0.9], image.shape[:2])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A portrait with its head and a sleeve that somebody took for one, and a broken file."""
    photograph = pytest.importorskip("skimage.data").astronaut()
    folder = tmp_path / "portraits"
    (folder / "images" / "val").mkdir(parents=True)
    Image.fromarray(photograph).save(folder / "images" / "val" / "a.png")
    (folder / "images" / "val" / "broken.png").write_bytes(b"")
    boxes = [
        {"tag": "person", "vbox": PERSON, "hbox": HEAD},
        {"tag": "person", "vbox": PERSON, "hbox": SLEEVE},
    ]
    lines = [
        json.dumps({"ID": name, "gtboxes": boxes, "width": 512, "height": 512})
        for name in ("a", "broken")
    ]
    (folder / "annotation_val.odgt").write_text("\n".join(lines))
    monkeypatch.setitem(FACE_DETECTORS, "seen", lambda argument, device: FaceSeen())
    return folder


def audit(data: Path, model: str, *more: str) -> int:
    fixed = ["--data", str(data), "--split", "val", "--detectors", "seen", "--threads", "1"]
    return main(["audit", model, *fixed, *more])


def test_a_regions_model_is_audited_without_any_codec(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "regions.json"
    assert audit(data, "regions", "--json", str(result)) == 0
    printed = capsys.readouterr()
    report = json.loads(result.read_text())
    found = report["regions"]
    assert (report["regions_model"], found["images"]) == ("regions", 1)
    assert (found["heads"]["all"]["number"], found["heads"]["all"]["missed"]) == (2, 1)
    assert found["heads"]["by_height_px"]["32-64"]["recall"] == 0.0  # the sleeve
    head = found["heads"]["by_height_px"]["64-128"]
    assert (head["number"], head["recall"], head["missed_at_most"]) == (1, 1.0, 0.95)
    assert (found["faces"]["all"]["number"], found["faces"]["all"]["missed"]) == (1, 0)
    assert (found["persons"]["all"]["number"], found["persons"]["all"]["missed"]) == (2, 0)
    # The head is 3.6 % of the picture; a helmet beside it may well be hidden, too.
    assert found["hidden_in_vain"] + 0.02 < found["hidden_share"] < 0.25
    assert "1 of 2 images audited" in printed.out
    assert "left out: broken: expected a photograph" in printed.err


def test_a_table_has_no_page(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit(data, "regions", "--html", str(tmp_path / "a.html")) == 2
    assert "expected no --html for regions alone" in capsys.readouterr().err
