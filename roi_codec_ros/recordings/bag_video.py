# SPDX-License-Identifier: Apache-2.0
"""Topics of video: packets of one codec, in their order, read and written again."""

from __future__ import annotations

from typing import Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.image_messages import ImageMessageError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.recordings.bag_frames import Convert, MessageCodec
from roi_codec_ros.recordings.hiding import BoolArray
from roi_codec_ros.recordings.jpegs import INSTALL
from roi_codec_ros.recordings.live_video import (
    QUALITY,
    LiveDecoder,
    LiveEncoder,
    codec_named,
    frame_of_pixels,
)
from roi_codec_ros.recordings.video_planes import VideoFrame, require_av
from roi_codec_ros.regions import paint_over

VIDEO = "foxglove_msgs/msg/CompressedVideo"
PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
DEFINITIONS = {
    VIDEO: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    PACKET: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n"
    "uint8 flags\nbool is_bigendian\nuint8[] data\n",
}
KEY_FRAME_FLAG = 1  # in FFMPEGPacket, as FFmpeg has it
MOST_WAITING = 64  # packets without a frame; codecs need no more to put frames in order


def learn_videos(typestore: Any) -> None:
    """Let a typestore of `rosbags` know both messages."""
    typesys = optional("rosbags.typesys", needed_for="bags", install=INSTALL)
    for name, text in DEFINITIONS.items():
        if name not in typestore.fielddefs:
            typestore.register(typesys.get_types_from_msg(text, name))


class PacketFrame(VideoFrame):
    """A frame of a topic of video; as `pipeline.Frame`. Output: as of VideoFrame, or converted."""

    def __init__(self, frame: Any, message: Any, convert: Convert | None) -> None:
        super().__init__(frame)
        self.message = message
        self._convert = convert

    def hide(self, hidden: BoolArray) -> Any:
        """A frame of PyAV without what is hidden, or what is made of such a picture."""
        if self._convert is None:
            return super().hide(hidden)
        return self._convert(self.message, paint_over(self.image(), hidden))

    def shown(self, output: Any) -> ImageArray:
        """The pixels of what is written."""
        return super().shown(output) if self._convert is None else self._convert.shown(output)


class VideoReader:
    """The frames of one topic, in the order in which they are shown.

    Where that is not the order of their messages, stamps move up, so that whoever plays the bag
    gets the frames in this order; what their headers say stays with them.
    """

    def __init__(self, msgtype: str, codec: MessageCodec, convert: Convert | None) -> None:
        """convert: as of `ImageFrame`."""
        self._msgtype, self._codec, self._convert = msgtype, codec, convert
        self._decoder: LiveDecoder | None = None
        self._waiting: dict[int, tuple[int, Any]] = {}
        self._count = 0
        self._last_ns = 0

    def read(self, stamp_ns: int, content: bytes) -> list[tuple[int, PacketFrame]]:
        """Frames that are whole now, and their stamps. Raises RoiCodecError."""
        message = self._codec.read(content, self._msgtype)
        named = message.encoding if self._msgtype == PACKET else message.format
        codec = codec_named(named)
        if codec is None:
            raise ImageMessageError(f"expected H.264, H.265, VP8, VP9 or AV1, found {named!r}")
        if self._decoder is None or self._decoder.codec != codec:
            self._decoder = LiveDecoder(codec)
        self._count += 1
        self._waiting[self._count] = (stamp_ns, message)
        return self._frames(self._decoder, bytes(message.data))

    def rest(self) -> list[tuple[int, PacketFrame]]:
        """Frames that come at the end. Raises RoiCodecError."""
        return [] if self._decoder is None else self._frames(self._decoder, None)

    def lost(self, *, all_of_them: bool = False) -> list[int]:
        """Stamps of messages of which no frame came, nor will; forgets them."""
        most = 0 if all_of_them else MOST_WAITING
        numbers = list(self._waiting)[: max(0, len(self._waiting) - most)]
        return [self._waiting.pop(number)[0] for number in numbers]

    def _frames(self, decoder: LiveDecoder, data: bytes | None) -> list[tuple[int, PacketFrame]]:
        try:
            frames = decoder.frames(data, self._count)
        except require_av().FFmpegError as error:
            self._waiting.pop(self._count, None)
            raise RoiCodecError(
                f"expected video that can be decoded; found: {reason_of(error)}"
            ) from error
        found = []
        for frame in frames:
            stamp_ns, message = self._waiting.pop(frame.pts, (0, None))
            if message is not None:
                self._last_ns = max(stamp_ns, self._last_ns + 1)
                found.append((self._last_ns, PacketFrame(frame, message, self._convert)))
        return found


class VideoCoder:
    """Messages of one topic of video, of its frames in their order."""

    def __init__(self, msgtype: str, codec: MessageCodec, quality: int = QUALITY) -> None:
        self._msgtype, self._codec, self._quality = msgtype, codec, quality
        self._encoder: LiveEncoder | None = None

    def __call__(self, message: Any, frame: Any) -> bytes:
        """The bytes of the message, whose picture becomes a frame of PyAV."""
        named = message.encoding if self._msgtype == PACKET else message.format
        message.data, is_key = self._coded(codec_named(named) or "h264", frame)
        if self._msgtype == PACKET:
            rest = int(message.flags) & ~KEY_FRAME_FLAG
            message.flags = rest | (KEY_FRAME_FLAG if is_key else 0)
        return self._codec.write(message, self._msgtype)

    def _coded(self, codec: str, frame: Any) -> tuple[Any, bool]:
        shape = (frame.width, frame.height, frame.format.name)
        encoder = self._encoder
        if encoder is None or (encoder.codec, encoder.shape) != (codec, shape):
            encoder = self._encoder = LiveEncoder(codec, frame, self._quality)
        data, is_key = encoder.packet(frame)
        return np.frombuffer(data, np.uint8), is_key


class ToVideo(VideoCoder):
    """Makes a foxglove_msgs/CompressedVideo, H.264, of pictures; they come in their order."""

    msgtype = VIDEO

    def __init__(self, codec: MessageCodec, quality: int = QUALITY) -> None:
        learn_videos(codec.typestore)
        super().__init__(VIDEO, codec, quality)

    def __call__(self, message: Any, frame: Any) -> bytes:
        """The bytes of the message. frame: pixels, uint8 [H, W, 3] RGB."""
        data, _ = self._coded("h264", frame_of_pixels(frame))
        header = getattr(message, "header", message)
        video = self._codec.typestore.types[VIDEO](
            timestamp=header.stamp if hasattr(header, "stamp") else header.timestamp,
            frame_id=header.frame_id,
            data=data,
            format="h264",
        )
        return self._codec.write(video, VIDEO)
