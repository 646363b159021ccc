# SPDX-License-Identifier: Apache-2.0
"""Conversions between messages and arrays. Fields are set to array.array or bytes: NumPy arrays
are slow.
"""

from __future__ import annotations

import array

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from roi_codec_ros.common.image_messages import (
    ImageMessageError,
    Pixels,
    rgb_from_compressed,
    rgb_from_image,
)
from roi_codec_ros.common.images import Size
from roi_codec_ros.msg import DecodedFrame, Person, PersonArray
from roi_codec_ros.perception.detections import Detections


def rgb_from_message(message: Image | CompressedImage) -> Pixels:
    """As `rgb_from_image` or `rgb_from_compressed`."""
    if isinstance(message, CompressedImage):
        return rgb_from_compressed(message)
    return rgb_from_image(message)


def image_from_rgb(pixels: Pixels, header: Header) -> Image:
    """A sensor_msgs/Image of encoding rgb8. pixels: uint8 [H, W, 3] RGB."""
    height, width = pixels.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width)
    message.data = byte_array(np.ascontiguousarray(pixels).data.cast("B"))
    return message


def jpeg_from_rgb(pixels: Pixels, header: Header, quality: int) -> CompressedImage:
    """The sensor_msgs/CompressedImage that image_transport's viewers expect."""
    encoded, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not encoded:
        raise ImageMessageError(f"expected an image that JPEG can hold, found {pixels.shape}")
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data = byte_array(jpeg.data.cast("B"))
    return message


def moved_stamp(stamp: Time, seconds: float) -> Time:
    """The stamp moved by an offset, never below 0."""
    ns = max(0, stamp.sec * 1_000_000_000 + stamp.nanosec + round(seconds * 1e9))
    return Time(sec=ns // 1_000_000_000, nanosec=ns % 1_000_000_000)


def byte_array(data: bytes | memoryview) -> array.array[int]:
    """The form of uint8[] that every ROS 2 Python accepts without checking each element."""
    values = array.array("B")
    values.frombytes(data)
    return values


def persons_from_detections(
    detections: Detections,
    original_size: Size,
    header: Header,
    camera: str,
    detect_ms: float,
    unknown: NDArray[np.bool_] | None = None,
) -> PersonArray:
    """detections: in pixels of the published image.

    original_size: (height, width) of the camera's image. The message has boxes and sizes in pixels
    of both. unknown: bool [rows, columns], unknown parts of the image; None: none.
    """
    in_original = detections.scale_to(original_size)
    message = PersonArray(header=header, camera=camera, detect_ms=float(detect_ms))
    message.image_height, message.image_width = in_original.image_size
    message.anonymized_height, message.anonymized_width = detections.image_size
    if unknown is not None:
        message.unknown_columns = unknown.shape[1]
        message.unknown = byte_array(unknown.tobytes())
    for box, published, score in zip(
        in_original.xyxy.tolist(),
        detections.xyxy.tolist(),
        detections.score.tolist(),
        strict=True,
    ):
        person = Person(score=score, cameras=[camera])
        person.x, person.y, x1, y1 = box
        person.width, person.height = x1 - person.x, y1 - person.y
        person.anonymized_x, person.anonymized_y, x1, y1 = published
        person.anonymized_width = x1 - person.anonymized_x
        person.anonymized_height = y1 - person.anonymized_y
        message.persons.append(person)
    return message


def detections_from_persons(message: PersonArray) -> Detections:
    """The boxes of a PersonArray; its image size must be set (as for a single camera)."""
    return Detections.from_arrays(
        [[p.x, p.y, p.x + p.width, p.y + p.height] for p in message.persons],
        [p.score for p in message.persons],
        (message.image_height, message.image_width),
    )


def unknown_of(message: PersonArray | DecodedFrame) -> NDArray[np.bool_] | None:
    """Unknown parts of the image: bool [rows, columns]; None: none.

    Raises ImageMessageError for an invalid grid.
    """
    columns = message.unknown_columns
    if columns == 0:
        return None
    cells = np.frombuffer(bytes(message.unknown), np.uint8)
    if len(cells) == 0 or len(cells) % columns:
        raise ImageMessageError(
            f"expected rows of {columns} cells in unknown, found {len(cells)} cells"
        )
    return cells.reshape(-1, columns) != 0


def point_from_array(position: NDArray[np.float64]) -> Point:
    """position: float64 [3], metres."""
    x, y, z = position.tolist()
    return Point(x=x, y=y, z=z)


def stamp_ns(header: Header) -> int:
    """The stamp in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
