# SPDX-License-Identifier: Apache-2.0
"""Boxes from any data set that is laid out in a way we know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import AnnotationSet, read_odgt
from roi_codec_ros.lab.datasets.annotations_coco import find_coco, read_coco
from roi_codec_ros.lab.datasets.annotations_yolo import find_yolo, read_yolo

NO_FILE = "no such file"


def read_annotations(
    data_dir: str | Path, split: str, needs_persons: bool = True
) -> AnnotationSet:
    """Read a split of CrowdHuman's `.odgt`, COCO's JSON or YOLO's folders, whichever is there.

    needs_persons: whether a set that has no class for persons at all is an error.
    Images that are annotated but not on disk are left out and listed in `unreadable`.
    Raises RoiCodecError with one line that says what is missing or broken, and where.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise RoiCodecError(f"expected a data folder, found none at {root}")
    return _without_missing(_read(root, split, needs_persons), root)


def has_split(data_dir: str | Path, split: str) -> bool:
    """Whether annotations of a split are there, whole or broken."""
    root = Path(data_dir)
    odgt = (root / f"annotation_{split}.odgt").is_file()
    return odgt or find_coco(root, split) is not None or find_yolo(root, split) is not None


def _read(root: Path, split: str, needs_persons: bool) -> AnnotationSet:
    if any(root.glob("annotation_*.odgt")):
        return read_odgt(root, split)
    coco = find_coco(root, split)
    if coco is not None:
        return read_coco(*coco, needs_persons)
    yolo = find_yolo(root, split)
    if yolo is not None:
        return read_yolo(root, *yolo, needs_persons)
    inside = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    raise RoiCodecError(
        f"expected in {root} one of annotation_{split}.odgt, annotations/instances_{split}.json, "
        f"or images/{split}/ with labels/{split}/; found {', '.join(inside[:8]) or 'nothing'}"
    )


def _without_missing(annotated: AnnotationSet, root: Path) -> AnnotationSet:
    there = tuple(item for item in annotated if item.image_path.is_file())
    missing = [item for item in annotated if not item.image_path.is_file()]
    unreadable = (*annotated.unreadable, *((item.image_id, NO_FILE) for item in missing))
    if not there:
        found = f"{len(unreadable)} without one" if unreadable else "none"
        example = f", the first {missing[0].image_path}" if missing else ""
        raise RoiCodecError(f"expected annotated images in {root}, found {found}{example}")
    return replace(annotated, annotations=there, unreadable=unreadable)


def shortfall(annotated: AnnotationSet) -> list[str]:
    """What of a data set could not be used, a sentence each: how many, and which came first."""
    sentences = list(annotated.notes)
    if annotated.unreadable:
        name, reason = annotated.unreadable[0]
        total = len(annotated) + len(annotated.unreadable)
        sentences.append(
            f"{len(annotated.unreadable)} of {total} photographs left out, the first {name}: "
            f"{reason}"
        )
    if annotated.dropped_boxes:
        first = f", the first in {annotated.first_dropped}" if annotated.first_dropped else ""
        sentences.append(
            f"{annotated.dropped_boxes} boxes left out, with less than a pixel inside their "
            f"photograph{first}"
        )
    return sentences
