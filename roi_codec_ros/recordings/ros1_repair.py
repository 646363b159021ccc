# SPDX-License-Identifier: Apache-2.0
"""Truncated ROS 1 bags, as of a killed recorder: the index is rebuilt.

    "#ROSBAG V2.0\\n", bag header ─► (chunk, index of it)… ─► connections, chunk infos

All that is not whole is left out. See https://wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from roi_codec_ros.common.errors import RoiCodecError

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, BAG_HEADER, INDEX, CHUNK, CHUNK_INFO, CONNECTION = 2, 3, 4, 5, 6, 7
_LENGTH = struct.Struct("<I")
Decompress = Mapping[str, Callable[[bytes], bytes]]


class _Broken(ValueError):
    """Bytes that are no whole record."""


@dataclass
class _Chunk:
    """What is in one: times (8 bytes as stored) and places of the messages of each connection."""

    place: int
    index: dict[int, list[tuple[bytes, int]]] = field(default_factory=dict)

    def index_records(self) -> bytes:
        return b"".join(
            _record(
                {
                    "op": _byte(INDEX),
                    "ver": _u32(1),
                    "conn": _u32(conn),
                    "count": _u32(len(found)),
                },
                b"".join(stamp + _u32(place) for stamp, place in found),
            )
            for conn, found in self.index.items()
        )

    def info_record(self) -> bytes:
        stamps = [stamp for found in self.index.values() for stamp, _ in found] or [bytes(8)]
        stamps.sort(key=lambda stamp: struct.unpack("<II", stamp))
        head = {
            "op": _byte(CHUNK_INFO),
            "ver": _u32(1),
            "chunk_pos": struct.pack("<Q", self.place),
            "start_time": stamps[0],
            "end_time": stamps[-1],
            "count": _u32(len(self.index)),
        }
        return _record(
            head, b"".join(_u32(conn) + _u32(len(found)) for conn, found in self.index.items())
        )


def with_new_index(path: Path, target: Path, decompress: Decompress) -> tuple[int, int]:
    """Copy a bag's whole chunks and index them; how many bytes of how many they are.

    decompress: by the name of a compression. Raises RoiCodecError where it is no such bag.
    """
    size = path.stat().st_size
    chunks: list[_Chunk] = []
    connections: dict[int, bytes] = {}
    with path.open("rb") as file:
        try:
            if file.read(len(MAGIC)) != MAGIC:
                raise _Broken
            head, data, end = _read_record(file, size)
            if head.get("op") != _byte(BAG_HEADER):
                raise _Broken
        except _Broken:
            raise RoiCodecError(f"expected a bag of ROS 1 at {path}, found none") from None
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            copy.write(MAGIC + _record(head, data))
            for chunk_head, content, chunk_end in _chunks(file, size):
                chunk = _Chunk(copy.tell())
                try:
                    _look_into(chunk, chunk_head, content, decompress, connections)
                except Exception:  # noqa: BLE001  # whatever broken bytes do to a decompressor
                    break
                copy.write(_record(chunk_head, content) + chunk.index_records())
                chunks.append(chunk)
                end = chunk_end
            counts = {"conn_count": _u32(len(connections)), "chunk_count": _u32(len(chunks))}
            place = {"index_pos": struct.pack("<Q", copy.tell())}
            copy.write(b"".join(connections.values()))
            copy.write(b"".join(chunk.info_record() for chunk in chunks))
            copy.seek(len(MAGIC))
            copy.write(_record({**head, **place, **counts}, data))
    return end, size


def _chunks(file: BinaryIO, size: int) -> Iterator[tuple[dict[str, bytes], bytes, int]]:
    """Head, content and end of each whole chunk."""
    while True:
        try:
            head, content, end = _read_record(file, size)
        except _Broken:
            return
        if head.get("op") == _byte(CHUNK):
            yield head, content, end
        elif head.get("op") != _byte(INDEX):
            return


def _look_into(
    chunk: _Chunk,
    head: Mapping[str, bytes],
    content: bytes,
    decompress: Decompress,
    connections: dict[int, bytes],
) -> None:
    """Note a chunk's messages, and the records of connections that were not known yet."""
    inner = decompress[head["compression"].decode()](content)
    found: dict[int, bytes] = {}
    place = 0
    while place < len(inner):
        fields, end = _split_record(inner, place)
        (conn,) = _LENGTH.unpack(fields["conn"])
        if fields["op"] == _byte(CONNECTION):
            found.setdefault(conn, inner[place:end])
        elif fields["op"] == _byte(MESSAGE) and len(fields["time"]) == 8:
            chunk.index.setdefault(conn, []).append((fields["time"], place))
        place = end
    if not chunk.index.keys() <= connections.keys() | found.keys():
        raise _Broken
    for conn, record in found.items():
        connections.setdefault(conn, record)


def _read_record(file: BinaryIO, size: int) -> tuple[dict[str, bytes], bytes, int]:
    """Head, data and end of the next record. Raises _Broken where it is not whole."""
    parts = []
    for _ in range(2):
        length = file.read(_LENGTH.size)
        if len(length) < _LENGTH.size or file.tell() + _LENGTH.unpack(length)[0] > size:
            raise _Broken
        parts.append(file.read(_LENGTH.unpack(length)[0]))
    return _fields(parts[0]), parts[1], file.tell()


def _split_record(data: bytes, place: int) -> tuple[dict[str, bytes], int]:
    """Head of the record at a place, and its end. Raises _Broken."""
    parts = []
    for _ in range(2):
        if place + _LENGTH.size > len(data):
            raise _Broken
        start = place + _LENGTH.size
        place = start + _LENGTH.unpack_from(data, place)[0]
        if place > len(data):
            raise _Broken
        parts.append(slice(start, place))
    return _fields(data[parts[0]]), place


def _fields(head: bytes) -> dict[str, bytes]:
    fields = {}
    place = 0
    while place < len(head):
        if place + _LENGTH.size > len(head):
            raise _Broken
        (length,) = _LENGTH.unpack_from(head, place)
        place += _LENGTH.size + length
        name, _, value = head[place - length : place].partition(b"=")
        fields[name.decode("ascii", "replace")] = value
        if place > len(head):
            raise _Broken
    return fields


def _record(head: Mapping[str, bytes], data: bytes) -> bytes:
    parts = [name.encode("ascii") + b"=" + value for name, value in head.items()]
    fields = b"".join(_u32(len(part)) + part for part in parts)
    return _u32(len(fields)) + fields + _u32(len(data)) + data


def _u32(value: int) -> bytes:
    return _LENGTH.pack(value)


def _byte(value: int) -> bytes:
    return bytes([value])
