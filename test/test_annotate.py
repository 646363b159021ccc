# SPDX-License-Identifier: Apache-2.0
"""Boxes made by detectors: heads cover faces, files read back as they were, the command works."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.cli import main
from roi_codec_ros.lab.datasets.annotate import cover_faces
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.datasets.annotations_any import read_annotations
from roi_codec_ros.lab.datasets.annotations_odgt import read_odgt
from roi_codec_ros.lab.datasets.annotations_write import odgt_text
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.face_detectors import FACE_DETECTORS

NONE = np.zeros((0, 4), np.float32)
DETECTOR = os.environ.get("ROI_CODEC_TEST_DETECTOR", "")


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_a_head_box_around_a_helmet_is_stretched_over_the_face_below() -> None:
    helmet, face = (100, 50, 160, 90), (105, 65, 155, 120)
    np.testing.assert_allclose(
        cover_faces(boxes(helmet), boxes(face), (480, 640)), [[100, 50, 160, 120]]
    )


def test_a_face_without_a_head_brings_its_own_cut_at_the_border() -> None:
    other, face = (300, 300, 340, 340), (10, 20, 50, 60)
    covered = cover_faces(boxes(other), boxes(face), (480, 640))
    np.testing.assert_allclose(covered, [other, (4, 2, 56, 64)], atol=1e-4)
    at_the_border = cover_faces(NONE, boxes((0, 0, 100, 100)), (100, 110))
    np.testing.assert_allclose(at_the_border, [[0, 0, 110, 100]])


def test_two_detectors_that_see_one_face_make_one_head() -> None:
    covered = cover_faces(NONE, boxes((100, 100, 140, 150), (104, 98, 146, 152)), (480, 640))
    assert len(covered) == 1
    assert (covered[0, :2] <= [94, 77.5]).all()
    assert (covered[0, 2:] >= [146, 155]).all()


def test_no_faces_leave_the_heads_as_they_are() -> None:
    heads = boxes((1, 2, 3, 4), (5, 6, 70, 80))
    np.testing.assert_array_equal(cover_faces(heads, NONE, (100, 100)), heads)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "val"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), np.zeros((200, 300, 3), np.uint8))
    annotation = Annotation(
        image_path=folder / "a.png",
        image_id="a",
        width=300,
        height=200,
        persons=boxes((10, 20, 60, 180), (12, 60, 70, 190)),
        heads=boxes((20, 20, 40, 45), (200, 10, 220, 30), (22, 62, 44, 90)),
        ignored=boxes((100, 100, 150, 150)),
        person_boxes="mixed",
        head_boxes="teacher",
        source="somewhere",
    )
    (tmp_path / "annotation_val.odgt").write_text(odgt_text([annotation]))
    (read,) = read_odgt(tmp_path, "val")

    def rows(values: np.ndarray) -> list[list[float]]:
        return sorted(values.tolist())

    assert rows(read.persons) == rows(annotation.persons)
    assert rows(read.heads) == rows(annotation.heads)
    # A head without a person is no person to score against, so nothing may be scored there.
    assert rows(read.ignored) == rows(boxes((100, 100, 150, 150), (200, 10, 220, 30)))
    read = dataclasses.replace(
        read, persons=NONE, heads=NONE, ignored=NONE, image_path=annotation.image_path
    )
    same = dataclasses.replace(annotation, persons=NONE, heads=NONE, ignored=NONE)
    for field in dataclasses.fields(Annotation):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(same, field.name))


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    skimage_data = pytest.importorskip("skimage.data")
    folder = tmp_path_factory.mktemp("site")
    pixels = cv2.cvtColor(skimage_data.astronaut(), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(folder / "astronaut.png"), pixels)
    return folder


@pytest.mark.skipif(not DETECTOR, reason="ROI_CODEC_TEST_DETECTOR names no person weights")
def test_a_folder_of_photographs_becomes_a_data_set(
    portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("facenet_pytorch")
    (portrait / "broken.jpg").write_bytes(b"")
    out = tmp_path / "site"
    arguments = ["annotate", str(portrait), "--detector", DETECTOR, "--out", str(out)]
    assert main(arguments) == 0
    assert (
        "1 of 2 photographs left out, the first broken: an empty file" in capsys.readouterr().err
    )

    (found,) = read_annotations(out, "train")
    assert found.image_path.read_bytes() == (portrait / "astronaut.png").read_bytes()
    assert (found.person_boxes, found.head_boxes) == ("teacher", "teacher")
    assert len(found.persons) == 1
    assert len(found.heads) == 1
    x1, y1, x2, y2 = found.heads[0]
    assert x1 < 190 < 250 < x2  # her face, in the photograph
    assert y1 < 80 < 165 < y2


class RedFace:
    """Sees one face: whatever is red."""

    name = "red"

    def detect(self, image: np.ndarray) -> Detections:
        rows, columns = np.nonzero((image[..., 0] > 150) & (image[..., 1] < 90))
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return Detections.from_arrays([box], [0.9], image.shape[:2])


def test_photographs_of_one_name_and_of_any_rotation_keep_their_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two cameras whose files have one name, two files of one stem, a phone held upright."""
    monkeypatch.setitem(FACE_DETECTORS, "red", lambda argument, device: RedFace())
    places = {
        "cam1/0001.png": (20, 30),
        "cam2/0001.png": (60, 30),
        "cam2/0001.jpg": (20, 70),
        "phone.jpg": (60, 90),
    }
    for name, (x, y) in places.items():
        image = Image.new("RGB", (120, 160), (90, 90, 90))
        image.paste((250, 0, 0), (x, y, x + 20, y + 24))
        exif = Image.Exif()
        if name == "phone.jpg":
            exif[0x0112], image = 6, image.transpose(Image.Transpose.ROTATE_90)
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "site" / name, exif=exif, quality=95)
    (tmp_path / "site" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 half")

    images = [
        {"id": n, "file_name": name, "width": 120, "height": 160}
        for n, name in enumerate((*places, "torn.jpg"))
    ]
    persons = {"annotations": [], "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "val").symlink_to(tmp_path / "site")
    (tmp_path / "coco" / "val.json").write_text(json.dumps({"images": images, **persons}))

    out = tmp_path / "out"
    annotate = ["annotate", str(tmp_path / "coco"), "--split", "val", "--faces", "red"]
    assert main([*annotate, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "4 of 5 photographs" in printed.out
    assert "left out: torn: expected a photograph" in printed.err
    read = read_annotations(out, "val")
    assert [item.image_id for item in read] == [
        "cam1/0001",
        "cam2/0001.png",
        "cam2/0001.jpg",
        "phone",
    ]
    for item, (name, (x, y)) in zip(read, places.items(), strict=True):
        assert item.image_path.resolve() == tmp_path / "site" / name
        assert (item.width, item.height) == (120, 160)
        x1, y1, x2, y2 = item.heads[0]
        assert (x1 < x + 2, y1 < y + 2, x2 > x + 18, y2 > y + 22) == (True,) * 4
        shown = RedFace().detect(read_annotated(item)).xyxy[0]
        assert (item.heads[0, :2] <= shown[:2]).all()
        assert (item.heads[0, 2:] >= shown[2:]).all()


def test_what_a_run_has_written_is_not_annotated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--out inside the folder of photographs; and a folder of photographs inside --out."""
    monkeypatch.setitem(FACE_DETECTORS, "red", lambda argument, device: RedFace())
    monkeypatch.setattr(
        "roi_codec_ros.perception.person_detector.PersonDetector", lambda *_, **__: None
    )
    monkeypatch.setattr("roi_codec_ros.perception.person_detector.find_weights", Path)
    site = tmp_path / "site"
    (site / "day1").mkdir(parents=True)
    for name in ("a", "odd\nna\\me"):
        Image.new("RGB", (60, 60), (250, 0, 0)).save(site / "day1" / f"{name}.png")
    for _ in range(2):
        assert main(["annotate", str(site), "--faces", "red", "--out", str(site / "out")]) == 0
        found = read_annotations(site / "out", "train")
        assert [item.image_id for item in found] == ["day1/a", "day1/odd%0Ana%5Cme"]
    assert main(["annotate", str(site / "day1"), "--faces", "red", "--out", str(site)]) == 0
    assert [item.image_id for item in read_annotations(site, "train")] == ["a", "odd%0Ana%5Cme"]
    assert "left out" not in capsys.readouterr().err


def test_heads_of_a_data_set_are_stretched_and_its_persons_kept(
    portrait: Path, tmp_path: Path
) -> None:
    pytest.importorskip("facenet_pytorch")
    data = tmp_path / "data"
    (data / "images" / "train").mkdir(parents=True)
    (data / "images" / "train" / "astronaut.png").symlink_to(portrait / "astronaut.png")
    hair = {"hbox": [170, 10, 100, 100], "vbox": [20, 5, 450, 500], "tag": "person"}
    line = {"ID": "astronaut", "gtboxes": [hair], "person_boxes": "human", "head_boxes": "human"}
    (data / "annotation_train.odgt").write_text(json.dumps(line) + "\n")

    assert main(["annotate", str(data), "--out", str(tmp_path / "covered")]) == 0
    (found,) = read_annotations(tmp_path / "covered", "train")
    np.testing.assert_allclose(found.persons, [[20, 5, 470, 505]])
    assert found.head_boxes == "mixed"
    assert len(found.heads) == 1
    assert found.heads[0, 1] == 10
    assert found.heads[0, 3] > 160
    assert main(["annotate", str(data), "--out", str(data)]) == 2


# What annotate writes, with OpenCV's own face detector, on photographs without faces


def annotate(data: Path, out: Path, *more: str) -> int:
    return main(["annotate", str(data), "--faces", "haar", "--out", str(out), *more])


def photograph(path: Path, level: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((60, 80, 3), level, np.uint8))
    return path.read_bytes()


def odgt(*image_ids: str) -> str:
    box = {"tag": "person", "vbox": [5, 5, 30, 50], "head_attr": {}, "extra": {}}
    records = [{"ID": i, "width": 80, "height": 60, "gtboxes": [box]} for i in image_ids]
    return "".join(json.dumps(record) + "\n" for record in records)


def data_set(root: Path) -> dict[Path, bytes]:
    """Two annotated photographs; the files and what is in them."""
    files = [root / "images" / "train" / name for name in ("a.png", "b.png")]
    photographs = {file: photograph(file, 50 + 99 * n) for n, file in enumerate(files)}
    (root / "annotation_train.odgt").write_text(odgt("a", "b"))
    return photographs


def assert_kept(photographs: dict[Path, bytes]) -> None:
    assert {path: path.read_bytes() for path in photographs} == photographs
    assert not any(path.is_symlink() for path in photographs)


@pytest.mark.skipif(not DETECTOR, reason="ROI_CODEC_TEST_DETECTOR names no person weights")
def test_photographs_that_lie_where_the_data_set_has_them_stay(tmp_path: Path) -> None:
    folder = tmp_path / "site" / "images" / "train"
    names = ("a.png", "b.png", "b.bmp")  # two of one stem
    photographs = {folder / n: photograph(folder / n, 40 * i) for i, n in enumerate(names)}
    for _ in range(2):
        assert annotate(folder, tmp_path / "site", "--detector", DETECTOR) == 0
        assert_kept(photographs)
        read = read_annotations(tmp_path / "site", "train")
        assert [item.image_id for item in read] == ["a", "b.bmp", "b.png"]
        assert {item.image_path.resolve() for item in read} == set(photographs)


@pytest.mark.parametrize("linked", ["images", "images/train"])
def test_photographs_behind_a_linked_folder_stay(tmp_path: Path, linked: str) -> None:
    photographs = data_set(tmp_path / "data")
    link = tmp_path / "out" / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "data" / linked)
    assert annotate(tmp_path / "data", tmp_path / "out") == 0
    assert_kept(photographs)
    read = read_annotations(tmp_path / "out", "train")
    assert [len(item.persons) for item in read] == [1, 1]


def test_annotations_that_somebody_made_or_changed_stay_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_set(tmp_path / "data")
    out = tmp_path / "out"
    file = out / "annotation_train.odgt"
    out.mkdir()
    file.write_text(odgt("by hand"))
    assert annotate(tmp_path / "data", out) == 1
    assert "expected no annotation_train.odgt in" in capsys.readouterr().err
    assert file.read_text() == odgt("by hand")
    assert annotate(tmp_path / "data", out, "--force") == 0
    written = file.read_text()
    assert "by hand" not in written
    assert annotate(tmp_path / "data", out) == 0, "nobody has changed it"
    file.write_text(written.replace("30.0", "31.0"))
    assert annotate(tmp_path / "data", out) == 1
    assert file.read_text() == written.replace("30.0", "31.0")
    # The annotations that are read are not written over, whoever asks for it.
    file.unlink()
    file.symlink_to(tmp_path / "data" / "annotation_train.odgt")
    assert annotate(tmp_path / "data", out, "--force") == 2
    assert (tmp_path / "data" / "annotation_train.odgt").read_text() == odgt("a", "b")


def test_what_has_the_name_of_a_link_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_set(tmp_path / "data")
    theirs = {tmp_path / "out" / "images" / "train" / "b.png": b""}
    for path in theirs:
        theirs[path] = photograph(path, 222)
    for more in ([], ["--force"]):
        assert annotate(tmp_path / "data", tmp_path / "out", *more) == 1
        assert "out/images/train/b.png, found a file" in capsys.readouterr().err
        assert_kept(theirs)
    for path in theirs:
        path.unlink()
        path.symlink_to("elsewhere")
    assert annotate(tmp_path / "data", tmp_path / "out") == 1
    assert "a link that leads elsewhere; --force replaces it" in capsys.readouterr().err
    assert annotate(tmp_path / "data", tmp_path / "out", "--force") == 0
    assert len(read_annotations(tmp_path / "out", "train")) == 2


@pytest.mark.skipif(not DETECTOR, reason="ROI_CODEC_TEST_DETECTOR names no person weights")
def test_a_data_set_within_the_folder_of_its_photographs_does_not_grow(tmp_path: Path) -> None:
    photographs = {tmp_path / "a.png": photograph(tmp_path / "a.png", 90)}
    for _ in range(2):
        assert annotate(tmp_path, tmp_path / "set", "--detector", DETECTOR) == 0
        assert len(read_annotations(tmp_path / "set", "train")) == 1
    assert_kept(photographs)
