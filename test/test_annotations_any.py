# SPDX-License-Identifier: Apache-2.0
"""COCO's and YOLO's layouts, recognised and read; missing, half and broken data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.perception.annotations_any import read_annotations

CATEGORIES = [{"id": 1, "name": "Person"}, {"id": 7, "name": "head"}, {"id": 9, "name": "dog"}]


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 80)).save(path)


def box(category: int, *bbox: float, **more: Any) -> dict[str, Any]:
    return {"image_id": 5, "category_id": category, "bbox": list(bbox), "iscrowd": 0} | more


def coco(root: Path, *boxes: dict[str, Any], **more: Any) -> Path:
    picture(root / "val" / "a.jpg")
    images = [{"id": 5, "file_name": "a.jpg", "width": 100, "height": 80}]
    data = {"images": images, "annotations": list(boxes), "categories": CATEGORIES} | more
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val.json").write_text(json.dumps(data))
    return root


def yolo(root: Path, *lines: str, names: str = "[person, head, dog]") -> Path:
    picture(root / "images" / "val" / "a.jpg")
    (root / "labels" / "val").mkdir(parents=True)
    (root / "labels" / "val" / "a.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(f"names: {names}\n")
    return root


def test_coco_boxes_are_sorted_by_category(tmp_path: Path) -> None:
    boxes = [
        box(1, 10, 20, 30, 40),
        box(7, 12, 20, 8, 8),
        box(9, 0, 0, 5, 5),
        box(1, 90, 70, 20, 20, iscrowd=1),
    ]
    (item,) = read_annotations(coco(tmp_path, *boxes), "val")
    assert item.persons.tolist() == [[10, 20, 40, 60]]
    assert item.heads.tolist() == [[12, 20, 20, 28]]
    assert item.ignored.tolist() == [[90, 70, 100, 80]]
    assert (item.image_id, item.width, item.height) == ("a", 100, 80)
    assert (item.person_boxes, item.head_boxes) == ("human", "human")


def test_coco_without_heads_says_so(tmp_path: Path) -> None:
    (item,) = read_annotations(coco(tmp_path, categories=CATEGORIES[:1]), "val")
    assert item.head_boxes == "none"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"annotations": [box(1, 1, 2, 3)]}, r"found 1 broken; the first is annotation 1: "),
        ({"annotations": [box(1, 1, 2, 3, 4, image_id=6)]}, r"expected a known image_id, found 6"),
        ({"annotations": None}, r"expected a list of objects as annotations"),
        ({"categories": CATEGORIES[2:]}, r"expected a category person .*found dog"),
        ({"images": [{"id": 5, "file_name": "../a.jpg"}]}, r"inside the data set"),
        ({"images": []}, r"expected annotated images in .*, found none"),
    ],
)
def test_a_broken_coco_file_is_one_error(
    tmp_path: Path, more: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(RoiCodecError, match=complaint):
        read_annotations(coco(tmp_path, **more), "val")


def test_yolo_boxes_are_relative_to_the_image(tmp_path: Path) -> None:
    lines = ["0 0.25 0.5 0.3 0.5", "1 .1 .1 .3 .1 .3 .2 .1 .2", "2 0.5 0.5 1 1"]
    (item,) = read_annotations(yolo(tmp_path, *lines), "val")
    assert item.persons.ravel().tolist() == pytest.approx([10, 20, 40, 60], abs=1e-4)
    assert item.heads.ravel().tolist() == pytest.approx([10, 8, 30, 16], abs=1e-4)
    assert (item.width, item.height, item.head_boxes) == (100, 80, "human")


def test_a_yolo_image_without_labels_is_empty_and_noted(tmp_path: Path) -> None:
    root = yolo(tmp_path, "0 0.25 0.5 0.3 0.5", names="{0: person}")
    picture(root / "images" / "val" / "b.png")
    (root / "images" / "val" / "c.png").write_bytes(b"no picture")
    annotated = read_annotations(root, "val")
    assert [len(item.persons) for item in annotated] == [1, 0]
    assert annotated.notes == ("2 images without a label file taken as empty",)
    assert [name for name, _ in annotated.unreadable] == ["c"]
    assert annotated[0].head_boxes == "none"


@pytest.mark.parametrize(
    ("lines", "names", "complaint"),
    [
        (["0 0.5 0.5 x 1"], "[person]", r"found 1 broken; the first is a.txt line 1: "),
        (["0 0.5 0.5 1"], "[person]", r"expected a box or a polygon"),
        ([], "[dog]", r"expected a class person in .*, found dog"),
        ([], "3", r"expected data.yaml or classes.txt"),
    ],
)
def test_broken_yolo_folders_are_one_error(
    tmp_path: Path, lines: list[str], names: str, complaint: str
) -> None:
    with pytest.raises(RoiCodecError, match=complaint):
        read_annotations(yolo(tmp_path, *lines, names=names), "val")


def test_yolo_labels_that_are_all_missing_are_an_error(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    (root / "labels" / "val" / "a.txt").unlink()
    with pytest.raises(RoiCodecError, match="found none for 1 images"):
        read_annotations(root, "val")


def test_images_that_are_not_there_are_listed(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "b.jpg"}]
    root = coco(tmp_path, images=[image | {"width": 100, "height": 80} for image in images])
    annotated = read_annotations(root, "val")
    assert ([item.image_id for item in annotated], annotated.unreadable) == (
        ["a"],
        (("b", "no such file"),),
    )
    (root / "val" / "a.jpg").unlink()
    with pytest.raises(RoiCodecError, match=r"found 2 without one, the first .*a\.jpg"):
        read_annotations(root, "val")


def test_an_unknown_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RoiCodecError, match=r"annotations/instances_val.json.*found notes.txt"):
        read_annotations(tmp_path, "val")
    with pytest.raises(RoiCodecError, match="expected a data folder"):
        read_annotations(tmp_path / "nowhere", "val")
