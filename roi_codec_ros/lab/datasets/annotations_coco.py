# SPDX-License-Identifier: Apache-2.0
"""Boxes of any class from COCO's JSON format; categories are taken by their names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import (
    HEAD,
    PERSON,
    Annotation,
    AnnotationSet,
    BrokenRecordError,
    Corners,
    clipped_annotation,
    corners,
    size_from_header,
)


def find_coco(data_dir: Path, split: str) -> tuple[Path, list[Path]] | None:
    """The JSON file of a split and the folders its images may be in; None for another layout.

    COCO's own: `annotations/instances_<split>.json` with `<split>/`; and what is common besides:
    `annotations/<split>.json`, `<split>.json`, `<split>/_annotations.coco.json`.
    """
    candidates = (
        data_dir / "annotations" / f"instances_{split}.json",
        data_dir / "annotations" / f"{split}.json",
        data_dir / f"instances_{split}.json",
        data_dir / f"{split}.json",
        data_dir / split / "_annotations.coco.json",
    )
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        return None
    folders = [data_dir / "images" / split, data_dir / split, data_dir / "images", data_dir]
    return file, [folder for folder in folders if folder.is_dir()]


def read_coco(file: Path, folders: list[Path], needs_persons: bool = True) -> AnnotationSet:
    """Read one COCO file.

    Crowds of persons or heads (`iscrowd`) are ignored regions. Without a category "head" nothing
    is known of heads; any other category's boxes are `regions`, by its name. Raises RoiCodecError
    for what is no such file, one without a category "person" unless `needs_persons` is False, and
    one for all broken records together.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RoiCodecError(f"expected COCO's JSON in {file}, found: {error}") from error
    images, boxes, categories = (
        _objects(data, key, file) for key in ("images", "annotations", "categories")
    )
    names = {item.get("id"): str(item.get("name", "")).strip().lower() for item in categories}
    has_persons = PERSON in names.values()
    if needs_persons and not has_persons:
        found = ", ".join(names.values()) or "none"
        raise RoiCodecError(f"expected a category {PERSON} in {file}, found {found}")
    has_heads = HEAD in names.values()
    per_image: dict[Any, _Boxes] = {}
    broken: list[str] = []
    for number, image in enumerate(images, start=1):
        try:
            per_image[_identity(image)] = _Boxes(image)
        except BrokenRecordError as error:
            broken.append(f"image {number}: {error}")
    for number, box in enumerate(boxes, start=1):
        try:
            _sort_box(box, names, per_image)
        except BrokenRecordError as error:
            broken.append(f"annotation {number}: {error}")
    if broken:
        raise RoiCodecError(
            f"expected nothing but good records in {file}, found {len(broken)} broken; the first "
            f"is {broken[0]}"
        )
    annotations: list[Annotation] = []
    unreadable: list[tuple[str, str]] = []
    dropped, first_dropped = 0, ""
    for found_boxes in per_image.values():
        path = found_boxes.path(folders)
        try:
            width, height = found_boxes.size or size_from_header(path)
        except OSError as error:
            unreadable.append((path.stem, str(error)))
            continue
        annotation, empty = clipped_annotation(
            path,
            (width, height),
            found_boxes.persons,
            found_boxes.heads,
            found_boxes.ignored,
            found_boxes.regions,
            person_boxes="human" if has_persons else "none",
            head_boxes="human" if has_heads else "none",
        )
        annotations.append(annotation)
        dropped += empty
        first_dropped = first_dropped or (annotation.image_id if empty else "")
    return AnnotationSet(
        tuple(annotations), dropped, tuple(unreadable), first_dropped=first_dropped
    )


@dataclass
class _Boxes:
    """The boxes of one image as they come in."""

    image: Mapping[str, Any]
    persons: list[Corners] = field(default_factory=list)
    heads: list[Corners] = field(default_factory=list)
    ignored: list[Corners] = field(default_factory=list)
    regions: dict[str, list[Corners]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.image.get("file_name")
        if not isinstance(name, str) or not name:
            raise BrokenRecordError(f"expected a file_name, found {name!r}")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BrokenRecordError(f"expected a file_name inside the data set, found {name!r}")
        sizes = [self.image.get("width"), self.image.get("height")]
        if any(size is not None for size in sizes) and not all(
            isinstance(size, int) and size > 0 for size in sizes
        ):
            raise BrokenRecordError(f"expected width and height in px, found {sizes}")

    @property
    def size(self) -> tuple[int, int] | None:
        width, height = self.image.get("width"), self.image.get("height")
        return None if width is None or height is None else (width, height)

    def path(self, folders: list[Path]) -> Path:
        paths = [folder / self.image["file_name"] for folder in folders]
        return next((path for path in paths if path.is_file()), paths[0])


def _objects(data: Any, key: str, file: Path) -> list[dict[str, Any]]:
    found = data.get(key) if isinstance(data, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise RoiCodecError(f"expected a list of objects as {key} in {file}, found none")
    return found


def _identity(image: Mapping[str, Any]) -> int | str:
    identity = image.get("id")
    if not isinstance(identity, (int, str)):
        raise BrokenRecordError(f"expected an id, found {identity!r}")
    return identity


def _sort_box(
    box: Mapping[str, Any], names: Mapping[Any, str], per_image: Mapping[Any, _Boxes]
) -> None:
    name = names.get(box.get("category_id"))
    if name is None:
        raise BrokenRecordError(f"expected a known category_id, found {box.get('category_id')!r}")
    image = per_image.get(box.get("image_id"))
    if image is None:
        raise BrokenRecordError(f"expected a known image_id, found {box.get('image_id')!r}")
    place = corners(box.get("bbox"))
    if name not in (PERSON, HEAD):
        image.regions.setdefault(name, []).append(place)
    elif box.get("iscrowd"):
        image.ignored.append(place)
    elif name == PERSON:
        image.persons.append(place)
    else:
        image.heads.append(place)
