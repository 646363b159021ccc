# SPDX-License-Identifier: Apache-2.0
"""A bag of latents turned into one of pictures, of video, or into a film."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from roi_codec_ros.codec import Decoder
from roi_codec_ros.common.errors import BitstreamError, RoiCodecError, UsageError
from roi_codec_ros.common.files import GENERATOR, replacement
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.recordings.bag_frames import MessageCodec, ToImage, ToJpeg
from roi_codec_ros.recordings.bag_reading import Bag
from roi_codec_ros.recordings.bag_writing import Channel, PartsWriter, check_target, work_folder
from roi_codec_ros.recordings.jpegs import INSTALL
from roi_codec_ros.recordings.latents import LATENT, LatentReader, learn_latents
from roi_codec_ros.recordings.pipeline import Progress
from roi_codec_ros.recordings.video_planes import require_av

VIDEO = "foxglove_msgs/msg/CompressedVideo"
VIDEO_DEFINITION = "time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
FORMS = ("video", "image", "compressed")
FILM_RATE_HZ = 25  # of its header; frames have times of their own


@dataclass
class Decoded:
    """How many latents became pictures, and how many did not; first: why the first did not."""

    pictures: int = 0
    left_out: int = 0
    first: str = ""


def decode_bag(
    source: Path,
    target: Path,
    decoder: Decoder,
    form: str,
    progress: Progress,
    *,
    force: bool = False,
) -> Decoded:
    """Write a bag whose latents are pictures of ``form``, one of FORMS; all else is copied.

    Raises RoiCodecError.
    """
    with Bag(source, work_folder(target)) as bag:
        topics = _latent_topics(bag)
        check_target(target, source, bag, force=force)
        learn_latents(bag.typestore)
        codec = MessageCodec(bag.typestore, bag.is_ros1)
        converters = {number: _converter(form, codec) for number in topics}
        channels = [
            _channel(bag, connection, converters.get(number))
            for number, connection in enumerate(bag.connections)
        ]
        writer = PartsWriter(target, bag, channels, f"decode {source.resolve()} {form}")
        decoded = Decoded()
        readers = {number: LatentReader(decoder) for number in topics}
        try:
            for count, (number, stamp_ns, content) in enumerate(bag.messages(), 1):
                progress(count, bag.message_count, "message")
                if number in topics:
                    message = codec.read(content, LATENT)
                    image = _image(readers[number], message, decoded)
                    if image is None:
                        continue
                    content = converters[number](message, image)
                writer.write(number, stamp_ns, content)
            writer.finish()
        except (OSError, sqlite3.Error) as error:
            raise RoiCodecError(f"expected to write {target}; found: {error}") from error
        finally:
            writer.abandon()
        return decoded


def decode_film(
    source: Path,
    target: Path,
    decoder: Decoder,
    topic: str | None,
    progress: Progress,
    *,
    force: bool = False,
) -> Decoded:
    """Write the latents of one topic as a film, each frame at its stamp. Raises RoiCodecError."""
    av = require_av()
    Output(target, force=force, inputs=[source])
    with Bag(source, work_folder(target)) as bag:
        topics = _latent_topics(bag)
        chosen = _chosen(topics, topic)
        learn_latents(bag.typestore)
        codec = MessageCodec(bag.typestore, bag.is_ros1)
        decoded, reader = Decoded(), LatentReader(decoder)

        def images() -> Iterator[tuple[int, ImageArray]]:
            for count, (number, stamp_ns, content) in enumerate(bag.messages(), 1):
                progress(count, bag.message_count, "message")
                if number == chosen:
                    image = _image(reader, codec.read(content, LATENT), decoded)
                    if image is not None:
                        yield stamp_ns, image

        try:
            with (
                replacement(target, durable=True) as partial,
                av.open(str(partial), "w") as container,
            ):
                container.metadata["comment"] = GENERATOR
                coder: _H264 | None = None
                start_ns = 0
                for stamp_ns, image in images():
                    if coder is None:
                        stream = container.add_stream("libx264", rate=FILM_RATE_HZ)
                        coder = _H264(stream.codec_context, image)
                        start_ns = stamp_ns
                    container.mux(coder.packets(image, (stamp_ns - start_ns) // 1_000_000, stream))
                if coder is None:
                    raise RoiCodecError(f"expected latents in {source}, found none")
                container.mux(stream.encode(None))
        except (av.FFmpegError, OSError) as error:
            raise RoiCodecError(f"expected to write {target}; found: {error}") from error
        return decoded


class ToVideo:
    """Makes a foxglove_msgs/CompressedVideo of pictures: H.264, a key frame every second or so."""

    msgtype = VIDEO

    def __init__(self, codec: MessageCodec) -> None:
        typesys = optional("rosbags.typesys", needed_for="bags", install=INSTALL)
        if VIDEO not in codec.typestore.fielddefs:
            text = VIDEO_DEFINITION.replace("time ", "builtin_interfaces/Time ", 1)
            codec.typestore.register(typesys.get_types_from_msg(text, VIDEO))
        self._codec = codec
        self._coder: _H264 | None = None
        self._size: tuple[int, ...] = ()
        self._count = 0

    def __call__(self, message: Any, pixels: ImageArray) -> bytes:
        """The bytes of the message; pictures come in their order."""
        if self._coder is None or self._size != pixels.shape:
            context = require_av().CodecContext.create("libx264", "w")
            self._coder, self._size = _H264(context, pixels), pixels.shape
        self._count += 1
        packets = self._coder.packets(pixels, 40 * self._count, None)
        video = self._codec.typestore.types[VIDEO](
            timestamp=message.header.stamp,
            frame_id=message.header.frame_id,
            data=np.frombuffer(b"".join(bytes(packet) for packet in packets), np.uint8),
            format="h264",
        )
        return self._codec.write(video, VIDEO)


class _H264:
    """An encoder that gives back each frame at once, as live video wants it."""

    def __init__(self, context: Any, image: ImageArray) -> None:
        height, width = image.shape[:2]
        self._even = (height // 2 * 2, width // 2 * 2)  # 4:2:0 knows no odd sides
        context.height, context.width = self._even
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, 1000)
        context.framerate = Fraction(FILM_RATE_HZ)
        context.gop_size = FILM_RATE_HZ
        context.options = {"preset": "veryfast", "tune": "zerolatency", "crf": "20"}
        self._context = context

    def packets(self, image: ImageArray, time_ms: int, stream: Any) -> list[Any]:
        """Packets of a frame, uint8 [H, W, 3] RGB. stream: what codes it; None: the context."""
        whole = np.ascontiguousarray(image[: self._even[0], : self._even[1]])
        frame = require_av().VideoFrame.from_ndarray(whole, format="rgb24")
        frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
        return list((stream or self._context).encode(frame))


def _image(reader: LatentReader, message: Any, decoded: Decoded) -> ImageArray | None:
    try:
        image = reader.read(message)
    except BitstreamError as error:
        decoded.left_out += 1
        decoded.first = decoded.first or str(error)
        return None
    decoded.pictures += 1
    return image


def _latent_topics(bag: Bag) -> dict[int, str]:
    topics = {n: c.topic for n, c in enumerate(bag.connections) if c.msgtype == LATENT}
    if not topics:
        raise RoiCodecError(f"expected a topic of {LATENT} in {bag.path}, found none")
    return topics


def _chosen(topics: dict[int, str], topic: str | None) -> int:
    found = [number for number, name in topics.items() if topic in (None, name)]
    if len(found) != 1:
        raise UsageError(f"expected --topic, one of {', '.join(topics.values())}; found {topic!r}")
    return found[0]


def _converter(form: str, codec: MessageCodec) -> ToImage | ToJpeg | ToVideo:
    if form == "video":
        return ToVideo(codec)
    return ToImage(codec) if form == "image" else ToJpeg(codec)


def _channel(bag: Bag, connection: Any, converter: Any) -> Channel:
    if converter is None:
        return Channel(connection, connection.msgtype)
    version = 1 if bag.is_ros1 else 2
    definition, _ = bag.typestore.generate_msgdef(converter.msgtype, ros_version=version)
    return Channel(connection, converter.msgtype, definition)
