# SPDX-License-Identifier: Apache-2.0
"""Boxes of any class from YOLO's folders: photographs, and a text file of boxes for each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.photographs import (
    UNREAD_SUFFIXES,
    PhotographError,
    files_in,
    photographs_in,
)
from roi_codec_ros.lab.datasets.annotations import HEAD, PERSON, AnnotationSet, Corners
from roi_codec_ros.lab.datasets.data_yaml import find_data_yaml
from roi_codec_ros.lab.datasets.records import (
    Boxes,
    BrokenRecordError,
    Gathering,
    image_ids,
    is_file,
    read_text,
    shown,
    size_of,
)

IMAGES, LABELS = "images", "labels"
CLASS_FILE = "classes.txt"
NO_PHOTOGRAPH = "a label file without a photograph"
_OUTSIDE = 0.01  # of the picture's side: how far beyond its border rounding may lead


@dataclass(frozen=True)
class YoloSplit:
    """Where a split is: folders of photographs, or lists of files. labels: the folder of each."""

    data_dir: Path
    places: tuple[Path, ...]

    @property
    def text(self) -> str:
        """For errors."""
        return ", ".join(map(str, self.places))


@dataclass(frozen=True)
class _Picture:
    path: Path
    label: Path


def find_yolo(data_dir: Path, split: str) -> YoloSplit | None:
    """Where a split's photographs are; None for another layout.

    As `data.yaml` says; else `images/<split>/` with `labels/<split>/`, or `<split>/images/` with
    `<split>/labels/`.
    """
    data = find_data_yaml(data_dir)
    named = data.folders(split) if data is not None else []
    if named:
        return YoloSplit(data_dir, tuple(named))
    for images in (data_dir / IMAGES / split, data_dir / split / IMAGES):
        if images.is_dir() and _label_folder(images, data_dir).is_dir():
            return YoloSplit(data_dir, (images,))
    return None


def read_yolo(split: YoloSplit, needs_persons: bool = True) -> AnnotationSet:
    """Read every photograph of a split with its label file, those in subfolders, too.

    Classes are named by `data.yaml` (or another .yaml with `names`) or by `classes.txt`. An image
    without a label file has no objects, as in training with ultralytics; how many have none is in
    the set's notes; labels without a photograph are among the `unreadable`. A polygon counts by
    its bounding box. Boxes are of the picture as it is shown. Without a class "head" nothing is
    known of heads; any other class's boxes are `regions`, by its name.

    Raises RoiCodecError where classes have no names, none of them is "person" (unless
    `needs_persons` is False), no image has a label file, and one for all broken lines together;
    two photographs with one label file are broken.
    """
    names, keypoints = _class_names(split)
    if needs_persons and PERSON not in names.values():
        found_names = ", ".join(names.values()) or "none"
        raise RoiCodecError(f"expected a class {PERSON} in {split.data_dir}, found {found_names}")
    found = Gathering(split.data_dir, "lines")
    pictures = _pictures(split, found)
    unlabelled = sum(not is_file(picture.label) for picture in pictures)
    if pictures and unlabelled == len(pictures):
        raise RoiCodecError(
            f"expected label files in {pictures[0].label.parent}, found none for {unlabelled} "
            f"images"
        )
    rows, repeated = _Rows(names, keypoints), 0
    short = image_ids(_name(picture.path, split) for picture in pictures)
    for image_id, picture in zip(short, pictures, strict=True):
        try:
            size = size_of(picture.path)
        except PhotographError as error:
            found.leave_out(image_id, error.reason)
            continue
        boxes = Boxes()
        seen: set[str] = set()
        for number, line in enumerate(_lines(picture.label), start=1):
            repeated += line in seen
            if line in seen:
                continue
            seen.add(line)
            try:
                rows.sort(line, size, boxes)
            except BrokenRecordError as error:
                found.broken(f"{picture.label.name} line {number}", error)
        found.add(
            picture.path,
            size,
            boxes,
            image_id=image_id,
            person_boxes="human" if PERSON in names.values() else "none",
            head_boxes="human" if HEAD in names.values() else "none",
        )
    if unlabelled:
        found.note(f"{unlabelled} images without a label file taken as empty")
    if repeated:
        found.note(f"{repeated} repeated lines taken once")
    return found.result()


def _label_folder(images: Path, data_dir: Path) -> Path:
    """`labels` where the path inside the data set has `images`; else the same folder."""
    parts = list(images.relative_to(data_dir).parts)
    if IMAGES not in parts:
        return images
    last = len(parts) - 1 - parts[::-1].index(IMAGES)
    return data_dir.joinpath(*parts[:last], LABELS, *parts[last + 1 :])


def _pictures(split: YoloSplit, found: Gathering) -> list[_Picture]:
    """The photographs of a split, and where their labels are."""
    pictures: list[_Picture] = []
    for place in split.places:
        if place.is_dir():
            labels = _label_folder(place, split.data_dir)
            here = [
                _Picture(path, labels / path.relative_to(place).with_suffix(".txt"))
                for path in photographs_in(place, recursive=True)
            ]
            _leave_out_orphans(labels, here, split, found)
        else:
            here = [_listed(name, place, split.data_dir) for name in _lines(place)]
        pictures += here
    by_path = {picture.path: picture for picture in pictures}
    _check_owners(by_path.values(), found)
    return list(by_path.values())


def _listed(name: str, listing: Path, data_dir: Path) -> _Picture:
    """A photograph named in a list: from the list's folder, else from the data set's."""
    name = name.strip().replace("\\", "/")
    path = next((p for p in (listing.parent / name, data_dir / name) if is_file(p)), None)
    path = path or listing.parent / name
    try:
        labels = _label_folder(path.parent, data_dir)
    except ValueError:  # outside the data set
        parts = list(path.parent.parts)
        last = len(parts) - 1 - parts[::-1].index(IMAGES) if IMAGES in parts else None
        if last is not None:
            parts[last] = LABELS
        labels = Path(*parts)
    return _Picture(path, labels / f"{path.stem}.txt")


def _leave_out_orphans(
    labels: Path, pictures: list[_Picture], split: YoloSplit, found: Gathering
) -> None:
    """Label files to which no photograph belongs are named among what is left out."""
    if not labels.is_dir():
        return
    wanted = {picture.label for picture in pictures}
    orphans = [
        path
        for path in files_in(labels, recursive=True)
        if path.suffix == ".txt" and path not in wanted and path.name != CLASS_FILE
    ]
    for path in sorted(orphans):
        found.leave_out(
            path.relative_to(labels).with_suffix("").as_posix(),
            NO_PHOTOGRAPH,
        )


def _check_owners(pictures: Iterable[_Picture], found: Gathering) -> None:
    owners: dict[Path, Path] = {}
    for picture in pictures:
        if picture.path.suffix.lower() in UNREAD_SUFFIXES or not is_file(picture.label):
            continue
        owner = owners.setdefault(picture.label, picture.path)
        if owner != picture.path:
            found.broken(
                picture.label.name,
                BrokenRecordError(
                    f"expected one photograph for it, found {owner.name} and {picture.path.name}"
                ),
            )


def _name(path: Path, split: YoloSplit) -> str:
    """A photograph's path inside its folder of the split."""
    for place in split.places:
        if place.is_dir() and path.is_relative_to(place):
            return path.relative_to(place).as_posix()
    return path.name


