# SPDX-License-Identifier: Apache-2.0
"""What a bench measures on: photographs and backends, those that were named or those at hand."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from roi_codec_ros.codec.backends import AUTO, BACKENDS
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import first_readable, photographs_in
from roi_codec_ros.lab.simulation.photograph_cameras import installed_shots
from roi_codec_ros.lab.tools.encode_bench import INT8_BACKENDS

DEFAULT_PHOTOGRAPHS = ("astronaut", "coffee", "rocket")  # of scikit-image


def codec_photographs(folder: Path | None, most: int) -> tuple[list[ImageArray], list[str]]:
    """Those of a folder, else scikit-image's, and what to say of those that cannot be read.

    Raises RoiCodecError where there is none.
    """
    if folder is not None:
        return _some_of(photographs_in(folder), folder, most)
    try:
        from skimage import data
    except ImportError as error:
        raise UsageError(
            "expected photographs to measure on: --images DIR, or scikit-image installed"
        ) from error
    return [getattr(data, name)() for name in DEFAULT_PHOTOGRAPHS[:most]], []


def server_photographs(folder: Path | None, most: int) -> tuple[list[ImageArray], list[str]]:
    """As `codec_photographs`, but without a folder those of the cameras of a demo."""
    if folder is not None:
        return _some_of(photographs_in(folder), folder, most)
    bundled = list(dict.fromkeys(shot.photograph for shot in installed_shots()))
    return _some_of(bundled, None, most)


def _some_of(
    paths: Sequence[Path], folder: Path | None, most: int
) -> tuple[list[ImageArray], list[str]]:
    photographs, said = first_readable(paths, most)
    if not photographs:
        raise RoiCodecError(f"expected photographs in {folder}, found none that can be read")
    return photographs, said


def codec_backends(named: Sequence[str] | None) -> tuple[str, ...]:
    """Those named, else all whose runtime is installed. Raises UsageError for an unknown one."""
    known = (*(name for name in BACKENDS if name != AUTO), *INT8_BACKENDS)
    for name in named or ():
        if name not in known:
            raise UsageError(f"expected backends among {', '.join(known)}; found {name!r}")
    installed = (name for name in known if find_spec(name.partition("-")[0]) is not None)
    return tuple(named or installed)
