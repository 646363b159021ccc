# SPDX-License-Identifier: Apache-2.0
"""Bags of ROS 1 and ROS 2, read as far as they go."""

from __future__ import annotations

import sqlite3
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.recordings.jpegs import INSTALL
from roi_codec_ros.recordings.mcap_extras import OWN_METADATA, Extra, extras
from roi_codec_ros.recordings.mcap_repair import without_broken_end
from roi_codec_ros.recordings.parts import REPAIRED
from roi_codec_ros.recordings.ros1_repair import with_new_index
from roi_codec_ros.recordings.sqlite_repair import closed, is_unclosed, without_broken_rows

if TYPE_CHECKING:
    from roi_codec_ros.recordings.mcap_messages import Publishing

ROS1_SUFFIXES = (".bag", ".active")  # .bag.active: the recorder was killed
BAG_SUFFIXES = (".mcap", ".db3", *ROS1_SUFFIXES)


def is_bag(path: Path) -> bool:
    """Whether a path has the suffix of a bag, or is a folder with one."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or bool(_storage_files(path))
    return path.suffix.lower() in BAG_SUFFIXES


def _storage_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in (".mcap", ".db3"))


class Bag:
    """A bag that is open; a context manager.

    Attributes:
        is_ros1: whether it is one of ROS 1.
        storage: "mcap", "sqlite3" or "bag".
        connections: what it holds, each (topic, type, way of publishing) once.
        typestore: of `rosbags`, with all types that the bag defines.
        notes: what had to be left out to read it at all.
        message_count: as the bag says.
        is_compressed: whether its messages are.
        extras: attachments and metadata of MCAP files, but for those that every bag has.
        publishing: how the message was published that `messages` gave last, where that is known.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        """scratch: a folder for a copy of a file whose end is broken. Raises RoiCodecError."""
        self.path = path
        self._rosbag1 = _rosbags("rosbags.rosbag1")
        self._rosbag2 = _rosbags("rosbags.rosbag2")
        self._typesys = _rosbags("rosbags.typesys")
        self.notes: list[str] = []
        self.extras: list[Extra] = []
        self.publishing: Publishing | None = None
        self._scratch = scratch
        self.is_ros1 = path.suffix.lower() in ROS1_SUFFIXES
        self._errors = (
            self._rosbag1.ReaderError,
            self._rosbag2.ReaderError,
            OSError,
            AssertionError,
            struct.error,
            ValueError,
            TypeError,
            KeyError,
            EOFError,
            *_database_errors(),
        )
        self._readers = self._opened()
        self.storage = self._storage()
        self.connections: list[Any] = []
        self._numbers: dict[tuple[int, int], int] = {}
        for place, reader in enumerate(self._readers):
            for connection in reader.connections:
                self._numbers[place, connection.id] = self._number(connection)
        self.message_count = sum(reader.message_count for reader in self._readers)
        self.is_compressed = any(_is_compressed(reader) for reader in self._readers)
        stores = self._typesys.Stores
        known = stores.ROS1_NOETIC if self.is_ros1 else stores.LATEST
        self.typestore = self._typesys.get_typestore(known)
        for connection in self.connections:
            self._learn(connection)

    def messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Number of the connection, stamp of the recording in ns, content; in order of time.

        `publishing` is that of the last one. A broken end ends it, with a note.
        """
        count = 0
        for place, reader in enumerate(self._readers):
            try:
                for message in self._of(place, reader):
                    count += 1
                    yield message
            except self._errors as error:
                self.notes.append(
                    f"the bag is broken after {count} messages, which are kept: {reason_of(error)}"
                )

    def _of(self, place: int, reader: Any) -> Iterator[tuple[int, int, bytes]]:
        files = getattr(getattr(reader, "storage", None), "storages", None) or [
            getattr(reader, "storage", None)
        ]
        if not all(getattr(file, "chunks", None) for file in files) or reader.compression_format:
            for connection, stamp_ns, content in reader.messages():
                yield self._numbers[place, connection.id], stamp_ns, content
            return
        from roi_codec_ros.recordings.mcap_messages import numbered_messages

        for file in files:
            numbers = {connection.id: self._number(connection) for connection in file.connections}
            for message in numbered_messages(file):
                self.publishing = message.publishing
                yield numbers[message.channel], message.stamp_ns, message.content

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> list[Any]:
        if self.is_ros1:
            return [self._open_file(self.path)]
        if not self.path.is_dir():
            return [self._open_file(self.path)]
        if (self.path / "metadata.yaml").is_file():
            self._find_extras(_storage_files(self.path))
            try:
                return [self._open_one(self._rosbag2.Reader, self.path)]
            except RoiCodecError as error:
                self.notes.append(f"its files are read one by one, since it is broken: {error}")
        files = _storage_files(self.path)
        if not files:
            raise RoiCodecError(f"expected a bag at {self.path}, found no file of one")
        return [self._open_file(path) for path in files]

    def _open_file(self, path: Path) -> Any:
        self._find_extras([path])
        reader = self._rosbag1.Reader if self.is_ros1 else self._rosbag2.Reader
        repaired = self._scratch / f"{REPAIRED}{path.name}"
        if path.suffix == ".db3" and is_unclosed(path):
            closed(path, repaired)
            self.notes.append(f"{path.name} was not closed; its journal files are read, too")
            path, repaired = repaired, repaired.with_name(f"again_{repaired.name}")
        try:
            return self._open_one(reader, path)
        except RoiCodecError as error:
            kept, whole = self._repair(path, repaired)
            self.notes.append(
                f"{path.name} is broken after {kept} of {whole} bytes, which are kept ({error})"
            )
            return self._open_one(reader, repaired)

    def _repair(self, path: Path, target: Path) -> tuple[int, int]:
        """Copy what is whole of a file; its bytes, and those of all."""
        if self.is_ros1:
            from rosbags.rosbag1.reader import decompressors

            return with_new_index(path, target, decompressors)
        if path.suffix == ".mcap":
            return without_broken_end(path, target)
        return without_broken_rows(path, target)

    def _open_one(self, reader: Any, path: Path) -> Any:
        try:
            opened = reader(path)
            opened.open()
        except Exception as error:  # sqlite3's and YAML's own among them
            raise RoiCodecError(f"expected a bag at {path}; found: {reason_of(error)}") from error
        return opened

    def _find_extras(self, files: Sequence[Path]) -> None:
        for path in files:
            found = extras(path) if path.suffix == ".mcap" else []
            self.extras += [extra for extra in found if extra.name != OWN_METADATA]

    def _storage(self) -> str:
        if self.is_ros1:
            return "bag"
        path = self.path if self.path.is_file() else next(iter(_storage_files(self.path)), None)
        return "mcap" if path is not None and path.suffix == ".mcap" else "sqlite3"

    def _number(self, connection: Any) -> int:
        for number, known in enumerate(self.connections):
            if (known.topic, known.msgtype, known.ext) == (
                connection.topic,
                connection.msgtype,
                connection.ext,
            ):
                return number
        self.connections.append(connection)
        return len(self.connections) - 1

    def _learn(self, connection: Any) -> None:
        """Let the typestore know the types that a connection defines."""
        definition = connection.msgdef
        try:
            if definition.format.name == "MSG":
                types = self._typesys.get_types_from_msg(definition.data, connection.msgtype)
            elif definition.format.name == "IDL":
                types = {}
                line = "=" * 80 + "\n"
                for part in definition.data.split(line):
                    text = part.split("\n", 1)[1] if part.startswith("IDL: ") else part
                    if text.strip():
                        types.update(self._typesys.get_types_from_idl(text))
            else:
                return
            new = {k: v for k, v in types.items() if k not in self.typestore.fielddefs}
            self.typestore.register(new)
        except (self._typesys.TypesysError, ValueError) as error:
            self.notes.append(
                f"the definition of {connection.msgtype} cannot be read: {reason_of(error)}"
            )


def _rosbags(module: str) -> Any:
    return optional(module, needed_for="bags", install=INSTALL)


def _database_errors() -> list[type[Exception]]:
    """Of whatever `rosbags` reads SQLite with."""
    apsw = sys.modules.get("apsw")
    return [sqlite3.Error, *([apsw.Error] if apsw else [])]


def _is_compressed(reader: Any) -> bool:
    storage = getattr(reader, "storage", None)
    if getattr(reader, "compression_mode", None):
        return True
    files = getattr(storage, "storages", [storage])
    return any(chunk.compression for file in files for chunk in getattr(file, "chunks", [])[:1])
