# SPDX-License-Identifier: Apache-2.0
"""What an MCAP file contains besides messages: attachments of any kind, and metadata."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.recordings.mcap_repair import (
    ATTACHMENT,
    ATTACHMENT_INDEX,
    DATA_END,
    FOOTER,
    HEAD,
    MAGIC,
    METADATA,
    METADATA_INDEX,
    records,
    summary_start,
)

OWN_METADATA = "rosbag2"  # which every bag writer creates itself
STATISTICS, SUMMARY_OFFSET = 0x0B, 0x0E
_PIECE_BYTES = 1 << 20
_LENGTH = struct.Struct("<I")
_DATA_END = HEAD.pack(DATA_END, 4) + bytes(4)
# Where statistics count attachments and metadata.
_COUNT_AT = {ATTACHMENT_INDEX: 14, METADATA_INDEX: 18}


@dataclass(frozen=True)
class Extra:
    """A record of a file, and how the file's index describes it, but for its place."""

    path: Path
    start: int
    length: int
    kind: int
    name: str
    description: bytes

    @property
    def is_attachment(self) -> bool:
        """Whether it is an attachment; else it is metadata."""
        return self.kind == ATTACHMENT_INDEX


def extras(path: Path) -> list[Extra]:
    """Attachments and metadata of an MCAP file; none where its summary cannot be read."""
    found = []
    try:
        with path.open("rb") as file:
            for kind, start, length in records(file, summary_start(file), path.stat().st_size):
                if kind not in (ATTACHMENT_INDEX, METADATA_INDEX):
                    continue
                file.seek(start + HEAD.size)
                content = file.read(length - HEAD.size)
                place, size = struct.unpack_from("<QQ", content)
                # Behind the place: three numbers of an attachment, then its name.
                name_at = 40 if kind == ATTACHMENT_INDEX else 16
                (count,) = _LENGTH.unpack_from(content, name_at)
                name = content[name_at + 4 : name_at + 4 + count].decode("utf-8", "replace")
                found.append(Extra(path, place, size, kind, name, content[16:]))
    except (OSError, struct.error, RoiCodecError):
        return found
    return found


def add_extras(path: Path, added: Sequence[Extra]) -> None:
    """Copy records into a whole MCAP file, and into its index. Raises OSError, RoiCodecError."""
    with path.open("r+b") as file:
        summary = summary_start(file)
        size = file.seek(0, os.SEEK_END)
        held = []
        for kind, start, length in records(file, summary, size):
            if kind not in (SUMMARY_OFFSET, FOOTER):
                file.seek(start)
                held.append((kind, file.read(length)))
        file.seek(summary - len(_DATA_END))
        for extra in added:
            place = file.tell()
            _copy(extra, file)
            content = struct.pack("<QQ", place, extra.length) + extra.description
            held.append((extra.kind, HEAD.pack(extra.kind, len(content)) + content))
        file.write(_DATA_END)
        held = [(k, _counted(r, added) if k == STATISTICS else r) for k, r in held]
        _write_summary(file, held)
        file.truncate()


def _write_summary(file: BinaryIO, held: list[tuple[int, bytes]]) -> None:
    start, offsets = file.tell(), []
    for kind, group in groupby(sorted(held, key=lambda item: item[0]), key=lambda item: item[0]):
        place = file.tell()
        file.write(b"".join(record for _, record in group))
        offsets.append(struct.pack("<BQQ", kind, place, file.tell() - place))
    offsets_start = file.tell()
    for content in offsets:
        file.write(HEAD.pack(SUMMARY_OFFSET, len(content)) + content)
    file.write(HEAD.pack(FOOTER, 20) + struct.pack("<QQI", start, offsets_start, 0) + MAGIC)


def _counted(record: bytes, added: Sequence[Extra]) -> bytes:
    changed = bytearray(record)
    for kind, offset in _COUNT_AT.items():
        place = HEAD.size + offset
        (count,) = _LENGTH.unpack_from(changed, place)
        _LENGTH.pack_into(changed, place, count + sum(extra.kind == kind for extra in added))
    return bytes(changed)


def _copy(extra: Extra, target: BinaryIO) -> None:
    wanted = ATTACHMENT if extra.is_attachment else METADATA
    with extra.path.open("rb") as source:
        source.seek(extra.start)
        left = extra.length
        first = True
        while left:
            piece = source.read(min(left, _PIECE_BYTES))
            if not piece or (first and piece[0] != wanted):
                raise RoiCodecError(
                    f"expected the record {extra.name!r} in {extra.path}, found none"
                )
            target.write(piece)
            left, first = left - len(piece), False
