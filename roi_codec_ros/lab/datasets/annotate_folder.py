# SPDX-License-Identifier: Apache-2.0
"""A data set written by detectors: photographs or an an annotated split in, a split out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import read_bytes, same_file, write
from roi_codec_ros.common.output_files import Output, RunFolder
from roi_codec_ros.common.photographs import failure_reason, photographs_in
from roi_codec_ros.lab.datasets.annotate import annotate
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation, AnnotationSet
from roi_codec_ros.lab.datasets.annotations_any import (
    has_split,
    is_annotated,
    read_annotations,
    read_unannotated,
)
from roi_codec_ros.lab.datasets.annotations_write import check_links, link_photograph, odgt_text
from roi_codec_ros.perception.detections import DetectsPersons
from roi_codec_ros.perception.face_detectors import FaceDetector


@dataclass(frozen=True)
class Annotated:
    """What was written into ``file``, and a line for each photograph that failed."""

    file: Path
    done: list[Annotation]
    failures: list[str]


class FolderToAnnotate:
    """Photographs of ``data``, and the folder ``out`` that becomes a data set.

    Raises RoiCodecError where there is nothing to read, or manual work would be overwritten; not
    the latter with ``force``.
    """

    def __init__(self, data: Path, split: str, out: Path, *, force: bool) -> None:
        if out.resolve() == data.resolve():
            raise UsageError(f"expected --out to be another folder than {data}")
        self._data = data
        self._folder = RunFolder(out, "annotate", (), force=force)
        self._file = out / f"annotation_{split}.odgt"
        self._check_file(force)
        self.photographs = _photographs(data, split, out)
        self._links = out / "images" / split
        check_links(self.photographs, self._links, replace_links=force or self._folder.marked)

    @property
    def needs_persons(self) -> bool:
        """Whether no photograph has boxes of persons yet."""
        return all(item.person_boxes == "none" for item in self.photographs)

    def write(
        self,
        faces: Sequence[FaceDetector],
        persons: DetectsPersons | None,
        on_photograph: Callable[[], Any],
    ) -> Annotated:
        """Annotate every photograph, and write the data set. Raises RoiCodecError if all fail."""
        done: list[Annotation] = []
        failures: list[str] = []
        with self._folder as folder:
            for item in self.photographs:
                try:
                    found = annotate(item, read_annotated(item), faces, persons)
                except Exception as error:  # noqa: BLE001  # one broken image does not end the work
                    failures.append(f"{item.image_id}: {failure_reason(error)}")
                else:
                    link_photograph(item, self._links)
                    done.append(found)
                on_photograph()
            if not done:
                raise RoiCodecError(
                    f"expected photographs in {self._data}, found {len(failures)} that failed; "
                    f"the first: {failures[0]}"
                )
            content = odgt_text(done).encode()
            write(self._file, content, durable=True)
            folder.remember(self._file.name, _digest(content))
        return Annotated(self._file, done, failures)

    def _check_file(self, force: bool) -> None:
        """Raise RoiCodecError if the input or manual work would be overwritten."""
        file, read = self._file, self._data / self._file.name
        if read.exists() and same_file(read, file):
            raise UsageError(f"cannot write over the input {read}")
        there = file.is_file() and file.stat().st_size > 0
        if there and not force and self._folder.remembered(file.name) != _digest(read_bytes(file)):
            raise RoiCodecError(
                f"expected no {file.name} in {file.parent}, found one that was not written by "
                "annotate, or was changed since; --force replaces it"
            )
        Output(file, force=True)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _photographs(data: Path, split: str, out: Path) -> AnnotationSet:
    """The annotated split, or the photographs in ``data`` without annotations.

    Results of earlier runs in ``out``, which may be inside ``data``, are excluded.
    """
    lying_there = photographs_in(data)
    if lying_there and has_split(data, split):
        raise RoiCodecError(
            f"expected photographs or an annotated data set in {data}, found both: "
            f"{lying_there[0].name}, and annotations of {split}"
        )
    if lying_there or not is_annotated(data):
        return read_unannotated(data, without=out)
    return read_annotations(data, split)
