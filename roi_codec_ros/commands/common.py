# SPDX-License-Identifier: Apache-2.0
"""What several verbs share: reading and writing files with one-line errors."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import write_whole


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json FILE``: the result for machines."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def positive(text: str) -> int:
    """An argument that is a whole number of 1 or more; for argparse's ``type``."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def image_size(text: str) -> tuple[int, int]:
    """``640x480`` as width and height; for argparse's ``type``."""
    width, _, height = text.lower().partition("x")
    return positive(width), positive(height)


# What argparse calls them when it refuses one.
positive.__name__ = "positive number"
image_size.__name__ = "size"


def positive_real(text: str) -> float:
    """An argument that is a number above 0; for argparse's ``type``."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


positive_real.__name__ = "positive number"


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON."""
    write_bytes(path, (json.dumps(data, indent=2) + "\n").encode())


def check_writable(path: Path) -> None:
    """Find out before hours of work whether `write_bytes` could write there. Raises RoiCodecError.

    Makes the folder of ``path``; a file that is there stays as it is.
    """
    if path.is_dir():
        raise RoiCodecError(f"expected to write {path}; found: a folder")
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise RoiCodecError(f"expected to write {path}; found: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises RoiCodecError."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise RoiCodecError(f"expected JSON in {path}; found: {error}") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises RoiCodecError."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise RoiCodecError(f"expected to write {path}; found: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises RoiCodecError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RoiCodecError(f"expected a file at {path}; found: {error.strerror}") from error


def write_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W, 3], RGB, in the format that the suffix names. Raises RoiCodecError."""
    import cv2

    try:
        written, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        raise RoiCodecError(f"expected a suffix such as .png or .jpg, found {path.name!r}")
    write_bytes(path, data.tobytes())
