# SPDX-License-Identifier: Apache-2.0
"""What a bench measures on: photographs and backends, those that were named or those at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from roi_codec_ros.codec.backends import AUTO, BACKENDS
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import PhotographError, left_out, photographs_in, readable
from roi_codec_ros.lab.simulation.photograph_cameras import installed_shots
from roi_codec_ros.lab.tools.encode_bench import INT8_BACKENDS

Say = Callable[[str], None]
DEFAULT_PHOTOGRAPHS = ("astronaut", "coffee", "rocket")  # of scikit-image


def codec_photographs(folder: Path | None, most: int, say: Say) -> list[ImageArray]:
    """The first of a folder that can be read, else scikit-image's; RGB.

    say: gets a sentence on those that cannot. Raises RoiCodecError where there is none.
    """
    if folder is not None:
        return _readable(photographs_in(folder), folder, most, say)
    try:
        from skimage import data
    except ImportError as error:
        raise UsageError(
            "expected photographs to measure on: --images DIR, or scikit-image installed"
        ) from error
    return [getattr(data, name)() for name in DEFAULT_PHOTOGRAPHS[:most]]


def server_photographs(folder: Path | None, most: int, say: Say) -> list[ImageArray]:
    """As `codec_photographs`, but without a folder those of the cameras of a demo."""
    if folder is not None:
        return _readable(photographs_in(folder), folder, most, say)
    bundled = list(dict.fromkeys(shot.photograph for shot in installed_shots()))
    return _readable(bundled, None, most, say)


def _readable(paths: Sequence[Path], folder: Path | None, most: int, say: Say) -> list[ImageArray]:
    broken: list[PhotographError] = []
    photographs = list(islice(readable(paths, broken), most))
    for sentence in left_out(broken, len(paths)):
        say(sentence)
    if not photographs:
        raise RoiCodecError(f"expected photographs in {folder}, found none that can be read")
    return photographs


def codec_backends(named: Sequence[str] | None) -> tuple[str, ...]:
    """Those named, else all whose runtime is installed. Raises UsageError for an unknown one."""
    known = (*(name for name in BACKENDS if name != AUTO), *INT8_BACKENDS)
    for name in named or ():
        if name not in known:
            raise UsageError(f"expected backends among {', '.join(known)}; found {name!r}")
    installed = (name for name in known if find_spec(name.partition("-")[0]) is not None)
    return tuple(named or installed)
