# SPDX-License-Identifier: Apache-2.0
"""Reading `.odgt` files: ours, CrowdHuman's own, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations_odgt import read_odgt


def person(**changes: Any) -> dict[str, Any]:
    box = {
        "tag": "person",
        "fbox": [10, 10, 30, 60],
        "vbox": [10, 10, 20, 40],
        "hbox": [12, 10, 8, 10],
        "head_attr": {"ignore": 0, "occ": 0, "unsure": 0},
        "extra": {"box_id": 0, "occ": 0},
    }
    return {key: value for key, value in (box | changes).items() if value is not None}


def record(*boxes: dict[str, Any], image_id: str = "a", **fields: Any) -> str:
    return json.dumps(
        {"ID": image_id, "gtboxes": list(boxes), "width": 100, "height": 80} | fields
    )


def write(folder: Path, *lines: str, images: str = "images/val") -> Path:
    (folder / images).mkdir(parents=True)
    (folder / "annotation_val.odgt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_visible_bodies_and_heads_become_corners(tmp_path: Path) -> None:
    (annotation,) = read_odgt(write(tmp_path, record(person())), "val")
    assert annotation.persons.tolist() == [[10, 10, 30, 50]]
    assert annotation.heads.tolist() == [[12, 10, 20, 20]]
    assert annotation.ignored.shape == (0, 4)
    assert annotation.persons.dtype == np.float32
    assert (annotation.image_id, annotation.width, annotation.height) == ("a", 100, 80)
    assert annotation.image_path == tmp_path / "images" / "val" / "a.jpg"


@pytest.mark.parametrize(
    ("box", "persons", "heads", "ignored"),
    [
        (person(tag="mask"), 0, 0, 1),
        (person(extra={"ignore": 1}), 0, 0, 1),
        (person(extra={"estimated": 1, "ignore": 0}), 0, 1, 1),
        (person(head_attr={"ignore": 1}), 1, 0, 0),
        (person(hbox=None, head_attr={"ignore": 1}), 1, 0, 0),
        (person(vbox=None), 1, 1, 0),
    ],
)
def test_what_is_no_truth_to_score_against_is_set_aside(
    tmp_path: Path, box: dict[str, Any], persons: int, heads: int, ignored: int
) -> None:
    (annotation,) = read_odgt(write(tmp_path, record(box)), "val")
    found = (len(annotation.persons), len(annotation.heads), len(annotation.ignored))
    assert found == (persons, heads, ignored)


def test_boxes_are_clipped_and_empty_ones_counted(tmp_path: Path) -> None:
    boxes = [
        person(vbox=[-10, 70, 30, 40], hbox=None),
        person(vbox=[200, 10, 30, 40], hbox=[10, 10, 0, 5]),
    ]
    annotations = read_odgt(write(tmp_path, record(*boxes)), "val")
    assert annotations[0].persons.tolist() == [[0, 70, 20, 80]]
    assert annotations[0].heads.shape == (0, 4)
    assert annotations.dropped_boxes == 2


def test_crowdhuman_as_it_is_unpacked(tmp_path: Path) -> None:
    line = json.dumps({"ID": "273271,c9db", "gtboxes": [person()]})
    write(tmp_path, line, images="Images")
    Image.new("RGB", (64, 48)).save(tmp_path / "Images" / "273271,c9db.jpg")
    (annotation,) = read_odgt(tmp_path, "val")
    assert (annotation.width, annotation.height) == (64, 48)
    assert annotation.persons.tolist() == [[10, 10, 30, 48]]
    assert (annotation.person_boxes, annotation.head_boxes) == ("human", "human")


def test_an_image_without_size_is_left_out_and_named(tmp_path: Path) -> None:
    line = json.dumps({"ID": "gone", "gtboxes": [person()]})
    annotations = read_odgt(write(tmp_path, line, record(person())), "val")
    assert [annotation.image_id for annotation in annotations] == ["a"]
    assert annotations.unreadable[0][0] == "gone"


def test_any_image_suffix_is_found(tmp_path: Path) -> None:
    write(tmp_path, record(person()))
    (tmp_path / "images" / "val" / "a.PNG").touch()
    assert read_odgt(tmp_path, "val")[0].image_path.name == "a.PNG"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "expected JSON, found Expecting property name"),
        ("[]", "expected a JSON object, found list"),
        (record(image_id="../a"), "expected a file name inside the data set as ID"),
        (json.dumps({"ID": "a"}), "expected a list of gtboxes, found NoneType"),
        (record(person(), width=0), "expected width and height in px"),
        (record(person(vbox=[1, 2, 3])), "expected a box of four finite numbers"),
        (record(person(vbox=[1, 2, 3, float("nan")])), "expected a box of four finite numbers"),
        (record({"tag": "person"}), "expected a vbox or fbox"),
        (record(person(extra=3)), "expected an object as extra, found int"),
        (record(person(extra={"ignore": "0"})), "expected 0 or 1 as ignore, found '0'"),
        (record(person(tag=[])), "expected the name of a class as tag"),
        (record(person(vbox=[10**400, 2, 3, 4])), "expected a box of four finite numbers"),
        (record(person(), width=1e9), "expected width and height in px"),
        (record(image_id="a\0"), "which no file can have"),
        (record(image_id="\ud800"), "which no file can have"),
        (record(person(), image_id="b", person_boxes="Human"), "expected one of human, teacher"),
        (record(person()), "expected each ID once, found 'a' again, as in line 1"),
        ("[" * 100000, "found brackets nested too deeply"),
        ('{"ID": "b", "width": ' + "9" * 5000 + "}", "expected JSON"),
    ],
)
def test_broken_lines_are_reported_together(tmp_path: Path, line: str, complaint: str) -> None:
    write(tmp_path, record(person()), line, "{")
    with pytest.raises(RoiCodecError) as caught:
        read_odgt(tmp_path, "val")
    message = str(caught.value)
    assert "found 2 broken; the first is line 2" in message
    assert complaint in message
    assert "\n" not in message


def test_a_missing_split_names_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(RoiCodecError, match=r"expected annotation_test\.odgt in .*, found val$"):
        read_odgt(write(tmp_path, record(person())), "test")


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(RoiCodecError, match="expected a data folder"):
        read_odgt(tmp_path / "nowhere", "val")
    (tmp_path / "annotation_val.odgt").write_text(record(person()))
    with pytest.raises(RoiCodecError, match="expected images in"):
        read_odgt(tmp_path, "val")


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RoiCodecError, match="expected annotated images"):
        read_odgt(write(tmp_path), "val")


def test_a_mark_before_the_text_is_no_part_of_it(tmp_path: Path) -> None:
    write(tmp_path, record(person()))
    file = tmp_path / "annotation_val.odgt"
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text(record(person()), encoding=encoding)
        assert len(read_odgt(tmp_path, "val")) == 1


def test_an_id_finds_one_photograph_in_its_folder(tmp_path: Path) -> None:
    lines = [record(person(), image_id=name) for name in ("cam1/0001", "cam2/0001", "b.png")]
    write(tmp_path, *lines)
    for name in ("cam1/0001.jpg", "cam2/0001.tif", "b.png", "b.jpg"):
        path = tmp_path / "images" / "val" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [item.image_path for item in read_odgt(tmp_path, "val")]
    folder = tmp_path / "images" / "val"
    assert [str(path.relative_to(folder)) for path in found] == [
        "cam1/0001.jpg",
        "cam2/0001.tif",
        "b.png",
    ]
    (tmp_path / "annotation_val.odgt").write_text(record(person(), image_id="b"))
    with pytest.raises(RoiCodecError, match=r"expected one photograph of ID 'b', found b.jpg and"):
        read_odgt(tmp_path, "val")
