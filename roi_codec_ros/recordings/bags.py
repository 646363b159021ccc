# SPDX-License-Identifier: Apache-2.0
"""A bag without heads: pictures rewritten, what cannot be looked at dropped, the rest copied."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.codec import Encoder
from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of
from roi_codec_ros.recordings.bag_frames import (
    AS_PIXELS,
    Convert,
    ImageFrame,
    MessageCodec,
    ToImage,
    ToJpeg,
)
from roi_codec_ros.recordings.bag_kinds import Kind, has_colours, kind_of
from roi_codec_ros.recordings.bag_reading import Bag
from roi_codec_ros.recordings.bag_video import (
    VIDEO,
    PacketFrame,
    ToVideo,
    VideoCoder,
    VideoReader,
    learn_videos,
)
from roi_codec_ros.recordings.bag_writing import (
    MCAP,
    Channel,
    PartsWriter,
    check_target,
)
from roi_codec_ros.recordings.latents import ToLatent
from roi_codec_ros.recordings.live_video import QUALITY
from roi_codec_ros.recordings.mcap_extras import Extra
from roi_codec_ros.recordings.parts import work_folder
from roi_codec_ros.recordings.pipeline import Passage, Pipeline, Settings
from roi_codec_ros.recordings.tally import CameraTally, Result

if TYPE_CHECKING:
    from roi_codec_ros.recordings.mcap_messages import Publishing

PICTURES = (Kind.IMAGE, Kind.COMPRESSED, Kind.VIDEO)


@dataclass(frozen=True)
class BagOptions:
    """What happens to which topic.

    Attributes:
        topics: of pictures that are rewritten; none: all that can be.
        keep: topics, and attachments, that are copied whatever they hold.
        form: "image", "compressed", "latent" or "video": what pictures become; None: unchanged.
        encoder: makes a worker its own, for latents.
        quality: "crf" of video, lower is finer.
    """

    topics: Collection[str] = ()
    keep: Collection[str] = ()
    form: str | None = None
    encoder: Callable[[], Encoder] | None = None
    quality: int = QUALITY


def anonymize_bag(
    source: Path,
    target: Path,
    settings: Settings,
    options: BagOptions | None = None,
    *,
    force: bool = False,
    told: str = "",
) -> Result:
    """Write a bag whose pictures show no heads.

    told: what tells these settings from others, for a run that goes on after a kill. Raises
    RoiCodecError.
    """
    options = options or BagOptions()
    with Bag(source, work_folder(target)) as bag:
        rewriting = _Rewriting(bag, settings, options)
        check_target(target, source, bag, force=force)
        told = f"{source.resolve()} {bag.message_count} {told} {replace(options, encoder=None)}"
        writer = PartsWriter(target, bag, rewriting.channels(), told)
        try:
            rewriting.run(writer)
            writer.finish(rewriting.extras(can_be_kept=writer.storage == MCAP))
        except (OSError, sqlite3.Error) as error:
            raise RoiCodecError(f"cannot write {target}: {reason_of(error)}") from error
        finally:
            writer.abandon()
        return rewriting.result()


@dataclass(frozen=True)
class _Tag:
    """number: of the message in the bag. written: False for what is only context of others."""

    number: int
    connection: int
    stamp_ns: int
    written: bool = True
    publishing: Publishing | None = None


class _Rewriting:
    """One bag on its way."""

    def __init__(self, bag: Bag, settings: Settings, options: BagOptions) -> None:
        self._bag = bag
        self._settings = settings
        self._options = options
        self._codec = MessageCodec(bag.typestore, bag.is_ros1)
        self._result = Result()
        self._check_names()
        learn_videos(bag.typestore)
        self._kinds = [self._kind(c) for c in bag.connections]
        self._convert = self._converter()
        self._cameras: dict[int, CameraTally] = {}
        self._readers: dict[int, VideoReader] = {}
        self._video: dict[int, VideoCoder] = {}
        self._number_out: dict[int, int] = {}
        self._start_ns: int | None = None
        self._writer: PartsWriter | None = None

    def channels(self) -> Sequence[Channel]:
        """The topics of the output bag."""
        channels: list[Channel] = []
        for number, connection in enumerate(self._bag.connections):
            kind = self._kinds[number]
            if kind is None:
                continue
            self._number_out[number] = len(channels)
            msgtype = connection.msgtype
            if kind in PICTURES:
                msgtype = self._picture_type(number, kind)
                self._cameras[number] = CameraTally(connection.topic, connection.msgtype)
            channels.append(self._channel(connection, msgtype))
        return channels

    def _picture_type(self, number: int, kind: Kind) -> str:
        """What the pictures of a topic become; also makes what reads and writes video."""
        msgtype: str = self._bag.connections[number].msgtype
        if kind is Kind.VIDEO:
            self._readers[number] = VideoReader(msgtype, self._codec, self._convert)
        if self._options.form == "video":
            self._video[number] = ToVideo(self._codec, self._options.quality)
            return VIDEO
        if self._convert is not None:
            return self._convert.msgtype
        if kind is Kind.VIDEO:
            self._video[number] = VideoCoder(msgtype, self._codec, self._options.quality)
        return msgtype

    def _channel(self, connection: Any, msgtype: str) -> Channel:
        if msgtype == connection.msgtype:
            return Channel(connection, msgtype)
        version = 1 if self._bag.is_ros1 else 2
        definition, _ = self._bag.typestore.generate_msgdef(msgtype, ros_version=version)
        return Channel(connection, msgtype, definition)

    def run(self, writer: PartsWriter) -> None:
        """Take all messages through; those of an earlier run's parts are passed over."""
        self._writer = writer
        done = writer.messages_done
        for number, stored in enumerate(writer.state.get("tallies", [])):
            list(self._cameras.values())[number].restore(stored)
        self._start_ns = writer.state.get("start_ns")
        self._result.dropped.update(writer.state.get("dropped", {}))
        self._result.copied.update(writer.state.get("copied", {}))
        context_ns = writer.state.get("stamp_ns", 0) - int(1e9 * self._settings.memory_s)
        number = -1
        with Pipeline(self._settings, self._sink) as pipeline:
            for number, (connection, stamp_ns, content) in enumerate(self._bag.messages()):
                if self._start_ns is None:
                    self._start_ns = stamp_ns
                if number < done and stamp_ns < context_ns:
                    if connection in self._readers:
                        self._decode(_Tag(number, connection, stamp_ns), content)
                    continue
                tag = _Tag(number, connection, stamp_ns, number >= done, self._bag.publishing)
                self._put(pipeline, tag, content)
                self._settings.progress(number + 1, self._bag.message_count, "message")
            for connection in self._readers:
                self._put_video(pipeline, _Tag(number, connection, self._start_ns or 0), None)
            pipeline.finish()
        if pipeline.cut_short:
            self._result.notes.append(
                f"{pipeline.cut_short} frames were hidden by less of their future than "
                f"{self._settings.memory_s:g} s, since so much could not be held in memory"
            )

    def extras(self, *, can_be_kept: bool) -> list[Extra]:
        """Attachments that are kept by name, and metadata; notes what becomes of them."""
        named = self._options.keep
        kept = [e for e in self._bag.extras if not e.is_attachment or e.name in named]
        kept = kept if can_be_kept else []
        for extra in self._bag.extras:
            if extra not in kept:
                kind = "an attachment" if extra.is_attachment else "metadata"
                self._result.dropped[extra.name] = f"{kind} of an MCAP file"
            elif extra.is_attachment:
                self._result.kept.append(extra.name)
        names = sorted({extra.name for extra in kept if not extra.is_attachment})
        if names:
            self._result.notes.append(f"metadata that are copied as they are: {', '.join(names)}")
        return kept

    def result(self) -> Result:
        """What became of it."""
        self._result.cameras = list(self._cameras.values())
        self._result.notes = self._bag.notes + self._result.notes
        return self._result

    def _converter(self) -> Convert | None:
        form, encoder = self._options.form, self._options.encoder
        if form == "latent":
            assert encoder is not None
            return ToLatent(self._codec, encoder)
        if form is None:
            return None
        if form == "video":
            return AS_PIXELS  # which are coded in their order, when they are written
        return ToImage(self._codec) if form == "image" else ToJpeg(self._codec)

    def _check_names(self) -> None:
        there = {connection.topic for connection in self._bag.connections}
        there |= {extra.name for extra in self._bag.extras if extra.is_attachment}
        for name in (*self._options.topics, *self._options.keep):
            if name not in there:
                raise UsageError(
                    f"expected a topic of the bag, one of {', '.join(sorted(there))}; "
                    f"found {name!r}"
                )

    def _kind(self, connection: Any) -> Kind | None:
        """What to do with a topic; None: it is dropped, which is noted."""
        kind = kind_of(connection.msgtype, self._bag.typestore.fielddefs)
        topic, dropped = connection.topic, self._result.dropped
        if topic in self._options.keep:
            if kind is not Kind.OTHER:
                self._result.kept.append(topic)
            return Kind.OTHER
        if kind in (Kind.UNKNOWN_PICTURE, Kind.NESTED_PICTURE):
            dropped[topic] = f"{connection.msgtype}: {kind.value}"
            return None
        if kind in PICTURES and self._options.topics and topic not in self._options.topics:
            dropped[topic] = f"{connection.msgtype}: not among --topics"
            return None
        return kind

    def _put(self, pipeline: Pipeline, tag: _Tag, content: bytes) -> None:
        kind = self._kinds[tag.connection]
        time_s = tag.stamp_ns / 1e9
        if kind is Kind.VIDEO:
            self._put_video(pipeline, tag, content)
            return
        if kind in PICTURES:
            connection = self._bag.connections[tag.connection]
            frame = ImageFrame(content, connection.msgtype, kind, self._codec, self._convert)
            pipeline.put_frame(tag, frame, time_s, tag.connection)
            return
        if kind is Kind.CLOUD and not self._has_no_colours(tag, content):
            kind = None
        output = content if kind is not None and tag.written else None
        pipeline.put(tag, output, time_s, len(content) if output else 0)

    def _put_video(self, pipeline: Pipeline, tag: _Tag, content: bytes | None) -> None:
        """The frames that are whole with a message, the last with None, and those that never are.

        A frame bears the number of the message that it came with, so that a run that goes on
        after a kill, and decodes from the start, gets the same ones.
        """
        frames, reason = self._decode(tag, content)
        for stamp_ns, frame in frames:
            pipeline.put_frame(
                replace(tag, stamp_ns=stamp_ns), frame, stamp_ns / 1e9, tag.connection
            )
        if reason:
            pipeline.put(tag, None, tag.stamp_ns / 1e9, 0, reason)
        for stamp_ns in self._readers[tag.connection].lost(all_of_them=content is None):
            lost = replace(tag, stamp_ns=stamp_ns)
            pipeline.put(lost, None, stamp_ns / 1e9, 0, "no picture came of it")

    def _decode(
        self, tag: _Tag, content: bytes | None
    ) -> tuple[list[tuple[int, PacketFrame]], str]:
        """Frames with their stamps, or why there are none."""
        reader = self._readers[tag.connection]
        try:
            found = reader.rest() if content is None else reader.read(tag.stamp_ns, content)
        except RoiCodecError as error:
            return [], str(error)
        return found, ""

    def _has_no_colours(self, tag: _Tag, content: bytes) -> bool:
        connection = self._bag.connections[tag.connection]
        try:
            coloured = has_colours(self._codec.read(content, connection.msgtype))
        except RoiCodecError as error:
            self._result.dropped[connection.topic] = f"a cloud that cannot be read: {error}"
            return False
        if coloured:
            self._result.dropped[connection.topic] = f"{connection.msgtype}: a coloured cloud"
        return not coloured

    def _sink(self, passage: Passage) -> None:
        assert self._writer is not None and self._start_ns is not None
        tag: _Tag = passage.tag
        if not tag.written:
            return
        topic = self._bag.connections[tag.connection].topic
        camera = self._cameras.get(tag.connection)
        if camera is not None:
            since_s = (tag.stamp_ns - self._start_ns) / 1e9
            place = f"{topic} at {since_s:.3f} s, stamp {tag.stamp_ns}"
            camera.add(passage, place, int(since_s // 60))
        elif passage.output is not None:
            self._result.copied[topic] += 1
        if passage.output is not None:
            content = self._content(passage)
            number = self._number_out[tag.connection]
            self._writer.write(number, tag.stamp_ns, content, tag.publishing)
        self._writer.step(tag.number + 1, tag.stamp_ns, self._tell)

    def _content(self, passage: Passage) -> Any:
        """The bytes to write; video is coded here, in the order of its frames."""
        video = self._video.get(passage.tag.connection)
        if video is None:
            return passage.output
        assert isinstance(passage.frame, (ImageFrame, PacketFrame))
        return video(passage.frame.message, passage.output)

    def _tell(self) -> dict[str, Any]:
        return {
            "start_ns": self._start_ns,
            "dropped": self._result.dropped,
            "copied": self._result.copied,
            "tallies": [camera.stored() for camera in self._cameras.values()],
        }
