# SPDX-License-Identifier: Apache-2.0
"""The coded pictures of a film, in parts that are kept when a run is killed.

A part is a file of packets, as its encoder gave them; the first stands alone. At the end all go
into the film, beside the sound of the source.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from roi_codec_ros.common.files import GENERATOR
from roi_codec_ros.recordings.parts import PartsFolder
from roi_codec_ros.recordings.video_planes import require_av

PART_FRAMES = 1500
# When it is shown and decoded, how long, whether it stands alone, its size.
_PACKET = struct.Struct("<qqq?I")

AddStream = Callable[[Any], Any]  # to a container; the stream's encoder is that of all parts


class FilmParts:
    """Parts beside the place of the film; each is coded by an encoder of its own."""

    def __init__(self, target: Path, told: str) -> None:
        """told: what tells this film and these settings from others."""
        self._suffix = target.suffix
        self._parts = PartsFolder(target, told)
        self._file: Any = None
        # An encoder asks its container where headers go; nothing is written into this one.
        self._shape: Any = None

    @property
    def state(self) -> dict[str, Any]:
        """What `end` was told of the last whole part, also by an earlier run."""
        return self._parts.state

    def begin(self, add_stream: AddStream) -> Any:
        """The stream whose encoder codes the next part."""
        self._close()
        shape = self._parts.path / f"shape{self._suffix}"
        self._shape = require_av().open(str(shape), "w")
        self._file = (self._parts.path / f"part_{len(self._parts.names)}").open("wb")
        return add_stream(self._shape)

    def add(self, packets: Sequence[Any]) -> None:
        """Write packets of the part that was begun."""
        for packet in packets:
            data = bytes(packet)
            times = (packet.pts, packet.dts, packet.duration or 0)
            self._file.write(_PACKET.pack(*times, packet.is_keyframe, len(data)) + data)

    def end(self, state: dict[str, Any]) -> None:
        """The part that was begun is whole. state: for the next run."""
        self._parts.names.append(Path(self._file.name).name)
        self._close()
        self._parts.remember(state)

    def join(
        self, target: Path, source: Path, add_stream: AddStream, sounds: Sequence[int]
    ) -> None:
        """Write the film. sounds: numbers of streams of the source to copy. Raises FFmpegError."""
        av = require_av()
        with av.open(str(source.absolute())) as given, av.open(str(target), "w") as container:
            container.metadata["comment"] = GENERATOR
            pictures = add_stream(container)
            copied = {n: container.add_stream_from_template(given.streams[n]) for n in sounds}
            both = [self._pictures(pictures), _sound(given, copied)]
            for packet, stream in heapq.merge(*both, key=_time_s):
                packet.stream = stream
                container.mux(packet)

    def finish(self) -> None:
        """Remove the parts: the film is in its place."""
        self._parts.remove()

    def abandon(self) -> None:
        """Keep only what another run can continue from."""
        self._close()
        self._parts.abandon()

    def _close(self) -> None:
        for opened in (self._file, self._shape):
            if opened is not None:
                opened.close()
        self._file = self._shape = None

    def _pictures(self, stream: Any) -> Iterator[tuple[Any, Any]]:
        last_dts: int | None = None
        for name in self._parts.names:
            with (self._parts.path / name).open("rb") as file:
                while head := file.read(_PACKET.size):
                    pts, dts, duration, is_key, size = _PACKET.unpack(head)
                    packet = require_av().Packet(file.read(size))
                    packet.time_base = stream.codec_context.time_base
                    last_dts = dts if last_dts is None else max(dts, last_dts + 1)
                    packet.pts, packet.dts, packet.duration = pts, last_dts, duration
                    packet.is_keyframe = is_key
                    yield packet, stream


def _sound(given: Any, copied: Mapping[int, Any]) -> Iterator[tuple[Any, Any]]:
    if not copied:
        return
    for packet in given.demux([given.streams[number] for number in copied]):
        if packet.dts is not None:
            yield packet, copied[packet.stream.index]


def _time_s(item: tuple[Any, Any]) -> float:
    packet, _ = item
    return float(packet.dts * packet.time_base)
