# SPDX-License-Identifier: Apache-2.0
"""Results of single images kept on disk, so that an interrupted run can be resumed.

One JSON object a line: the key, and for readers the image and the row. A key is a digest of all
that a result depends on, so anything that has changed since is measured again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.files import GENERATOR, is_ours
from roi_codec_ros.common.output_files import Output, lock
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.results import ImageResult, RowName

SUFFIX = ".images.jsonl"  # beside the report: results of single images, for --resume
FORMAT = 4  # of the lines, and of how figures are computed: raise it when either changes


class ResultCache:
    """A file of results. context: what all of them depend on (settings, detectors, machine)."""

    def __init__(self, path: Path, context: Mapping[str, Any], *, resume: bool) -> None:
        """resume: use what the file has; without, all is measured anew. Nothing in it is lost.

        Raises RoiCodecError where it cannot be written, is no such file, or another run has it.
        """
        self._context = _digest({"format": FORMAT, **context})
        self._results: dict[str, ImageResult] = {}
        self._images: dict[Path, str | None] = {}
        try:
            self._file: IO[str] = path.open("a+", encoding="utf-8", errors="replace")
            lock(self._file.fileno())
            self._file.seek(0)
            lines = self._file.read().splitlines()
            taken = [self._take(line) for line in lines]
            if any(map(str.strip, lines)) and not any(taken) and not is_ours(path):
                self._file.close()
                raise RoiCodecError(f"expected to keep results in {path}; found: another file")
            if not resume:
                self._results.clear()
            # Ends what a run that was stopped left of its last line.
            self._file.write("\n" if lines else json.dumps({"generator": GENERATOR}) + "\n")
            self._file.flush()
        except BlockingIOError as error:
            self._file.close()
            raise RoiCodecError(
                f"expected no other run to keep results in {path}; found: one that has not ended"
            ) from error
        except OSError as error:
            raise RoiCodecError(
                f"expected to keep results in {path}; found: {reason_of(error)}"
            ) from error

    def __enter__(self) -> ResultCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, annotation: Annotation, row: RowName) -> ImageResult | None:
        """The result of an image that has not changed since, or None."""
        key = self._key(annotation, row)
        return None if key is None else self._results.get(key)

    def add(self, annotation: Annotation, row: RowName, result: ImageResult) -> None:
        """Keep a result; on disk when this returns. Raises RoiCodecError."""
        key = self._key(annotation, row)
        if key is None:
            return
        self._results[key] = result
        line = {"key": key, "image": annotation.image_id, "row": str(row)}
        try:
            self._file.write(json.dumps(line | {"result": result.to_json()}) + "\n")
            self._file.flush()
        except OSError as error:
            raise RoiCodecError(
                f"expected to keep results in {self._file.name}; found: {reason_of(error)}"
            ) from error

    def _take(self, line: str) -> bool:
        """Whether a line is a result; one cut short by the end of its run is measured again."""
        try:
            entry = json.loads(line)
            self._results[entry["key"]] = ImageResult.from_json(entry["result"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        return True

    def _key(self, annotation: Annotation, row: RowName) -> str | None:
        path = annotation.image_path
        if path not in self._images:
            self._images[path] = _image_digest(annotation)
        image = self._images[path]
        return image and _digest([self._context, asdict(row), image])


def cache_beside(
    report: Output | None, context: Callable[[], Mapping[str, Any]], *, resume: bool
) -> AbstractContextManager[ResultCache | None]:
    """The cache in a file beside a report; None where the report is in no file.

    context: called for that of `ResultCache`. Raises RoiCodecError.
    """
    if report is None or not report.is_file:
        return nullcontext()
    path = report.path.with_name(report.path.stem + SUFFIX)
    return ResultCache(path, context(), resume=resume)


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content. Raises RoiCodecError."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise RoiCodecError(f"expected a file at {path}; found: {reason_of(error)}") from error


def _image_digest(annotation: Annotation) -> str | None:
    """Of the pixels' file and the boxes; None where there is no such file."""
    try:
        content = hashlib.sha256(annotation.image_path.read_bytes()).hexdigest()
    except OSError:
        return None
    boxes = [annotation.persons, annotation.heads, annotation.ignored]
    return _digest(
        [
            annotation.image_id,
            content,
            [annotation.width, annotation.height, annotation.person_boxes, annotation.head_boxes],
            [kind.tolist() for kind in boxes],
        ]
    )


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
