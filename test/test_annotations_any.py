# SPDX-License-Identifier: Apache-2.0
"""COCO's and YOLO's layouts, recognised and read; missing, half and broken data sets."""

from __future__ import annotations

import json
import struct
import zlib
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
        ({"images": []}, r"expected images in .*, found none"),
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


# Data sets as tools write them: what is common is read, what is ambiguous is one line


def two_images(**second: Any) -> list[dict[str, Any]]:
    first = {"id": 5, "file_name": "a.jpg", "width": 100, "height": 80}
    return [first, first | {"id": 6, "file_name": "b.jpg"} | second]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (
            {"images": two_images(id=5)},
            r"image 2: expected each id once, found 5 again, for a.jpg",
        ),
        ({"images": two_images(file_name="a.jpg")}, r"image 2: expected each file_name once"),
        ({"images": two_images(id=None)}, r"image 2: expected a number or a text as id"),
        ({"images": two_images(id=[1])}, r"image 2: expected a number or a text as id"),
        ({"images": two_images(id=True)}, r"image 2: expected a number or a text as id"),
        ({"images": two_images(width=0)}, r"image 2: expected width and height in px"),
        ({"images": two_images(width=10**400)}, r"image 2: expected width and height in px"),
        ({"images": two_images(file_name="C:\\a.jpg")}, r"inside the data set as file_name"),
        ({"images": two_images(file_name="..\\a.jpg")}, r"inside the data set as file_name"),
        ({"images": two_images(file_name="a\0.jpg")}, r"which no file can have"),
        ({"annotations": [box(1, 1, 2, 3, 4, category_id=[1])]}, r"as category_id, found \[1\]"),
        ({"annotations": [box(1, 1, 2, 3, 4, image_id={})]}, r"as image_id, found {}"),
        ({"annotations": [box(1, 10**400, 2, 3, 4)]}, r"expected a box of four finite numbers"),
        ({"annotations": [box(1, 1, 2, 3, 4, iscrowd="0")]}, r"expected 0 or 1 as iscrowd"),
        ({"categories": [*CATEGORIES, {"id": 1, "name": "car"}]}, r"category 4: expected each id"),
        ({"categories": [{"id": [], "name": "person"}]}, r"category 1: expected a number or a te"),
    ],
)
def test_coco_records_that_nobody_can_sort_are_one_line(
    tmp_path: Path, more: dict[str, Any], complaint: str
) -> None:
    picture(tmp_path / "val" / "b.jpg")
    root = coco(tmp_path, **more)
    with pytest.raises(RoiCodecError, match=complaint) as caught:
        read_annotations(root, "val")
    assert len(str(caught.value)) < 400


def test_coco_as_other_tools_write_it(tmp_path: Path) -> None:
    """Joined with itself, a mark before the text, ids as pandas writes them, Windows' slashes."""
    first, second = two_images(file_name="cam2\\a.jpg", width=100.0)
    boxes = [box(1, 1, 2, 30, 40, id=1), box(1.0, 5, 6, 7, 8, id=2, image_id=6.0)]
    root = coco(tmp_path, *boxes, boxes[0], images=[first, second, first])
    picture(root / "val" / "cam2" / "a.jpg")
    file = root / "annotations" / "instances_val.json"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    annotated = read_annotations(root, "val")
    assert [(item.image_id, len(item.persons)) for item in annotated] == [("a", 1), ("cam2/a", 1)]
    assert annotated[1].image_path == root / "val" / "cam2" / "a.jpg"
    assert shortfall(annotated) == [
        "1 repeated records of images taken once",
        "1 repeated records of boxes taken once",
    ]
    (root / "val.json").write_text(file.read_text())
    assert shortfall(read_annotations(root, "val"))[-1] == (
        f"{root / 'val.json'} also exists and was not read"
    )


def test_a_name_too_long_for_a_file_is_no_file(tmp_path: Path) -> None:
    root = coco(tmp_path, images=two_images(file_name="a" * 300 + ".jpg"))
    annotated = read_annotations(root, "val")
    assert [reason for _, reason in annotated.unreadable] == ["no such file"]


