# SPDX-License-Identifier: Apache-2.0
"""Videos that appear whole or not at all: OpenCV's writers do not tell of a full disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.common.errors import RoiCodecError


def write_video(
    path: Path, open_writer: Callable[[Path], cv2.VideoWriter], frames: Iterable[np.ndarray]
) -> int:
    """Write frames, uint8 [H, W, 3] BGR, and return their number.

    open_writer: opens a file of that suffix; raises RoiCodecError where it can not. Raises
    RoiCodecError when not all frames can be read back, and then leaves nothing behind.
    """
    unfinished = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        writer = open_writer(unfinished)
        count = 0
        try:
            for frame in frames:
                writer.write(frame)
                count += 1
        finally:
            writer.release()
        found = _readable(unfinished)
        if found != count:
            free = shutil.disk_usage(path.parent).free
            raise RoiCodecError(
                f"expected to write {path} with {count} pictures; found: {found} that can be read "
                f"back ({free} bytes are free on that disk)"
            )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _readable(path: Path) -> int:
    """Frames of a video."""
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count
