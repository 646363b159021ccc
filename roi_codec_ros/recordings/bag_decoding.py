# SPDX-License-Identifier: Apache-2.0
"""A bag of latents turned into one of pictures, of video, or into a film."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from roi_codec_ros.codec import Decoder
from roi_codec_ros.common.errors import BitstreamError, RoiCodecError, UsageError, reason_of
from roi_codec_ros.common.files import GENERATOR, replacement
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.recordings.bag_frames import MessageCodec, ToImage, ToJpeg
from roi_codec_ros.recordings.bag_reading import Bag
from roi_codec_ros.recordings.bag_video import ToVideo
from roi_codec_ros.recordings.bag_writing import Channel, PartsWriter, check_target
from roi_codec_ros.recordings.latents import LATENT, LatentReader, learn_latents
from roi_codec_ros.recordings.live_video import QUALITY, RATE_HZ, frame_of_pixels
from roi_codec_ros.recordings.parts import work_folder
from roi_codec_ros.recordings.pipeline import Progress
from roi_codec_ros.recordings.video_planes import require_av


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
    """Write a bag whose latents are pictures of ``form``; all else is copied.

    form: "video", "image" or "compressed".

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
                writer.write(number, stamp_ns, content, bag.publishing)
            writer.finish()
        except (OSError, sqlite3.Error) as error:
            raise RoiCodecError(f"cannot write {target}: {reason_of(error)}") from error
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
                stream: Any = None
                for stamp_ns, image in images():
                    frame = frame_of_pixels(image)
                    if stream is None:
                        stream, start_ns = _added_stream(container, frame), stamp_ns
                    frame.pts = (stamp_ns - start_ns) // 1_000_000
                    frame.time_base = Fraction(1, 1000)
                    container.mux(stream.encode(frame))
                if stream is None:
                    raise RoiCodecError(f"expected latents in {source}, found none")
                container.mux(stream.encode(None))
        except (av.FFmpegError, OSError) as error:
            raise RoiCodecError(f"cannot write {target}: {reason_of(error)}") from error
        return decoded


def _added_stream(container: Any, frame: Any) -> Any:
    """H.264 in a container, for frames like this one."""
    options = {"preset": "veryfast", "crf": str(QUALITY)}
    stream = container.add_stream("libx264", rate=RATE_HZ, options=options)
    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
    stream.codec_context.time_base = Fraction(1, 1000)
    return stream


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
