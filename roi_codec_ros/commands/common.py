# SPDX-License-Identifier: Apache-2.0
"""What several verbs share: options, types of arguments, and files with one-line errors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import stamped
from roi_codec_ros.common.output_files import Output, check_outputs


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json FILE``: the result for machines."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def add_force_option(parser: argparse.ArgumentParser) -> None:
    """``--force``: replace also what roi-codec did not make."""
    parser.add_argument(
        "--force", action="store_true", help="replace files that roi-codec did not make, too"
    )


def outputs(
    args: argparse.Namespace, *names: str, inputs: Iterable[Path | str | None] = ()
) -> dict[str, Output]:
    """The `Output` of every option of ``names`` that was given.

    inputs: what the command reads; None, and what is no file, counts for nothing.
    Raises RoiCodecError where one of them can not or must not be written.
    """
    read = [Path(path) for path in inputs if path is not None and Path(path).exists()]
    paths = {name: getattr(args, name) for name in names}
    return check_outputs(paths, force=args.force, inputs=read)


def positive(text: str) -> int:
    """An argument that is a whole number of 1 or more; for argparse's ``type``."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def not_negative(text: str) -> int:
    """An argument that is a whole number of 0 or more; for argparse's ``type``."""
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def image_size(text: str) -> tuple[int, int]:
    """``640x480`` as width and height; for argparse's ``type``."""
    width, _, height = text.lower().partition("x")
    return positive(width), positive(height)


# What argparse calls them when it refuses one.
positive.__name__ = "positive number"
not_negative.__name__ = "number of 0 or more"
image_size.__name__ = "size"


def positive_real(text: str) -> float:
    """An argument that is a number above 0; for argparse's ``type``."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def not_negative_real(text: str) -> float:
    """An argument that is a number of 0 or more; for argparse's ``type``."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


positive_real.__name__ = "positive number"
not_negative_real.__name__ = "number of 0 or more"


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises RoiCodecError."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise RoiCodecError(f"expected JSON in {path}; found: {error}") from error


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises RoiCodecError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RoiCodecError(f"expected a file at {path}; found: {error.strerror}") from error


def picture_bytes(image: np.ndarray, suffix: str) -> bytes:
    """uint8 [H, W, 3], RGB, as a file of that suffix (``.png``) holds it. Raises UsageError."""
    import cv2

    try:
        written, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        raise UsageError(f"expected a suffix such as .png or .jpg, found {suffix!r}")
    return stamped(data.tobytes())
