# SPDX-License-Identifier: Apache-2.0
"""Boxes from any data set with a supported layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.photographs import photographs_in
from roi_codec_ros.lab.datasets.annotations import Annotation, AnnotationSet
from roi_codec_ros.lab.datasets.annotations_coco import coco_files, find_coco, read_coco
from roi_codec_ros.lab.datasets.annotations_odgt import odgt_file, odgt_splits, read_odgt
from roi_codec_ros.lab.datasets.annotations_yolo import find_yolo, read_yolo
from roi_codec_ros.lab.datasets.records import NO_FILE, Boxes, Gathering, image_ids, is_file


def read_annotations(
    data_dir: str | Path, split: str, needs_persons: bool = True
) -> AnnotationSet:
    """Read a split of CrowdHuman's `.odgt`, COCO's JSON or YOLO's folders, whichever exists.

    needs_persons: whether a set that has no class for persons at all is an error.
    Images that are annotated but not on disk are left out and listed in `unreadable`.
    Raises RoiCodecError with one line that says what is missing or broken, and where.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise RoiCodecError(f"expected a data folder, found none at {root}")
    return _without_missing(_read(root, split, needs_persons), root)


def has_split(data_dir: str | Path, split: str) -> bool:
    """Whether annotations of a split exist, valid or broken."""
    root = Path(data_dir)
    odgt = odgt_file(root, split).is_file()
    return odgt or find_coco(root, split) is not None or find_yolo(root, split) is not None


def is_annotated(data_dir: Path) -> bool:
    """Whether a folder looks like a data set with annotations of some split, whole or broken."""
    marks = ("annotation_*.odgt", "annotations", "*.json", "labels", "*/labels", "*.y*ml")
    return any(True for mark in marks for _ in data_dir.glob(mark))


def read_unannotated(folder: Path, without: Path | None = None) -> AnnotationSet:
    """The photographs in a folder and its subfolders, without annotations.

    without: a subfolder to exclude. Raises RoiCodecError if there are none.
    """
    paths = photographs_in(folder, recursive=True)
    if without is not None and without.resolve().is_relative_to(folder.resolve()):
        inside = without.resolve()
        paths = [path for path in paths if not path.parent.resolve().is_relative_to(inside)]
    found = Gathering(folder, "photographs")
    for image_id, path in zip(
        image_ids(path.relative_to(folder).as_posix() for path in paths), paths, strict=True
    ):
        found.add(path, None, Boxes(), image_id=image_id, person_boxes="none", head_boxes="none")
    return _without_missing(found.result(), folder)


def _read(root: Path, split: str, needs_persons: bool) -> AnnotationSet:
    odgt, coco = odgt_file(root, split), find_coco(root, split)
    others = coco_files(root, split)
    if odgt.is_file():
        return _with_note(read_odgt(root, split), others)
    if coco is not None:
        return _with_note(read_coco(*coco, needs_persons), others[1:])
    yolo = find_yolo(root, split)
    if yolo is not None:
        return read_yolo(yolo, needs_persons)
    if odgt_splits(root):
        return read_odgt(root, split)  # which lists the existing splits
    inside = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    raise RoiCodecError(
        f"expected in {root} one of annotation_{split}.odgt, annotations/instances_{split}.json, "
        f"or images/{split}/ with labels/{split}/; found {', '.join(inside[:8]) or 'nothing'}"
    )


def _with_note(annotated: AnnotationSet, others: list[Path]) -> AnnotationSet:
    """Says which other annotations of the split were not read."""
    notes = tuple(f"{path} also exists and was not read" for path in others)
    return replace(annotated, notes=(*annotated.notes, *notes))


def _without_missing(annotated: AnnotationSet, root: Path) -> AnnotationSet:
    there = tuple(item for item in annotated if is_file(item.image_path))
    missing = [item for item in annotated if not is_file(item.image_path)]
    unreadable = (*annotated.unreadable, *((item.image_id, NO_FILE) for item in missing))
    if not there:
        found = f"{len(unreadable)} without one" if unreadable else "none"
        example = f", the first {missing[0].image_path}" if missing else ""
        if unreadable and not missing:
            found = f"{len(unreadable)} that cannot be used"
            example = f", the first {': '.join(unreadable[0])}"
        raise RoiCodecError(f"expected images in {root}, found {found}{example}")
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


def choose(
    annotated: AnnotationSet, *, all_images: bool, limit: int | None
) -> Sequence[Annotation]:
    """The images to measure, in file order; `limit` of them spread evenly, ends included.

    Raises RoiCodecError where the split has no image with human-made person boxes.
    """
    usable = [item for item in annotated if all_images or item.person_boxes == "human"]
    if not usable:
        raise RoiCodecError(
            "expected images with human-made person boxes, found none; --all-images takes the rest"
        )
    if limit is None or limit >= len(usable):
        return usable
    if limit == 1:
        return usable[:1]
    return [usable[round(index * (len(usable) - 1) / (limit - 1))] for index in range(limit)]
