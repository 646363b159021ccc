# SPDX-License-Identifier: Apache-2.0
"""The records of MCAP files, and where a broken one ends."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from roi_codec_ros.common.errors import RoiCodecError

MAGIC = b"\x89MCAP0\r\n"
FOOTER, DATA_END = 0x02, 0x0F
ATTACHMENT, ATTACHMENT_INDEX, METADATA, METADATA_INDEX = 0x09, 0x0A, 0x0C, 0x0D
_FOOTER_BYTES = 9 + 20 + len(MAGIC)
HEAD = struct.Struct("<BQ")
# An end without a summary: what is before it has to be read to know what is in it.
_END = HEAD.pack(DATA_END, 4) + bytes(4) + HEAD.pack(FOOTER, 20) + bytes(20) + MAGIC


def without_broken_end(path: Path, target: Path) -> tuple[int, int]:
    """Copy the complete records of an MCAP file; returns the number of bytes copied and in total.

    Raises RoiCodecError if it is not an MCAP file.
    """
    size = path.stat().st_size
    end = len(MAGIC)
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise RoiCodecError(f"expected an MCAP file at {path}, found none")
        for kind, start, length in records(file, len(MAGIC), size):
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


def summary_start(file: BinaryIO) -> int:
    """Offset of the summary of a complete MCAP file. Raises RoiCodecError if there is none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _FOOTER_BYTES))
    footer = file.read(_FOOTER_BYTES)
    if len(footer) < _FOOTER_BYTES or not footer.endswith(MAGIC) or footer[0] != FOOTER:
        raise RoiCodecError("expected the end of an MCAP file, found none")
    (summary,) = struct.unpack_from("<Q", footer, HEAD.size)
    if not 0 < summary < size:
        raise RoiCodecError("expected an MCAP file with a summary, found none")
    return int(summary)


def records(file: BinaryIO, place: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Kind, start and length of each whole record from a place on."""
    while place + HEAD.size <= size:
        file.seek(place, os.SEEK_SET)
        kind, content = HEAD.unpack(file.read(HEAD.size))
        if kind == 0 or place + HEAD.size + content > size:
            return
        yield kind, place, HEAD.size + content
        place += HEAD.size + content
