# SPDX-License-Identifier: Apache-2.0
"""Videos written whole or not at all: OpenCV's writers do not report a full disk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.files import GENERATOR, replacement

_BOXES = (".mp4", ".mov", ".m4v")  # whose content is boxes, of which one may hold what it likes
_FREE_BOX = (8 + len(GENERATOR)).to_bytes(4, "big") + b"free" + GENERATOR.encode()


OpenWriter = Callable[[Path], cv2.VideoWriter]


def write_video(path: Path, open_writer: OpenWriter, frames: Iterable[np.ndarray]) -> int:
    """Write frames, uint8 [H, W, 3] BGR, and return their number; as `video_file`."""
    count = 0
    with video_file(path, open_writer) as add:
        for frame in frames:
            add(frame)
            count += 1
    return count


@contextlib.contextmanager
def video_file(path: Path, open_writer: OpenWriter) -> Iterator[Callable[[np.ndarray], None]]:
    """A video that is made frame by frame: what is yielded takes them, uint8 [H, W, 3] BGR.

    open_writer: opens a file of that suffix; raises RoiCodecError where it cannot. Raises
    RoiCodecError when not all frames can be read back, and then leaves nothing behind.
    """
    with _replacement(path) as unfinished:
        try:
            writer = open_writer(unfinished)
        except RoiCodecError as error:
            raise RoiCodecError(f"{path}: {error}") from error
        count = 0

        def add(frame: np.ndarray) -> None:
            nonlocal count
            writer.write(frame)
            count += 1

        try:
            yield add
        finally:
            writer.release()
        found = _readable(unfinished)
        if found != count:
            free = shutil.disk_usage(unfinished.parent).free
            raise RoiCodecError(
                f"cannot write {path}: of {count} pictures {found} can be read back "
                f"({free} bytes are free on that disk)"
            )
        if path.suffix.lower() in _BOXES:
            with unfinished.open("ab") as file:
                file.write(_FREE_BOX)


@contextlib.contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    try:
        with replacement(path) as unfinished:
            yield unfinished
    except OSError as error:
        raise RoiCodecError(f"cannot write {path}: {reason_of(error)}") from error


def _readable(path: Path) -> int:
    """Frames of a video."""
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count
