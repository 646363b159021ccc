# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs have, and types of arguments for argparse."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import TypeVar

from roi_codec_ros.common.output_files import Output, check_outputs

T = TypeVar("T", int, float)


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


def number(kind: Callable[[str], T], name: str, good: Callable[[T], bool]) -> Callable[[str], T]:
    """A type for argparse: a number that is ``good``. name: how it is called when refused."""

    def read(text: str) -> T:
        value = kind(text)
        if not good(value):
            raise ValueError(text)
        return value

    read.__name__ = name
    return read


positive = number(int, "positive number", lambda value: value >= 1)
not_negative = number(int, "number of 0 or more", lambda value: value >= 0)
positive_real = number(float, "positive number", lambda value: 0 < value < inf)
not_negative_real = number(float, "number of 0 or more", lambda value: 0 <= value < inf)


def image_size(text: str) -> tuple[int, int]:
    """``640x480`` as width and height; for argparse's ``type``."""
    width, _, height = text.lower().partition("x")
    return positive(width), positive(height)


image_size.__name__ = "size"  # what argparse calls it when it refuses one
