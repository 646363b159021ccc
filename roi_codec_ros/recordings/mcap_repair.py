# SPDX-License-Identifier: Apache-2.0
"""What `rosbags` does not tell of an MCAP file: where a broken one ends, and its attachments."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from roi_codec_ros.common.errors import RoiCodecError

MAGIC = b"\x89MCAP0\r\n"
FOOTER, ATTACHMENT, ATTACHMENT_INDEX, DATA_END = 0x02, 0x09, 0x0A, 0x0F
_FOOTER_BYTES = 9 + 20 + len(MAGIC)
_HEAD = struct.Struct("<BQ")
# An end without a summary: what is before it has to be read to know what is in it.
_END = _HEAD.pack(DATA_END, 4) + bytes(4) + _HEAD.pack(FOOTER, 20) + bytes(20) + MAGIC


def without_broken_end(path: Path, target: Path) -> tuple[int, int]:
    """Copy an MCAP file as far as its records are whole; how many bytes of how many that is.

    Raises RoiCodecError where it is none at all.
    """
    size = path.stat().st_size
    end = len(MAGIC)
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise RoiCodecError(f"expected an MCAP file at {path}, found none")
        for kind, start, length in _records(file, len(MAGIC), size):
            if kind in (DATA_END, FOOTER):
                break
            end = start + length
        file.seek(0)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.truncate(end)
            copy.seek(end)
            copy.write(_END)
    return end, size


def attachments(path: Path) -> list[str]:
    """Names of the attachments of an MCAP file; none where its summary can not be read."""
    names = []
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - _FOOTER_BYTES))
            footer = file.read(_FOOTER_BYTES)
            (summary,) = struct.unpack_from("<Q", footer, 9)
            if not footer.endswith(MAGIC) or footer[0] != FOOTER or not 0 < summary < size:
                return []
            for kind, start, length in _records(file, summary, size):
                if kind == ATTACHMENT_INDEX:
                    file.seek(start + 9 + 40)  # behind offsets, times and sizes
                    content = file.read(length - 9 - 40)
                    (count,) = struct.unpack_from("<I", content)
                    names.append(content[4 : 4 + count].decode("utf-8", "replace"))
    except (OSError, struct.error, IndexError):
        return names
    return names


def _records(file: BinaryIO, place: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Kind, start and length of each whole record from a place on."""
    while place + _HEAD.size <= size:
        file.seek(place, os.SEEK_SET)
        kind, content = _HEAD.unpack(file.read(_HEAD.size))
        if kind == 0 or place + _HEAD.size + content > size:
            return
        yield kind, place, _HEAD.size + content
        place += _HEAD.size + content
