# SPDX-License-Identifier: Apache-2.0
"""Shared by the readers of data sets: text and JSON files of common tools, file names, and the
counting and reporting of unusable records.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.photographs import PhotographError, photograph_size
from roi_codec_ros.lab.datasets.annotations import (
    HEAD,
    PERSON,
    Annotation,
    AnnotationSet,
    Corners,
    clipped_annotation,
)

LARGEST_SIDE_PX = 1_000_000
NO_FILE = "no such file"


class BrokenRecordError(Exception):
    """What one record of a file should have held, and what it holds."""


def read_text(path: Path) -> str:
    """A file of text: UTF-8 with or without a byte-order mark, or UTF-16 with one.

    Raises RoiCodecError.
    """
    try:
        return decoded(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RoiCodecError(f"expected to read {path}, found: {reason_of(error)}") from error


def decoded(data: bytes) -> str:
    """The text of a file's content. Raises UnicodeDecodeError."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    return data.decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """What a JSON text holds. Raises BrokenRecordError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise BrokenRecordError("expected JSON, found brackets nested too deeply") from None
    except ValueError as error:
        raise BrokenRecordError(f"expected JSON, found {error}") from error


def shown(value: Any) -> str:
    """A value in an error: short, on one line, whatever it is."""
    try:
        return reprlib.repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(value).__name__} too long to show"


def corners(values: Any) -> Corners:
    """The corners of [x, y, width, height]. Raises BrokenRecordError."""
    if not isinstance(values, list) or len(values) != 4 or not all(map(is_number, values)):
        raise BrokenRecordError(
            f"expected a box of four finite numbers x, y, w, h, found {shown(values)}"
        )
    x, y, width, height = (float(value) for value in values)
    return x, y, x + width, y + height


def is_number(value: Any) -> bool:
    """Whether JSON's value is a finite number, and one that a float can hold."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def declared_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height in px; None if neither is given. Raises BrokenRecordError."""
    if width is None and height is None:
        return None
    for side in (width, height):
        if not is_number(side) or side != int(side) or not 1 <= side <= LARGEST_SIDE_PX:
            raise BrokenRecordError(
                f"expected width and height in px, found {shown(width)} and {shown(height)}"
            )
    return int(width), int(height)


def flag(fields: Any, name: str) -> bool:
    """A field that is 0 or 1, no if it is missing. Raises BrokenRecordError."""
    value = fields.get(name)
    if value is None:
        return False
    if value not in (0, 1) or isinstance(value, str):
        raise BrokenRecordError(f"expected 0 or 1 as {name}, found {shown(value)}")
    return bool(value)


def relative_name(name: Any, what: str) -> str:
    """A file's name, with folders or without, in the form `folder/name`; from Windows, too.

    what: the field's name. Raises BrokenRecordError for what leads out of the data set, or is no
    name of a file.
    """
    if not isinstance(name, str) or not name.strip():
        raise BrokenRecordError(f"expected a file name as {what}, found {shown(name)}")
    name = name.replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0].endswith(":"):
        raise BrokenRecordError(
            f"expected a file name inside the data set as {what}, found {shown(name)}"
        )
    if printable(name) != name:
        raise BrokenRecordError(
            f"expected a file name as {what}, found {shown(name)}, which no file can have"
        )
    return str(path)


def printable(name: str) -> str:
    """A file's name as one line that can be written and read: anything else becomes %0A or so."""
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        for character in name
    )


def is_file(path: Path) -> bool:
    """Whether a file exists; False also for names that are too long."""
    return os.path.isfile(path)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height in px of a photograph; pipes are refused without waiting.

    Raises PhotographError.
    """
    if not is_file(path):
        raise PhotographError(path, NO_FILE)
    return photograph_size(path)


def image_ids(names: Iterable[str]) -> list[str]:
    """Short names of photographs: without suffix, except where several would then be alike."""
    names = [printable(name) for name in names]
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    counts = Counter(stems)
    return [stem if counts[stem] == 1 else name for name, stem in zip(names, stems, strict=True)]


@dataclass
class Boxes:
    """The boxes of one image as they come in, sorted into kinds, not yet clipped."""

    persons: list[Corners] = field(default_factory=list)
    heads: list[Corners] = field(default_factory=list)
    ignored: list[Corners] = field(default_factory=list)
    regions: dict[str, list[Corners]] = field(default_factory=dict)

    def add(self, name: str, place: Corners) -> None:
        """A box of a class, by its name in lower case."""
        if name == PERSON:
            self.persons.append(place)
        elif name == HEAD:
            self.heads.append(place)
        else:
            self.regions.setdefault(name, []).append(place)


class Gathering:
    """The annotations read so far, and what was left out."""

    def __init__(self, source: Path, records: str) -> None:
        """source: file or folder that is read. records: what it is made of, as in "lines"."""
        self._source, self._records = source, records
        self._annotations: list[Annotation] = []
        self._unreadable: list[tuple[str, str]] = []
        self._broken: list[str] = []
        self._notes: list[str] = []
        self._dropped, self._first_dropped = 0, ""

    def broken(self, where: str, error: BrokenRecordError) -> None:
        """A record that is wrong; all of them become one error."""
        self._broken.append(f"{where}: {error}")

    def leave_out(self, image_id: str, reason: str) -> None:
        """A photograph that cannot be used."""
        self._unreadable.append((image_id, reason))

    def note(self, sentence: str) -> None:
        """Something else that was taken for granted or passed over."""
        self._notes.append(sentence)

    def add(self, path: Path, size: tuple[int, int] | None, boxes: Boxes, **about: str) -> None:
        """A photograph and its boxes. size: width and height in px; None: as its file says."""
        try:
            width, height = size or size_of(path)
        except PhotographError as error:
            self.leave_out(about.get("image_id") or path.stem, error.reason)
            return
        annotation, empty = clipped_annotation(
            path,
            (width, height),
            boxes.persons,
            boxes.heads,
            boxes.ignored,
            boxes.regions,
            **about,
        )
        self._annotations.append(annotation)
        self._dropped += empty
        if empty and not self._first_dropped:
            self._first_dropped = annotation.image_id

    def check(self) -> None:
        """Raises RoiCodecError if any record was broken: how many, and the first."""
        if self._broken:
            raise RoiCodecError(
                f"expected nothing but good {self._records} in {self._source}, found "
                f"{len(self._broken)} broken; the first is {self._broken[0]}"
            )

    def result(self) -> AnnotationSet:
        """What was found. Raises RoiCodecError as `check` does."""
        self.check()
        return AnnotationSet(
            tuple(self._annotations),
            self._dropped,
            tuple(self._unreadable),
            tuple(self._notes),
            self._first_dropped,
        )
