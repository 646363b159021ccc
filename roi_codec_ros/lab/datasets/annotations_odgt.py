# SPDX-License-Identifier: Apache-2.0
"""Boxes of any class from `.odgt` files: CrowdHuman's own, and those of `roi-codec annotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.photographs import photographs_in
from roi_codec_ros.lab.datasets.annotations import PERSON, AnnotationSet
from roi_codec_ros.lab.datasets.records import (
    Boxes,
    BrokenRecordError,
    Gathering,
    corners,
    declared_size,
    flag,
    parse_json,
    read_text,
    relative_name,
    shown,
)

_NO_PERSON_TAG = "mask"  # CrowdHuman's own: crowds, reflections
_BOX_MAKERS = ("human", "teacher", "mixed", "none")
_PREFIX, _SUFFIX = "annotation_", ".odgt"


def odgt_file(data_dir: Path, split: str) -> Path:
    """Path of a split's annotations."""
    return data_dir / f"{_PREFIX}{split}{_SUFFIX}"


def odgt_splits(data_dir: Path) -> list[str]:
    """The existing splits."""
    return sorted(
        entry.name[len(_PREFIX) : -len(_SUFFIX)] for entry in data_dir.glob(f"{_PREFIX}*{_SUFFIX}")
    )


def read_odgt(data_dir: str | Path, split: str) -> AnnotationSet:
    """Read `annotation_<split>.odgt` under `data_dir`.

    Images are looked for in `images/<split>/`, then in CrowdHuman's own `Images/`; an ID is a
    file's name without its suffix, with folders where it lies in one. A missing image is not an
    error here, but when it is opened. Boxes are of the picture as it is shown.

    Raises RoiCodecError where there is no such file or image folder, and one for all broken lines
    together, which counts them and names the first.
    """
    root = Path(data_dir)
    path = odgt_file(root, split)
    if not path.is_file():
        raise RoiCodecError(_missing_split(root, split))
    lines = read_text(path).split("\n")
    images = _ImageIndex(root, split)
    found = Gathering(path, "lines")
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _record(line)
            image_id = record["image_id"]
            if image_id in numbers:
                raise BrokenRecordError(
                    f"expected each ID once, found {shown(image_id)} again, as in line "
                    f"{numbers[image_id]}"
                )
            numbers[image_id] = number
            found.add(images.find(image_id), **record)
        except BrokenRecordError as error:
            found.broken(f"line {number}", error)
    annotations = found.result()
    if not annotations:
        unreadable = annotations.unreadable
        raise RoiCodecError(
            f"expected annotated images in {path}, found "
            + (f"{len(unreadable)} unreadable ones: {unreadable[0][1]}" if unreadable else "none")
        )
    return annotations


def _missing_split(root: Path, split: str) -> str:
    if not root.is_dir():
        return f"expected a data folder, found none at {root}"
    splits = odgt_splits(root)
    found = ", ".join(splits) if splits else f"no {_PREFIX}<split>{_SUFFIX} at all"
    return f"expected {_PREFIX}{split}{_SUFFIX} in {root}, found {found}"


class _ImageIndex:
    """Finds an image by its ID, whatever its suffix; lists its folder once."""

    def __init__(self, root: Path, split: str) -> None:
        candidates = (
            root / "images" / split,
            root / "Images" / split,
            root / f"CrowdHuman_{split}" / "Images",
            root / "Images",
            root / "images",
        )
        folder = next((candidate for candidate in candidates if candidate.is_dir()), None)
        if folder is None:
            raise RoiCodecError(f"expected images in {candidates[0]}, found no such folder")
        self._folder = folder
        self._by_id: dict[str, list[Path]] = {}
        for path in photographs_in(folder, recursive=True):
            name = path.relative_to(folder)
            for image_id in (name.with_suffix("").as_posix(), name.as_posix()):
                self._by_id.setdefault(image_id, []).append(path)

    def find(self, image_id: str) -> Path:
        """Raises BrokenRecordError where two files have that name."""
        paths = self._by_id.get(image_id, [self._folder / f"{image_id}.jpg"])
        if len(paths) > 1:
            raise BrokenRecordError(
                f"expected one photograph of ID {shown(image_id)}, found "
                f"{' and '.join(path.name for path in paths)}"
            )
        return paths[0]


def _record(line: str) -> dict[str, Any]:
    """What `Gathering.add` takes, from one line of the file. Raises BrokenRecordError."""
    fields = parse_json(line)
    if not isinstance(fields, dict):
        raise BrokenRecordError(f"expected a JSON object, found {type(fields).__name__}")
    places = fields.get("gtboxes")
    if not isinstance(places, list):
        raise BrokenRecordError(f"expected a list of gtboxes, found {type(places).__name__}")
    boxes = Boxes()
    for box in places:
        _sort_box(box, boxes)
    return {
        "image_id": relative_name(fields.get("ID"), "ID"),
        "size": declared_size(fields.get("width"), fields.get("height")),
        "boxes": boxes,
        "person_boxes": _maker(fields, "person_boxes"),
        "head_boxes": _maker(fields, "head_boxes"),
        "source": str(fields.get("source", "")),
    }


def _maker(fields: dict[str, Any], name: str) -> str:
    maker = fields.get(name, _BOX_MAKERS[0])
    if maker not in _BOX_MAKERS:
        raise BrokenRecordError(
            f"expected one of {', '.join(_BOX_MAKERS)} as {name}, found {shown(maker)}"
        )
    return str(maker)


def _sort_box(box: Any, boxes: Boxes) -> None:
    """Persons and masks by CrowdHuman's flags; a box with another tag is one of that class."""
    if not isinstance(box, dict):
        raise BrokenRecordError(f"expected an object for each box, found {type(box).__name__}")
    extra = _flags(box, "extra")
    head_attributes = _flags(box, "head_attr")
    if "vbox" not in box and "fbox" not in box:
        raise BrokenRecordError(f"expected a vbox or fbox, found {shown(sorted(box))}")
    body = corners(box["vbox"] if "vbox" in box else box["fbox"])
    tag = box.get("tag")
    if tag is not None and not isinstance(tag, str):
        raise BrokenRecordError(f"expected the name of a class as tag, found {shown(tag)}")
    if tag in (None, _NO_PERSON_TAG) or flag(extra, "ignore"):
        boxes.ignored.append(body)
        return
    name = str(tag).strip().lower()
    if name != PERSON:
        boxes.add(name, body)
        return
    (boxes.ignored if flag(extra, "estimated") else boxes.persons).append(body)
    if "hbox" in box and not flag(head_attributes, "ignore"):
        boxes.heads.append(corners(box["hbox"]))


def _flags(box: dict[str, Any], name: str) -> dict[str, Any]:
    flags = box.get(name, {})
    if not isinstance(flags, dict):
        raise BrokenRecordError(f"expected an object as {name}, found {type(flags).__name__}")
    return flags
