# SPDX-License-Identifier: Apache-2.0
"""Boxes of persons, heads and other classes, and how to read them from `.odgt` files.

The format is CrowdHuman's. `annotations_any` finds out which format a data set has; training and
evaluation share this.

Reads no pixels; only the header of an image whose size is not in its line (as in CrowdHuman's
own files).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SMALLEST_BOX_PX = 1.0

BoxArray = NDArray[np.float32]
Corners = tuple[float, float, float, float]  # x0, y0, x1, y1 in px

PERSON, HEAD = "person", "head"  # the classes that every layout knows
_NO_PERSON_TAG = "mask"  # CrowdHuman's own: crowds, reflections


@dataclass(frozen=True, eq=False)
class Annotation:
    """The boxes of one image, float32 [N, 4] as x0, y0, x1, y1 in px, clipped to the image.

    persons: visible bodies to score against and to weigh in a loss; measured, never scaled from a
    head. heads: heads known to be there. ignored: regions that are neither a person nor not one
    (crowds, reflections, bodies guessed from a head): a score should not count what lies there.
    person_boxes, head_boxes: who made them: "human", "teacher", "mixed" or "none" (unknown, and
    then an empty list says nothing).
    source: where the photograph comes from, "" if nobody says; a set may be made of several.
    regions: boxes of any further class by its name, such as "number plate", in lower case.
    """

    image_path: Path
    image_id: str
    width: int
    height: int
    persons: BoxArray
    heads: BoxArray
    ignored: BoxArray
    person_boxes: str = "human"
    head_boxes: str = "human"
    source: str = ""
    regions: Mapping[str, BoxArray] = field(default_factory=dict)

    def boxes(self, name: str) -> BoxArray:
        """The boxes of one class, float32 [N, 4]: "person", "head" or one of `regions`."""
        if name == PERSON:
            return self.persons
        if name == HEAD:
            return self.heads
        return self.regions.get(name, np.zeros((0, 4), np.float32))

    def classes(self) -> set[str]:
        """The classes that have a box in this image."""
        return {name for name in (PERSON, HEAD, *self.regions) if len(self.boxes(name))}


@dataclass(frozen=True, eq=False)
class AnnotationSet(Sequence[Annotation]):
    """The annotations of one split in file order, and what had to be left out.

    dropped_boxes: boxes with less than one pixel of width or height inside their image.
    unreadable: (image id, reason) of images that are not there or whose size is not to be had.
    notes: what else a reader took for granted, a sentence each.
    first_dropped: the first image that had such a box, "" without any.
    """

    annotations: tuple[Annotation, ...]
    dropped_boxes: int = 0
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    first_dropped: str = ""

    def __len__(self) -> int:
        return len(self.annotations)

    @overload
    def __getitem__(self, index: int) -> Annotation: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Annotation, ...]: ...

    def __getitem__(self, index: int | slice) -> Annotation | tuple[Annotation, ...]:
        return self.annotations[index]

    def __iter__(self) -> Iterator[Annotation]:
        return iter(self.annotations)


def read_odgt(data_dir: str | Path, split: str) -> AnnotationSet:
    """Read `annotation_<split>.odgt` under `data_dir`.

    Images are looked for in `images/<split>/`, then in CrowdHuman's own `Images/`. A missing image
    is no error here; whoever opens it reports it.

    Raises RoiCodecError where there is no such file or image folder, and one for all broken lines
    together, which counts them and names the first.
    """
    root = Path(data_dir)
    path = root / f"annotation_{split}.odgt"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise RoiCodecError(_missing_split(root, split)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RoiCodecError(f"expected to read {path}, found: {error}") from error
    images = _ImageIndex(root, split)

    annotations: list[Annotation] = []
    unreadable: list[tuple[str, str]] = []
    broken: list[str] = []
    dropped, first_dropped = 0, ""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _Record.parse(line)
        except BrokenRecordError as error:
            broken.append(f"line {number}: {error}")
            continue
        image_path = images.find(record.image_id)
        try:
            width, height = record.size or size_from_header(image_path)
        except OSError as error:
            unreadable.append((record.image_id, str(error)))
            continue
        annotation, empty = record.clip(image_path, width, height)
        annotations.append(annotation)
        dropped += empty
        first_dropped = first_dropped or (annotation.image_id if empty else "")
    if broken:
        raise RoiCodecError(
            f"expected nothing but good lines in {path}, found {len(broken)} broken; the first is "
            f"{broken[0]}"
        )
    if not annotations:
        raise RoiCodecError(
            f"expected annotated images in {path}, found "
            + (f"{len(unreadable)} unreadable ones: {unreadable[0][1]}" if unreadable else "none")
        )
    return AnnotationSet(
        tuple(annotations), dropped, tuple(unreadable), first_dropped=first_dropped
    )


def _missing_split(root: Path, split: str) -> str:
    if not root.is_dir():
        return f"expected a data folder, found none at {root}"
    prefix, suffix = "annotation_", ".odgt"
    splits = sorted(
        entry.name[len(prefix) : -len(suffix)] for entry in root.glob(f"{prefix}*{suffix}")
    )
    found = ", ".join(splits) if splits else f"no {prefix}<split>{suffix} at all"
    return f"expected {prefix}{split}{suffix} in {root}, found {found}"


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
        self._by_stem = {
            entry.stem: entry
            for entry in sorted(folder.iterdir(), reverse=True)
            if entry.suffix.lower() in IMAGE_SUFFIXES
        }

    def find(self, image_id: str) -> Path:
        return self._by_stem.get(image_id, self._folder / f"{image_id}.jpg")


def size_from_header(path: Path) -> tuple[int, int]:
    """Width and height in px, without decoding the image. Raises OSError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except ImportError as error:
        # ultralytics patches Image.open to try the optional HEIF reader on broken files.
        raise OSError(f"cannot identify image file {str(path)!r}") from error


