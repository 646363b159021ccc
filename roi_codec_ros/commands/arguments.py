# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs have, and types of arguments for argparse."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from roi_codec_ros.common.output_files import Output, check_outputs


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """``--json FILE``: the result for machines."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def add_force_option(parser: argparse.ArgumentParser) -> None:
    """``--force``: replace also what roi-codec did not make."""
    parser.add_argument(
        "--force", action="store_true", help="also replace files that roi-codec did not make"
    )


def outputs(
    args: argparse.Namespace, *names: str, inputs: Iterable[Path | str | None] = ()
) -> dict[str, Output]:
    """The `Output` of every option of ``names`` that was given.

    inputs: what the command reads; None, and what is no file, counts for nothing.
    Raises RoiCodecError where one of them cannot or must not be written.
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
