# SPDX-License-Identifier: Apache-2.0
"""Bags are written in parts next to their target, and moved there when complete.

A bag is written in files of `PART_BYTES`; those that are whole are kept when a run is killed, and
the next one goes on behind them. A bag that is one file is put together from them at the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import GENERATOR, is_ours
from roi_codec_ros.recordings.bag_reading import Bag
from roi_codec_ros.recordings.mcap_extras import Extra, add_extras
from roi_codec_ros.recordings.parts import PartsFolder

if TYPE_CHECKING:
    from roi_codec_ros.recordings.mcap_messages import Publishing

PART_BYTES = 1 << 30
MCAP = "mcap"
METADATA = "metadata.yaml"
INFORMATION = "rosbag2_bagfile_information"
UNKNOWN_HASH = "RIHS01_" + "0" * 64


@dataclass(frozen=True)
class Channel:
    """A topic that is written. source: whose type, if it keeps it, and way of publishing it has.

    msgtype, definition: those of the source, unless it becomes another.
    """

    source: Any
    msgtype: str
    definition: str | None = None


class PartsWriter:
    """Writes the messages of a bag; what was whole before a kill is not written again."""

    def __init__(self, target: Path, bag: Bag, channels: Sequence[Channel], told: str) -> None:
        """told: what tells this bag and these settings from others. Raises RoiCodecError."""
        self.target = target
        self._bag = bag
        self._channels = channels
        self._is_folder = not bag.is_ros1 and target.suffix not in (".mcap", ".db3")
        self._parts = PartsFolder(target, told)
        self._open_part = ""
        self._writer: Any = None
        self._connections: list[Any] = []
        self._written_bytes = 0

    @property
    def state(self) -> dict[str, Any]:
        """What `step` was told with the last whole part, also by an earlier run."""
        return self._parts.state

    @property
    def messages_done(self) -> int:
        """Messages of the source that need not be looked at again."""
        return int(self.state.get("messages_done", 0))

    @property
    def storage(self) -> str:
        """As of `Bag`."""
        suffixes = {".mcap": MCAP, ".db3": "sqlite3"}
        return str(suffixes.get(self.target.suffix, self._bag.storage))

    def write(
        self,
        number: int,
        stamp_ns: int,
        content: bytes | memoryview,
        publishing: Publishing | None = None,
    ) -> None:
        """Write a message of a channel. publishing: how it was, where that is known."""
        if self._writer is None:
            self._begin_part()
        if publishing is not None and not self._bag.is_ros1:
            self._writer.tell(publishing)
        self._writer.write(self._connections[number], stamp_ns, content)
        self._written_bytes += len(content)

    def step(self, messages_done: int, stamp_ns: int, tell: Callable[[], dict[str, Any]]) -> None:
        """A message of the source is dealt with, and all before it; may be the end of a part.

        tell: what to remember with the part, for JSON.
        """
        if self._written_bytes < PART_BYTES:
            return
        self._end_part()
        self._parts.remember({"messages_done": messages_done, "stamp_ns": stamp_ns, **tell()})

    def finish(self, extras: Sequence[Extra] = ()) -> None:
        """Put the bag in its place. extras: what is copied into an MCAP file beside messages."""
        folder, names = self._parts.path, self._parts.names
        if self._writer is None and not names:
            self._begin_part()
        if self._writer is not None:
            self._end_part()
        if not self._is_folder and len(names) > 1:
            self._join_in_one_file()
        for path in sorted((folder / names[-1]).glob("*.mcap")) if extras else []:
            add_extras(path, extras)
        if not self._is_folder:
            part = folder / names[0]
            files = [part] if part.is_file() else [p for p in part.iterdir() if p.name != METADATA]
            os.replace(files[0], self.target)
        else:
            whole = folder / "whole"
            self._join(whole)
            if self.target.exists():
                shutil.rmtree(self.target)
            os.replace(whole, self.target)
        self._parts.remove()

    def abandon(self) -> None:
        """Close what is open; keep only what another run can continue from."""
        writer, self._writer = self._writer, None
        if writer is not None and hasattr(writer, "abort"):
            writer.abort()
        elif writer is not None and writer.bio is not None:
            writer.bio.close()
        self._parts.abandon()

    def _begin_part(self, name: str = "") -> None:
        stem = self.target.name if self._is_folder else self.target.stem
        suffix = self.target.suffix if self._bag.is_ros1 else ""
        name = name or f"{stem}_{len(self._parts.names)}{suffix}"
        path = self._parts.path / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        if self._bag.is_ros1:
            from rosbags.rosbag1 import Writer as Writer1

            self._writer = Writer1(path)
        else:
            self._writer = self._ros2_writer(path)
        self._writer.open()
        self._open_part = name
        self._connections = [self._connection(channel) for channel in self._channels]
        self._written_bytes = 0

    def _ros2_writer(self, path: Path) -> Any:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin

        from roi_codec_ros.recordings.mcap_messages import NumberedWriter

        storage = self.storage
        writer = NumberedWriter(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        writer.set_custom_data("generator", GENERATOR)
        if self._bag.is_compressed and storage == MCAP:
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        return writer

    def _connection(self, channel: Channel) -> Any:
        source, store = channel.source, self._bag.typestore
        same = channel.msgtype == source.msgtype
        definition = source.msgdef.data if same else channel.definition
        if self._bag.is_ros1:
            digest = source.digest if same else store.generate_msgdef(channel.msgtype)[1]
            return self._writer.add_connection(
                source.topic,
                channel.msgtype,
                msgdef=definition,
                md5sum=digest,
                callerid=source.ext.callerid,
                latching=source.ext.latching,
            )
        digest = source.digest if same else ""
        if not digest:
            try:
                digest = store.hash_rihs01(channel.msgtype)
            except Exception:  # noqa: BLE001  # of a type that nobody defines
                digest = UNKNOWN_HASH
        if not definition and channel.msgtype in store.fielddefs:
            definition, _ = store.generate_msgdef(channel.msgtype, ros_version=2)
        return self._writer.add_connection(
            source.topic,
            channel.msgtype,
            msgdef=definition or "",
            rihs01=digest,
            serialization_format=source.ext.serialization_format,
            offered_qos_profiles=source.ext.offered_qos_profiles,
        )

    def _end_part(self) -> None:
        writer, self._writer = self._writer, None
        writer.close()
        self._parts.names.append(self._open_part)
        self._written_bytes = 0

    def _join_in_one_file(self) -> None:
        """All messages of all parts in another one, which is the only one then."""
        folder, names = self._parts.path, list(self._parts.names)
        self._parts.names.clear()
        self._begin_part("whole.bag" if self._bag.is_ros1 else "whole")
        for name in names:
            with Bag(folder / name, folder) as part:
                for number, stamp_ns, content in part.messages():
                    self.write(number, stamp_ns, content, part.publishing)
        self._end_part()

    def _join(self, whole: Path) -> None:
        """All parts as one folder: files side by side, and metadata that names them."""
        from ruamel.yaml import YAML

        yaml = YAML(typ="safe")
        yaml.default_flow_style = False
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        folders = [self._parts.path / name for name in self._parts.names]
        found = [
            yaml.load((folder / METADATA).read_text(encoding="utf-8"))[INFORMATION]
            for folder in folders
        ]
        information = joined(found)
        for folder, part in zip(folders, found, strict=True):
            for file in part["relative_file_paths"]:
                os.link(folder / file, whole / file)
        with (whole / METADATA).open("w", encoding="utf-8") as file:
            yaml.dump({INFORMATION: information}, file)


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata of files that follow each other."""
    whole = dict(parts[0])
    filled = [part for part in parts if part["message_count"]]
    start, end = "nanoseconds_since_epoch", "nanoseconds"
    starts = [part["starting_time"][start] for part in filled]
    ends = [part["starting_time"][start] + part["duration"][end] for part in filled]
    if filled:
        whole["starting_time"] = {start: min(starts)}
        whole["duration"] = {end: max(ends) - min(starts)}
    whole["message_count"] = sum(part["message_count"] for part in parts)
    whole["relative_file_paths"] = [p for part in parts for p in part["relative_file_paths"]]
    whole["files"] = [file for part in parts for file in part["files"]]
    topics = [part["topics_with_message_count"] for part in parts]
    whole["topics_with_message_count"] = [
        {**same[0], "message_count": sum(topic["message_count"] for topic in same)}
        for same in zip(*topics, strict=True)
    ]
    return whole


def check_target(target: Path, source: Path, bag: Bag, *, force: bool) -> None:
    """Raises RoiCodecError where a bag must not or cannot be written there."""
    inner, outer = target.resolve(), source.resolve()
    if inner == outer or outer in inner.parents:
        raise RoiCodecError(f"cannot write over the input {source}")
    if bag.is_ros1 != (target.suffix == ".bag"):
        kind = "ROS 1, named .bag" if bag.is_ros1 else "ROS 2, a folder, .mcap or .db3"
        raise RoiCodecError(f"expected a bag of {kind} as the input is, found {target}")
    if target.is_dir() and any(target.iterdir()) and not (target / METADATA).is_file():
        raise RoiCodecError(f"cannot write the bag {target}: it is a folder of other things")
    if not target.exists() or force:
        return
    marked = target / METADATA if target.is_dir() else target
    if not is_ours(marked):
        raise RoiCodecError(
            f"cannot write {target}: it is a bag that roi-codec did not make; --force replaces it"
        )
