# SPDX-License-Identifier: Apache-2.0
"""Boxes of any class from YOLO's folders: images, and a text file of boxes for each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import (
    HEAD,
    IMAGE_SUFFIXES,
    PERSON,
    Annotation,
    AnnotationSet,
    BrokenRecordError,
    Corners,
    clipped_annotation,
    size_from_header,
)


def find_yolo(data_dir: Path, split: str) -> tuple[Path, Path] | None:
    """The folders of a split's images and labels; None for another layout.

    Either `images/<split>/` and `labels/<split>/`, or `<split>/images/` and `<split>/labels/`.
    """
    candidates = (
        (data_dir / "images" / split, data_dir / "labels" / split),
        (data_dir / split / "images", data_dir / split / "labels"),
    )
    return next(
        (pair for pair in candidates if pair[0].is_dir() and pair[1].is_dir()),
        None,
    )


def read_yolo(
    data_dir: Path, images: Path, labels: Path, needs_persons: bool = True
) -> AnnotationSet:
    """Read every image of a folder with its label file.

    Classes are named by `data.yaml` (or another .yaml with `names`) or by `classes.txt`. An image
    without a label file has no objects, as in training with ultralytics; how many have none is in
    the set's notes. A polygon counts by its bounding box. Without a class "head" nothing is known
    of heads; any other class's boxes are `regions`, by its name. Raises RoiCodecError where
    classes have no names, none of them is "person" (unless `needs_persons` is False), no image has
    a label file, and one for all broken lines together.
    """
    names = _class_names(data_dir, labels)
    if needs_persons and PERSON not in names.values():
        found = ", ".join(names.values()) or "none"
        raise RoiCodecError(f"expected a class {PERSON} in {data_dir}, found {found}")
    annotations: list[Annotation] = []
    unreadable: list[tuple[str, str]] = []
    broken: list[str] = []
    unlabelled = dropped = 0
    first_dropped = ""
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    for path in paths:
        label = labels / f"{path.stem}.txt"
        unlabelled += not label.is_file()
        try:
            width, height = size_from_header(path)
        except OSError as error:
            unreadable.append((path.stem, str(error)))
            continue
        boxes: dict[str, list[Corners]] = {PERSON: [], HEAD: []}
        for number, line in enumerate(_lines(label), start=1):
            try:
                index, place = _parse(line, width, height)
                if index not in names:
                    raise BrokenRecordError(f"expected a class that has a name, found {index}")
            except BrokenRecordError as error:
                broken.append(f"{label.name} line {number}: {error}")
                continue
            boxes.setdefault(names[index], []).append(place)
        annotation, empty = clipped_annotation(
            path,
            (width, height),
            boxes.pop(PERSON),
            boxes.pop(HEAD),
            regions=boxes,
            person_boxes="human" if PERSON in names.values() else "none",
            head_boxes="human" if HEAD in names.values() else "none",
        )
        annotations.append(annotation)
        dropped += empty
        first_dropped = first_dropped or (annotation.image_id if empty else "")
    if broken:
        raise RoiCodecError(
            f"expected nothing but good lines in {labels}, found {len(broken)} broken; the first "
            f"is {broken[0]}"
        )
    if paths and unlabelled == len(paths):
        raise RoiCodecError(
            f"expected label files in {labels}, found none for {unlabelled} images"
        )
    notes = (f"{unlabelled} images without a label file taken as empty",) if unlabelled else ()
    return AnnotationSet(tuple(annotations), dropped, tuple(unreadable), notes, first_dropped)


def _lines(label: Path) -> list[str]:
    if not label.is_file():
        return []
    try:
        text = label.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RoiCodecError(f"expected to read {label}, found: {error}") from error
    return [line for line in text.splitlines() if line.strip()]


def _parse(line: str, width: int, height: int) -> tuple[int, Corners]:
    """`class x y width height`, or `class x y x y …` of a polygon, all of them 0 to 1."""
    try:
        first, *rest = line.split()
        index, values = int(first), [float(value) for value in rest]
    except ValueError:
        raise BrokenRecordError(f"expected a class and numbers, found {line[:60]!r}") from None
    count = len(values)
    if not all(math.isfinite(v) for v in values) or count < 4 or (count > 4 and count % 2):
        raise BrokenRecordError(f"expected a box or a polygon, found {line[:60]!r}")
    if count == 4:
        x, y, w, h = values
        x0, y0, x1, y1 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    else:
        x0, y0, x1, y1 = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    return index, (x0 * width, y0 * height, x1 * width, y1 * height)


def _class_names(data_dir: Path, labels: Path) -> dict[int, str]:
    for path in sorted(data_dir.glob("*.y*ml"), key=lambda path: path.stem != "data"):
        names = _yaml_names(path)
        if names is not None:
            return names
    for path in (data_dir / "classes.txt", labels / "classes.txt"):
        if path.is_file():
            return dict(enumerate(line.strip().lower() for line in _lines(path)))
    raise RoiCodecError(f"expected data.yaml or classes.txt with class names in {data_dir}")


def _yaml_names(path: Path) -> dict[int, str] | None:
    try:
        import yaml
    except ImportError as error:
        raise RoiCodecError(
            f"reading {path.name} needs PyYAML ({error}): pip install pyyaml"
        ) from error
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RoiCodecError(f"expected YAML in {path}, found: {reason}") from error
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return None
    try:
        return {int(index): str(name).strip().lower() for index, name in names.items()}
    except ValueError as error:
        raise RoiCodecError(f"expected numbered names in {path}, found: {error}") from error
