# SPDX-License-Identifier: Apache-2.0
"""A picture, or all pictures of a folder, anonymized into another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import write
from roi_codec_ros.common.output_files import Output, RunFolder
from roi_codec_ros.common.photographs import is_photograph, photographs_in
from roi_codec_ros.recordings.pictures import Picture
from roi_codec_ros.recordings.pipeline import Passage, Pipeline, Settings
from roi_codec_ros.recordings.tally import CameraTally

VERB = "anonymize"


def anonymize_picture(source: Path, target: Output, settings: Settings) -> CameraTally:
    """Write one picture without heads. Raises RoiCodecError where that cannot be."""
    if source.suffix.lower() != target.path.suffix.lower() and target.is_file:
        raise RoiCodecError(
            f"expected a picture to keep its format {source.suffix}, found {target.path.name}"
        )
    tally = CameraTally(source.name, "picture")

    def sink(passage: Passage) -> None:
        tally.add(passage, source.name)
        if passage.output is None:
            raise RoiCodecError(passage.reason)
        target.write(passage.output)

    with Pipeline(settings, sink) as pipeline:
        pipeline.put_frame(source, Picture(source), 0.0)
        pipeline.finish()
    return tally


def anonymize_folder(
    source: Path, target: Path, settings: Settings, *, force: bool = False, told: str = ""
) -> CameraTally:
    """Write every picture of a folder and of its folders, under the same names.

    What was written by an earlier run with the same settings is passed over, so that one that was
    killed goes on. Other files are not copied. A picture that cannot be judged is left out.

    told: what tells these settings from others. Raises RoiCodecError.
    """
    _check_apart(source, target)
    pictures = photographs_in(source, recursive=True)
    if not pictures:
        raise RoiCodecError(f"expected pictures in {source}, found none")
    names = [str(path.relative_to(source)) for path in pictures]
    tally = CameraTally(source.name, "pictures")
    with RunFolder(target, VERB, names, force=force) as folder:
        left = [
            (name, path)
            for name, path in zip(names, pictures, strict=True)
            if not _is_done(folder, name, path, told)
        ]

        def sink(passage: Passage) -> None:
            name, path = passage.tag
            tally.add(passage, name)
            if passage.output is not None:
                write(target / name, passage.output)
                folder.remember(name, _digest(path, told))
            settings.progress(tally.frames + tally.left_out, len(left), "picture")

        # Each by itself: what is in one picture says nothing of the next.
        with Pipeline(replace(settings, memory_s=0.0), sink) as pipeline:
            for number, (name, path) in enumerate(left):
                pipeline.put_frame((name, path), Picture(path), float(number))
            pipeline.finish()
    return tally


def other_files(folder: Path) -> Sequence[str]:
    """Names of what is no picture in a folder, which is not copied."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not is_photograph(path)
    )


def _is_done(folder: RunFolder, name: str, path: Path, told: str) -> bool:
    return (folder.path / name).is_file() and folder.remembered(name) == _digest(path, told)


def _digest(path: Path, told: str) -> str:
    status = path.stat()
    text = f"{status.st_size} {status.st_mtime_ns} {told}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_apart(source: Path, target: Path) -> None:
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents:
        raise RoiCodecError(f"expected a folder outside of {source}, found {target}")
