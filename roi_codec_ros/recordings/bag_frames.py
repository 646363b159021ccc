# SPDX-License-Identifier: Apache-2.0
"""Messages with pictures: what is judged of them, and what is written instead."""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np

from roi_codec_ros.common.image_messages import (
    ImageMessageError,
    rgb_from_compressed,
    rgb_from_image,
    sample_rows,
    unscaled,
)
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.recordings.bag_kinds import Kind
from roi_codec_ros.recordings.hiding import BoolArray
from roi_codec_ros.recordings.image_planes import hide_in_image
from roi_codec_ros.recordings.jpegs import hide_in_jpeg
from roi_codec_ros.recordings.pictures import JPEG, hide_without_loss
from roi_codec_ros.regions import paint_over

# Depth images, in which heads cannot be searched.
DEPTH_ENCODINGS = {"16UC1", "16SC1", "32SC1", "32FC1", "64FC1"}
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JPEG_QUALITY = 90


class MessageCodec:
    """Between the bytes of messages and their fields."""

    def __init__(self, typestore: Any, is_ros1: bool) -> None:
        self.typestore = typestore
        if is_ros1:
            self._read, self._write = typestore.deserialize_ros1, typestore.serialize_ros1
        else:
            self._read, self._write = typestore.deserialize_cdr, typestore.serialize_cdr

    def read(self, content: bytes, msgtype: str) -> Any:
        """The message. Raises ImageMessageError where these bytes are none of this type."""
        try:
            return self._read(content, msgtype)
        except Exception as error:  # whatever a reader makes of foreign bytes
            raise ImageMessageError(f"expected a {msgtype}, found {error!r}") from error

    def write(self, message: Any, msgtype: str) -> bytes:
        """Its bytes."""
        return bytes(self._write(message, msgtype))


class Convert(Protocol):
    """Makes what is written of a message and its hidden pixels."""

    @property
    def msgtype(self) -> str:
        """Of what is made."""
        ...

    def __call__(self, message: Any, pixels: ImageArray) -> Any:
        """What is written."""
        ...

    def shown(self, output: Any) -> ImageArray:
        """The pixels of what was made."""
        ...


class _AsPixels:
    """Passes pixels through, for a consumer that reads them in order."""

    msgtype = ""

    def __call__(self, message: Any, pixels: ImageArray) -> ImageArray:
        return pixels

    def shown(self, output: ImageArray) -> ImageArray:
        return output


AS_PIXELS = _AsPixels()


class ImageFrame:
    """A message with a picture; as `pipeline.Frame`. Output: the bytes of the message to write."""

    def __init__(
        self,
        content: bytes,
        msgtype: str,
        kind: Kind,
        codec: MessageCodec,
        convert: Convert | None = None,
    ) -> None:
        """convert: makes what is written of the hidden pixels; None: the kind stays."""
        self._content = content
        self._msgtype = msgtype
        self._kind = kind
        self._codec = codec
        self._convert = convert

    @property
    def size_bytes(self) -> int:
        """Of the message."""
        return len(self._content)

    @property
    def message(self) -> Any:
        """The message. Raises ImageMessageError."""
        return self._codec.read(self._content, self._msgtype)

    def image(self) -> ImageArray:
        """Its pixels. Raises ImageMessageError, also for depth and what is not in its range."""
        return self._pixels(self.message)

    def hide(self, hidden: BoolArray) -> Any:
        """The message without what is hidden; the same bytes where nothing is."""
        message = self.message
        if self._convert is not None:
            return self._convert(message, paint_over(self._pixels(message), hidden))
        if self._kind is Kind.IMAGE:
            lie = sample_rows(message)
            tight = message.step == lie.row_bytes and len(message.data) == lie.rows * message.step
            if tight and not hidden.any():
                return self._content
            message.data = hide_in_image(message, hidden)
        else:
            data = bytes(message.data)
            written = (
                hide_in_jpeg(data, hidden)
                if data.startswith(JPEG)
                else hide_without_loss(data, hidden)
            )
            if written == data:
                return self._content
            message.data = np.frombuffer(written, np.uint8)
        return self._codec.write(message, self._msgtype)

    def shown(self, output: Any) -> ImageArray:
        """The pixels of what is written."""
        if self._convert is not None:
            return self._convert.shown(output)
        return self._pixels(self._codec.read(output, self._msgtype))

    def _pixels(self, message: Any) -> ImageArray:
        if self._kind is Kind.IMAGE:
            if message.encoding in DEPTH_ENCODINGS:
                raise ImageMessageError(f"expected colours, found depth ({message.encoding})")
            pixels = rgb_from_image(message)
            if unscaled(message.encoding, pixels):
                raise ImageMessageError(
                    f"expected 16 bits in their whole range, found a raw or thermal picture "
                    f"({message.encoding})"
                )
            return pixels
        if "compressedDepth" in message.format:
            raise ImageMessageError("expected colours, found compressed depth")
        return rgb_from_compressed(message)


class ToImage:
    """Makes a sensor_msgs/Image of pixels."""

    msgtype = IMAGE

    def __init__(self, codec: MessageCodec) -> None:
        self._codec = codec

    def __call__(self, message: Any, pixels: ImageArray) -> bytes:
        """The bytes of the message."""
        height, width = pixels.shape[:2]
        image = self._codec.typestore.types[IMAGE](
            header=header_of(message, self._codec.typestore),
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(pixels).reshape(-1),
        )
        return self._codec.write(image, IMAGE)

    def shown(self, output: bytes) -> ImageArray:
        """The pixels of what was made."""
        return rgb_from_image(self._codec.read(output, IMAGE))


class ToJpeg:
    """Makes a sensor_msgs/CompressedImage of pixels."""

    msgtype = COMPRESSED

    def __init__(self, codec: MessageCodec, quality: int = JPEG_QUALITY) -> None:
        self._codec = codec
        self._quality = quality

    def __call__(self, message: Any, pixels: ImageArray) -> bytes:
        """The bytes of the message."""
        _, jpeg = cv2.imencode(
            ".jpg",
            cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, self._quality],
        )
        image = self._codec.typestore.types[COMPRESSED](
            header=header_of(message, self._codec.typestore),
            format="rgb8; jpeg compressed bgr8",
            data=jpeg.reshape(-1),
        )
        return self._codec.write(image, COMPRESSED)

    def shown(self, output: bytes) -> ImageArray:
        """The pixels of what was made."""
        return rgb_from_compressed(self._codec.read(output, COMPRESSED))


def header_of(message: Any, typestore: Any) -> Any:
    """The std_msgs/Header of a message, or one from the stamp and frame of foxglove's."""
    if hasattr(message, "header"):
        return message.header
    types = typestore.types
    return types["std_msgs/msg/Header"](stamp=message.timestamp, frame_id=message.frame_id)