def _lines(file: Path) -> list[str]:
    if not is_file(file):
        return []
    return [line for line in read_text(file).splitlines() if line.strip()]


class _Rows:
    """Reads the rows of label files."""

    def __init__(self, names: dict[int, str], keypoints: int) -> None:
        self._names, self._keypoints = names, keypoints

    def sort(self, line: str, size: tuple[int, int], boxes: Boxes) -> None:
        """Put a row's box where it belongs. Raises BrokenRecordError."""
        index, place = self._parse(line, *size)
        name = self._names.get(index)
        if name is None:
            raise BrokenRecordError(f"expected a class that has a name, found {index}")
        boxes.add(name, place)

    def _parse(self, line: str, width: int, height: int) -> tuple[int, Corners]:
        """`class x y width height`, with key points if the set has any, or `class x y x y …`."""
        try:
            first, *rest = (float(value) for value in line.split())
        except ValueError:
            raise BrokenRecordError(f"expected a class and numbers, found {shown(line)}") from None
        if not math.isfinite(first) or first != int(first):
            raise BrokenRecordError(f"expected a class and numbers, found {shown(line)}")
        if len(rest) in (4, 4 + self._keypoints):
            box = rest[:4]
            x, y, w, h = box
            places = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        elif self._keypoints or len(rest) < 6 or len(rest) % 2:
            raise BrokenRecordError(f"expected a box or a polygon, found {shown(line)}")
        else:
            box = rest
            places = (min(rest[::2]), min(rest[1::2]), max(rest[::2]), max(rest[1::2]))
        if not all(-_OUTSIDE <= value <= 1 + _OUTSIDE for value in box):
            raise BrokenRecordError(
                f"expected shares of the picture from 0 to 1, found {shown(line)}"
            )
        x0, y0, x1, y1 = places
        return int(first), (x0 * width, y0 * height, x1 * width, y1 * height)


def _class_names(split: YoloSplit) -> tuple[dict[int, str], int]:
    """The names of the classes, and how many numbers of key points follow a box."""
    data = find_data_yaml(split.data_dir)
    if data is not None:
        return data.names, data.keypoints
    folders = [split.data_dir]
    folders += [_label_folder(p, split.data_dir) for p in split.places if p.is_dir()]
    for path in (folder / CLASS_FILE for folder in folders):
        if path.is_file():
            return dict(enumerate(line.strip().lower() for line in _lines(path))), 0
    raise RoiCodecError(f"expected data.yaml or {CLASS_FILE} with class names in {split.data_dir}")
