# SPDX-License-Identifier: Apache-2.0
"""Boxes of any class from COCO's JSON format; categories are taken by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import HEAD, PERSON, AnnotationSet
from roi_codec_ros.lab.datasets.records import (
    Boxes,
    BrokenRecordError,
    Gathering,
    corners,
    declared_size,
    flag,
    image_ids,
    is_file,
    parse_json,
    read_text,
    relative_name,
    shown,
)

_Id = int | str


def find_coco(data_dir: Path, split: str) -> tuple[Path, list[Path]] | None:
    """The JSON file of a split and the folders its images may be in; None for another layout.

    COCO's own: `annotations/instances_<split>.json` with `<split>/`; and what is common besides:
    `annotations/<split>.json`, `<split>.json`, `<split>/_annotations.coco.json`.
    """
    files = coco_files(data_dir, split)
    if not files:
        return None
    folders = [data_dir / "images" / split, data_dir / split, data_dir / "images", data_dir]
    return files[0], [folder for folder in folders if folder.is_dir()]


def coco_files(data_dir: Path, split: str) -> list[Path]:
    """The JSON files of a split, the one that is read first."""
    candidates = (
        data_dir / "annotations" / f"instances_{split}.json",
        data_dir / "annotations" / f"{split}.json",
        data_dir / f"instances_{split}.json",
        data_dir / f"{split}.json",
        data_dir / split / "_annotations.coco.json",
    )
    return [path for path in candidates if path.is_file()]


def read_coco(file: Path, folders: list[Path], needs_persons: bool = True) -> AnnotationSet:
    """Read one COCO file.

    Crowds of persons or heads (`iscrowd`) are ignored regions. Without a category "head" nothing
    is known of heads; any other category's boxes are `regions`, by its name. Boxes are of the
    picture as it is shown. Raises RoiCodecError for what is no such file, one without a category
    "person" unless `needs_persons` is False, and one for all broken records together: an image id
    or a file that two images share is one.
    """
    try:
        data = parse_json(read_text(file))
    except BrokenRecordError as error:
        raise RoiCodecError(f"expected COCO's JSON in {file}: {error}") from error
    images, places, categories = (
        _objects(data, key, file) for key in ("images", "annotations", "categories")
    )
    found = Gathering(file, "records")
    names = _category_names(categories, found)
    has_persons, has_heads = PERSON in names.values(), HEAD in names.values()
    files = _file_names(images, found)
    boxes: dict[_Id, Boxes] = {identity: Boxes() for identity in files}
    _sort_boxes(places, names, boxes, found)
    found.check()
    if needs_persons and not has_persons:
        known = ", ".join(names.values()) or "none"
        raise RoiCodecError(f"expected a category {PERSON} in {file}, found {known}")
    short = image_ids(name for name, _ in files.values())
    for image_id, (identity, (name, size)) in zip(short, files.items(), strict=True):
        found.add(
            _path(name, folders),
            size,
            boxes[identity],
            image_id=image_id,
            person_boxes="human" if has_persons else "none",
            head_boxes="human" if has_heads else "none",
        )
    return found.result()


def _objects(data: Any, key: str, file: Path) -> list[dict[str, Any]]:
    found = data.get(key) if isinstance(data, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise RoiCodecError(f"expected a list of objects as {key} in {file}, found none")
    return found


def _identity(record: Mapping[str, Any], field: str) -> _Id:
    """An id: a whole number, perhaps written as 3.0, or a text. Raises BrokenRecordError."""
    identity = record.get(field)
    if isinstance(identity, float) and identity.is_integer():
        return int(identity)
    if isinstance(identity, bool) or not isinstance(identity, (int, str)):
        raise BrokenRecordError(f"expected a number or a text as {field}, found {shown(identity)}")
    return identity


def _category_names(categories: list[dict[str, Any]], found: Gathering) -> dict[_Id, str]:
    names: dict[_Id, str] = {}
    for number, category in enumerate(categories, start=1):
        try:
            identity, name = _identity(category, "id"), category.get("name")
            if not isinstance(name, str):
                raise BrokenRecordError(f"expected a name, found {shown(name)}")
            name = name.strip().lower()
            if names.setdefault(identity, name) != name:
                raise BrokenRecordError(
                    f"expected each id once, found {shown(identity)} again, for {names[identity]} "
                    f"and for {name}"
                )
        except BrokenRecordError as error:
            found.broken(f"category {number}", error)
    return names


def _file_names(
    images: list[dict[str, Any]], found: Gathering
) -> dict[_Id, tuple[str, tuple[int, int] | None]]:
    """Each image's file and size by its id; a record that only repeats another is taken once."""
    files: dict[_Id, tuple[str, tuple[int, int] | None]] = {}
    owners: dict[str, _Id] = {}
    repeated = 0
    for number, image in enumerate(images, start=1):
        try:
            identity = _identity(image, "id")
            name = relative_name(image.get("file_name"), "file_name")
            file = name, declared_size(image.get("width"), image.get("height"))
            if files.get(identity) == file:
                repeated += 1
                continue
            if identity in files:
                raise BrokenRecordError(
                    f"expected each id once, found {shown(identity)} again, for "
                    f"{files[identity][0]} and for {name}"
                )
            if name in owners:
                raise BrokenRecordError(
                    f"expected each file_name once, found {shown(name)} again, with the ids "
                    f"{shown(owners[name])} and {shown(identity)}"
                )
        except BrokenRecordError as error:
            found.broken(f"image {number}", error)
        else:
            files[identity], owners[name] = file, identity
    if repeated:
        found.note(f"{repeated} repeated records of images taken once")
    return files


def _path(name: str, folders: list[Path]) -> Path:
    paths = [folder / name for folder in folders]
    return next((path for path in paths if is_file(path)), paths[0])


def _sort_boxes(
    places: list[dict[str, Any]],
    names: Mapping[_Id, str],
    boxes: Mapping[_Id, Boxes],
    found: Gathering,
) -> None:
    """Each box to its image; a record that only repeats another is taken once."""
    seen: set[str] = set()
    repeated = 0
    for number, place in enumerate(places, start=1):
        if "id" in place:
            record = repr([place.get(key) for key in ("id", "image_id", "category_id", "bbox")])
            repeated += record in seen
            if record in seen:
                continue
            seen.add(record)
        try:
            _sort_box(place, names, boxes)
        except BrokenRecordError as error:
            found.broken(f"annotation {number}", error)
    if repeated:
        found.note(f"{repeated} repeated records of boxes taken once")


def _sort_box(
    box: Mapping[str, Any], names: Mapping[_Id, str], per_image: Mapping[_Id, Boxes]
) -> None:
    name = names.get(_identity(box, "category_id"))
    if name is None:
        raise BrokenRecordError(
            f"expected a known category_id, found {shown(box.get('category_id'))}"
        )
    boxes = per_image.get(_identity(box, "image_id"))
    if boxes is None:
        raise BrokenRecordError(f"expected a known image_id, found {shown(box.get('image_id'))}")
    place, crowd = corners(box.get("bbox")), flag(box, "iscrowd")
    if crowd and name in (PERSON, HEAD):
        boxes.ignored.append(place)
    else:
        boxes.add(name, place)
