# SPDX-License-Identifier: Apache-2.0
"""What MCAP knows of a message beside its stamp: its number, and when it was published.

`rosbags` reads and writes neither; the records are those of its own reader and writer.
"""

from __future__ import annotations

import heapq
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import DECOMPRESSORS, McapReader, McapWriter

MESSAGE = 0x05
_RECORD = struct.Struct("<BQ")
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, recorded, published
_CHUNK = struct.Struct("<QQQII")  # first and last stamp, size, checksum, length of a name
_SEQUENCE_AT = _RECORD.size + 2
_PUBLISHED_AT = _SEQUENCE_AT + 4 + 8


class Publishing(NamedTuple):
    """sequence: of the publisher, 0 where it has none. published_ns: by its clock."""

    sequence: int
    published_ns: int


class Numbered(NamedTuple):
    """A message of a file."""

    stamp_ns: int
    place: int  # in the file, which decides between equal stamps
    channel: int
    publishing: Publishing
    content: bytes


def numbered_messages(reader: McapReader) -> Iterator[Numbered]:
    """The messages of an indexed file in the order of their stamps.

    Holds no more than the chunks whose times overlap. Raises ValueError, KeyError or struct.error
    where one is broken.
    """
    waiting: list[Numbered] = []
    place = 0
    for chunk in sorted(reader.chunks, key=lambda chunk: chunk.message_start_time):
        while waiting and waiting[0].stamp_ns < chunk.message_start_time:
            yield heapq.heappop(waiting)
        for channel, sequence, stamp_ns, published_ns, content in _messages(reader, chunk):
            place += 1
            publishing = Publishing(sequence, published_ns)
            heapq.heappush(waiting, Numbered(stamp_ns, place, channel, publishing, content))
    while waiting:
        yield heapq.heappop(waiting)


def _messages(reader: McapReader, chunk: Any) -> Iterator[tuple[int, int, int, int, bytes]]:
    assert reader.bio is not None
    reader.bio.seek(chunk.chunk_start_offset + _RECORD.size)
    record = reader.bio.read(chunk.chunk_length - _RECORD.size)
    _, _, size, checksum, name = _CHUNK.unpack_from(record)
    start = _CHUNK.size + name + 8
    records = DECOMPRESSORS[chunk.compression](
        record[start : start + chunk.compressed_size], chunk.uncompressed_size
    )
    if len(records) != size or (checksum and zlib.crc32(records) != checksum):
        raise ValueError("a chunk whose checksum is another")
    place = 0
    while place < size:
        kind, length = _RECORD.unpack_from(records, place)
        place += _RECORD.size
        if kind == MESSAGE:
            values = _MESSAGE.unpack_from(records, place)
            yield *values, records[place + _MESSAGE.size : place + length]
        place += length


@dataclass
class _Change:
    place: int
    publishing: Publishing


class _NumberedStorage(McapWriter):
    """Writes what it is told of the next message into its record, before the chunk is closed."""

    def __init__(self, path: Path, compression: Any) -> None:
        super().__init__(path, compression)
        self.next: Publishing | None = None
        self._changes: list[_Change] = []

    def write(self, connection: Any, timestamp: int, data: bytes | memoryview) -> None:
        if self.next is not None:
            self._changes.append(_Change(self.chunk.bio.tell(), self.next))
            self.next = None
        super().write(connection, timestamp, data)

    def close_chunk(self) -> None:
        self._write_changes(self.chunk.bio)
        super().close_chunk()

    def _write_changes(self, records: BytesIO) -> None:
        view = records.getbuffer()
        for change in self._changes:
            sequence, published_ns = change.publishing
            struct.pack_into("<I", view, change.place + _SEQUENCE_AT, sequence)
            struct.pack_into("<Q", view, change.place + _PUBLISHED_AT, published_ns)
        view.release()
        self._changes.clear()


class NumberedWriter(Writer):
    """A writer of ROS 2 bags that keeps, in MCAP, how messages were published."""

    STORAGE_PLUGINS: Mapping[StoragePlugin, Any] = {
        **Writer.STORAGE_PLUGINS,
        StoragePlugin.MCAP: _NumberedStorage,
    }

    def tell(self, publishing: Publishing | None) -> None:
        """How the next message was published; None: when it was recorded."""
        if isinstance(self.storage, _NumberedStorage):
            self.storage.next = publishing