def test_yolo_photographs_in_subfolders_and_of_any_suffix_are_read(tmp_path: Path) -> None:
    root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2", names="[person]")
    (root / "labels" / "val" / "day2").mkdir()
    for name in ("b.tif", "day2/a.webp"):
        picture(root / "images" / "val" / name)
        label = (root / "labels" / "val" / name).with_suffix(".txt")
        label.write_text("0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n")
    (root / "labels" / "val" / "day2" / "gone.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (root / "images" / "val" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    annotated = read_annotations(root, "val")
    assert [item.image_id for item in annotated] == ["a", "b", "day2/a"]
    assert [len(item.persons) for item in annotated] == [1, 1, 1]
    assert shortfall(annotated) == [
        "1 images without a label file taken as empty",
        "2 repeated lines taken once",
        "2 of 5 photographs left out, the first day2/gone: a label file without a photograph",
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("0 50 40 20 20", "expected shares of the picture from 0 to 1"),  # pixels
        ("0 0.5 0.5 -0.2 0.2", "expected shares of the picture from 0 to 1"),
        ("0 0.5 0.5 0.2 0.2 0.9", "expected a box or a polygon"),  # with the detector's score
        ("0 0.5 0.5 0.2 0.2 0.9 17", "expected shares of the picture from 0 to 1"),  # and a track
        ("0.5 0.5 0.5 0.2 0.2", "expected a class and numbers"),
        ("nan 0.5 0.5 0.2 0.2", "expected a class and numbers"),
        ("0 0.5 0.5 nan 0.2", "expected shares of the picture from 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "expected a class that has a name, found -1"),
        ("1e400 0.5 0.5 0.2 0.2", "expected a class and numbers"),
    ],
)
def test_yolo_rows_that_are_not_what_they_look_like_are_refused(
    tmp_path: Path, line: str, complaint: str
) -> None:
    with pytest.raises(RoiCodecError, match=f"the first is a.txt line 2: {complaint}"):
        read_annotations(yolo(tmp_path, "0 0.5 0.5 0.2 0.2", line, names="[person]"), "val")


def test_yolo_rows_as_tools_write_them(tmp_path: Path) -> None:
    """A class as NumPy writes it, a box that rounding leads over the border, a mark in front."""
    root = yolo(tmp_path, names="[person]")
    label = root / "labels" / "val" / "a.txt"
    label.write_text("0.000 0.9 0.5 0.2004 1\r\n", encoding="utf-8-sig")
    (item,) = read_annotations(root, "val")
    np.testing.assert_allclose(item.persons, [[79.98, 0, 100, 80]], atol=1e-4)

    pose = "0 0.5 0.5 0.2 0.2 " + "0.45 0.45 2 " * 2
    label.write_text(pose + "\n0 0.5 0.5 0.4 0.4\n")
    with pytest.raises(RoiCodecError, match="line 1: expected shares of the picture"):
        read_annotations(root, "val")
    (root / "data.yaml").write_text("names: [person]\nkpt_shape: [2, 3]\n")
    (item,) = read_annotations(root, "val")
    np.testing.assert_allclose(item.persons, [[40, 32, 60, 48], [30, 24, 70, 56]], atol=1e-4)


def test_two_photographs_for_one_label_file_are_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2", names="[person]")
    (root / "images" / "val" / "a.dng").write_bytes(b"raw")  # beside the camera's JPEG
    assert len(read_annotations(root, "val")) == 1
    picture(root / "images" / "val" / "a.png")
    with pytest.raises(
        RoiCodecError, match=r"expected one photograph for it, found a.jpg and a.p"
    ):
        read_annotations(root, "val")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("names: {null: person}", "expected numbered names"),
        ("names: {0: person, '0': head}", "expected each class once"),
        ("names: [person, no]", "expected a text as name of class 1"),  # YAML's no is False
        ("names: [person, [head]]", "expected a text as name of class 1"),
        ("names: [person]\nnc: 2", "expected as many names as nc says in .*, found 1 and 2"),
        ("names: [person]\nkpt_shape: 17", "expected kpt_shape"),
        ("names: [person", "expected YAML in"),
        ("[" * 600, "expected YAML in .*, found it nested too deeply"),
        ("names:\n  ? 0xf" + "f" * 5000 + "\n  : person\n  x: y", "expected numbered names"),
        ("? {}\n: 1", "expected YAML in"),
        ("names: 2001-99-99", "expected YAML in"),
        ("names: [person]\nval: /usr", "expected the photographs of val inside"),
    ],
)
def test_what_a_data_yaml_cannot_mean_is_one_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    root = yolo(tmp_path)
    (root / "data.yaml").write_text(text)
    with pytest.raises(RoiCodecError, match=complaint) as caught:
        read_annotations(root, "val")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("says", "photograph", "label"),
    [
        ("val: ../valid/images", "valid/images/a.png", "valid/labels/a.txt"),  # Roboflow
        ("path: set\nval: images/test", "set/images/test/a.png", "set/labels/test/a.txt"),
        ("path: /content/set\nval: images/v", "images/v/a.png", "labels/v/a.txt"),
        ("val: [one/images, two/images]", "two/images/a.png", "two/labels/a.txt"),
        ("val: 'images\\v'", "images/v/day/a.png", "labels/v/day/a.txt"),
        ("validation: pictures", "pictures/a.png", "pictures/a.txt"),  # labels lie beside
        ("val: val.txt", "images/all/a.png", "labels/all/a.txt"),
        ("other: 3", "val/images/a.png", "val/labels/a.txt"),
    ],
)
def test_a_data_yaml_says_where_the_photographs_are(
    tmp_path: Path, says: str, photograph: str, label: str
) -> None:
    picture(tmp_path / photograph)
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "val.txt").write_text("./images/all/a.png\n")
    (tmp_path / "data.yaml").write_text(f"{says}\nnames: {{'0': Person}}\n", encoding="utf-16")
    (item,) = read_annotations(tmp_path, "val")
    assert item.image_path.samefile(tmp_path / photograph)
    np.testing.assert_allclose(item.persons, [[40, 32, 60, 48]], atol=1e-4)


def test_names_of_classes_that_differ_are_refused(tmp_path: Path) -> None:
    root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2", names="[person]")
    (root / "data.yaml").rename(root / "site.yaml")
    (root / "old.yaml").write_text("names: [head, person]\n")
    with pytest.raises(RoiCodecError, match=r"found old.yaml and site.yaml, which differ"):
        read_annotations(root, "val")


def test_an_absurd_picture_is_left_out_and_named(tmp_path: Path) -> None:
    root = yolo(tmp_path, "0 0.5 0.5 0.2 0.2", names="[person]")
    header = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    parts = (header, b"IDAT" + zlib.compress(b"\0"), b"IEND")
    chunks = [
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts
    ]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    (root / "images" / "val" / "huge.png").write_bytes(content)
    annotated = read_annotations(root, "val")
    assert [item.image_id for item in annotated] == ["a"]
    assert annotated.unreadable == (("huge", "20000×20000 px, more than 150 megapixels"),)
