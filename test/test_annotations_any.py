# SPDX-License-Identifier: Apache-2.0
"""COCO's and YOLO's layouts, recognised and read; missing, half and broken data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations_any import read_annotations, shortfall
from roi_codec_ros.lab.datasets.annotations_write import odgt_text

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


def test_any_class_has_its_boxes_in_every_layout(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("coco", "yolo", "odgt")]
    for root in roots:
        root.mkdir()
    coco(roots[0], box(9, 0, 0, 5, 5), box(9, 90, 70, 20, 20, iscrowd=1))
    yolo(roots[1], "2 0.025 0.03125 0.05 0.0625", "2 0.95 0.9375 0.1 0.125")
    picture(roots[2] / "images" / "val" / "a.jpg")
    tagged = [{"tag": "Dog", "vbox": sides} for sides in ([0, 0, 5, 5], [90, 70, 20, 20])]
    record = {"ID": "a", "gtboxes": tagged, "width": 100, "height": 80}
    (roots[2] / "annotation_val.odgt").write_text(json.dumps(record))
    for root in roots:
        (item,) = read_annotations(root, "val")
        assert item.classes() == {"dog"}
        np.testing.assert_allclose(item.boxes("dog"), [[0, 0, 5, 5], [90, 70, 100, 80]], atol=1e-4)
        assert len(item.boxes("person")) == len(item.boxes("cat")) == len(item.ignored) == 0
        # What is written is what is read.
        written = tmp_path / f"again_{root.name}"
        picture(written / "images" / "val" / "a.jpg")
        (written / "annotation_val.odgt").write_text(odgt_text([item]))
        (again,) = read_annotations(written, "val")
        np.testing.assert_allclose(again.boxes("dog"), item.boxes("dog"), atol=0.01)


def test_a_set_without_persons_is_read_where_none_are_needed(tmp_path: Path) -> None:
    first, second = tmp_path / "coco", tmp_path / "yolo"
    for root in (first, second):
        root.mkdir()
    coco(first, box(9, 0, 0, 5, 5), categories=CATEGORIES[2:])
    yolo(second, "0 0.5 0.5 0.5 0.5", names="[dog]")
    for root in (first, second):
        (item,) = read_annotations(root, "val", needs_persons=False)
        assert (item.person_boxes, item.classes()) == ("none", {"dog"})


def test_what_could_not_be_used_is_said_with_number_and_first(tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "b.jpg"}]
    sized = [image | {"width": 100, "height": 80} for image in images]
    root = coco(tmp_path, box(1, 200, 0, 5, 5), box(9, 5, 5, 0, 5), images=sized)
    assert shortfall(read_annotations(root, "val")) == [
        "1 of 2 photographs left out, the first b: no such file",
        "2 boxes left out, with less than a pixel inside their photograph, the first in a",
    ]