class BrokenRecordError(Exception):
    """What one record of a file should have held, and what it holds."""


@dataclass(frozen=True)
class _Record:
    """One line of the file, its boxes sorted into kinds but not yet clipped to the image."""

    image_id: str
    size: tuple[int, int] | None
    persons: list[Corners]
    heads: list[Corners]
    ignored: list[Corners]
    regions: dict[str, list[Corners]]
    person_boxes: str
    head_boxes: str
    source: str

    @classmethod
    def parse(cls, line: str) -> _Record:
        """Raises BrokenRecordError: expected …, found …"""
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise BrokenRecordError(f"expected a JSON object, found {error}") from error
        if not isinstance(fields, dict):
            raise BrokenRecordError(f"expected a JSON object, found {type(fields).__name__}")
        image_id = fields.get("ID")
        if not isinstance(image_id, str) or not image_id or "/" in image_id or "\\" in image_id:
            raise BrokenRecordError(
                f"expected a file name without folder as ID, found {image_id!r}"
            )
        boxes = fields.get("gtboxes")
        if not isinstance(boxes, list):
            raise BrokenRecordError(f"expected a list of gtboxes, found {type(boxes).__name__}")
        persons: list[Corners] = []
        heads: list[Corners] = []
        ignored: list[Corners] = []
        regions: dict[str, list[Corners]] = {}
        for box in boxes:
            _sort_box(box, persons, heads, ignored, regions)
        return cls(
            image_id=image_id,
            size=_declared_size(fields),
            persons=persons,
            heads=heads,
            ignored=ignored,
            regions=regions,
            person_boxes=str(fields.get("person_boxes", "human")),
            head_boxes=str(fields.get("head_boxes", "human")),
            source=str(fields.get("source", "")),
        )

    def clip(self, image_path: Path, width: int, height: int) -> tuple[Annotation, int]:
        """Returns the annotation, and how many boxes had nothing left inside the image."""
        return clipped_annotation(
            image_path,
            (width, height),
            self.persons,
            self.heads,
            self.ignored,
            self.regions,
            image_id=self.image_id,
            person_boxes=self.person_boxes,
            head_boxes=self.head_boxes,
            source=self.source,
        )


def _declared_size(fields: dict[str, Any]) -> tuple[int, int] | None:
    if "width" not in fields and "height" not in fields:
        return None
    width, height = fields.get("width"), fields.get("height")
    for value in (width, height):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BrokenRecordError(
                f"expected width and height in px, found {width!r} and {height!r}"
            )
    return int(width), int(height)  # type: ignore[arg-type]


def _sort_box(
    box: Any,
    persons: list[Corners],
    heads: list[Corners],
    ignored: list[Corners],
    regions: dict[str, list[Corners]],
) -> None:
    """Persons and masks by CrowdHuman's flags; a box with another tag is one of that class."""
    if not isinstance(box, dict):
        raise BrokenRecordError(f"expected an object for each box, found {type(box).__name__}")
    extra = _flags(box, "extra")
    head_attributes = _flags(box, "head_attr")
    if "vbox" not in box and "fbox" not in box:
        raise BrokenRecordError(f"expected a vbox or fbox, found {sorted(box)}")
    body = corners(box["vbox"] if "vbox" in box else box["fbox"])
    tag = box.get("tag")
    if tag in (None, _NO_PERSON_TAG) or extra.get("ignore"):
        ignored.append(body)
        return
    name = str(tag).strip().lower()
    if name == HEAD:
        heads.append(body)
        return
    if name != PERSON:
        regions.setdefault(name, []).append(body)
        return
    (ignored if extra.get("estimated") else persons).append(body)
    if "hbox" in box and not head_attributes.get("ignore"):
        heads.append(corners(box["hbox"]))


def _flags(box: dict[str, Any], name: str) -> dict[str, Any]:
    flags = box.get(name, {})
    if not isinstance(flags, dict):
        raise BrokenRecordError(f"expected an object as {name}, found {type(flags).__name__}")
    return flags


def corners(values: Any) -> Corners:
    """The corners of [x, y, width, height]. Raises BrokenRecordError."""
    good = (
        isinstance(values, list)
        and len(values) == 4
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    )
    if not good:
        raise BrokenRecordError(
            f"expected a box of four finite numbers x, y, w, h, found {values!r}"
        )
    x, y, width, height = (float(value) for value in values)
    return x, y, x + width, y + height


def clip_boxes(boxes: Sequence[Corners], width: int, height: int) -> tuple[BoxArray, int]:
    """The boxes inside the image, float32 [N, 4], and how many had nothing left there."""
    places = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    limits = np.array([width, height, width, height], dtype=np.float32)
    places = np.clip(places, 0.0, limits).astype(np.float32)
    extent = places[:, 2:] - places[:, :2]
    kept = (extent >= SMALLEST_BOX_PX).all(axis=1)
    return places[kept], int(len(places) - kept.sum())


def clipped_annotation(
    image_path: Path,
    size: tuple[int, int],
    persons: Sequence[Corners],
    heads: Sequence[Corners],
    ignored: Sequence[Corners] = (),
    regions: Mapping[str, Sequence[Corners]] | None = None,
    *,
    image_id: str = "",
    **about: str,
) -> tuple[Annotation, int]:
    """The annotation of boxes clipped to an image, and how many had nothing left inside.

    size: width and height in px. image_id: the file's stem unless given. about: further fields.
    Ignored regions are clipped as well, but not counted.
    """
    width, height = size
    clipped_persons, no_persons = clip_boxes(persons, width, height)
    clipped_heads, no_heads = clip_boxes(heads, width, height)
    further = {name: clip_boxes(boxes, *size) for name, boxes in (regions or {}).items()}
    annotation = Annotation(
        image_path=image_path,
        image_id=image_id or image_path.stem,
        width=width,
        height=height,
        persons=clipped_persons,
        heads=clipped_heads,
        ignored=clip_boxes(ignored, width, height)[0],
        regions={name: boxes for name, (boxes, _) in further.items()},
        **about,
    )
    return annotation, no_persons + no_heads + sum(empty for _, empty in further.values())
