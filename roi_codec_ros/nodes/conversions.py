# SPDX-License-Identifier: Apache-2.0
"""Between messages and arrays. Message fields take array.array or bytes: NumPy arrays are slow."""

from __future__ import annotations

import array
from collections.abc import Callable

import cv2
import numpy as np
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.msg import Person, PersonArray
from roi_codec_ros.perception.detections import Detections

Pixels = NDArray[np.uint8]


class ImageMessageError(RoiCodecError):
    """An image message with an encoding or a layout that can not be read."""


def _recolour(code: int) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.asarray(cv2.cvtColor(pixels, code), np.uint8)


# Encoding → bytes per pixel and the way to RGB. OpenCV names a Bayer pattern by its second row.
_TO_RGB: dict[str, tuple[int, Callable[[Pixels], Pixels]]] = {
    "rgb8": (3, lambda pixels: pixels),
    "bgr8": (3, _recolour(cv2.COLOR_BGR2RGB)),
    "rgba8": (4, _recolour(cv2.COLOR_RGBA2RGB)),
    "bgra8": (4, _recolour(cv2.COLOR_BGRA2RGB)),
    "mono8": (1, _recolour(cv2.COLOR_GRAY2RGB)),
    "yuv422": (2, _recolour(cv2.COLOR_YUV2RGB_UYVY)),
    "uyvy": (2, _recolour(cv2.COLOR_YUV2RGB_UYVY)),
    "yuv422_yuy2": (2, _recolour(cv2.COLOR_YUV2RGB_YUYV)),
    "yuyv": (2, _recolour(cv2.COLOR_YUV2RGB_YUYV)),
    "bayer_rggb8": (1, _recolour(cv2.COLOR_BayerBG2RGB)),
    "bayer_bggr8": (1, _recolour(cv2.COLOR_BayerRG2RGB)),
    "bayer_gbrg8": (1, _recolour(cv2.COLOR_BayerGR2RGB)),
    "bayer_grbg8": (1, _recolour(cv2.COLOR_BayerGB2RGB)),
}
ENCODINGS = tuple(_TO_RGB)


def rgb_from_image(message: Image) -> Pixels:
    """The pixels of a sensor_msgs/Image as uint8 [H, W, 3] RGB.

    Raises ImageMessageError for an encoding other than ENCODINGS, an empty image or too few bytes.
    """
    if message.encoding not in _TO_RGB:
        raise ImageMessageError(
            f"expected an image encoding among {', '.join(ENCODINGS)}, found {message.encoding!r}"
        )
    depth, to_rgb = _TO_RGB[message.encoding]
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, np.uint8)
    if not (height and width) or step < width * depth or len(data) < step * height:
        raise ImageMessageError(
            f"expected {height}×{width} pixels of {message.encoding} in rows of at least "
            f"{width * depth} bytes, found rows of {step} and {len(data)} bytes"
        )
    if message.encoding.startswith(("yuv", "uyvy")) and width % 2:
        raise ImageMessageError(f"expected an even width for {message.encoding}, found {width}")
    if message.encoding.startswith("bayer") and min(height, width) < 3:
        raise ImageMessageError(f"expected at least 3×3 Bayer pixels, found {height}×{width}")
    rows = data[: step * height].reshape(height, step)[:, : width * depth]
    pixels = np.ascontiguousarray(rows).reshape(height, width, depth)
    return to_rgb(pixels[:, :, 0] if depth == 1 else pixels)


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


def byte_array(data: bytes | memoryview) -> array.array[int]:
    """The form of uint8[] that every ROS 2 Python takes without looking at each element."""
    values = array.array("B")
    values.frombytes(data)
    return values


def persons_from_detections(
    detections: Detections, header: Header, camera: str, detect_ms: float
) -> PersonArray:
    """detections: in pixels of the original camera image, whose size goes into the message."""
    message = PersonArray(header=header, camera=camera, detect_ms=float(detect_ms))
    message.image_height, message.image_width = detections.image_size
    message.persons = [
        Person(score=score, x=x0, y=y0, width=x1 - x0, height=y1 - y0, cameras=[camera])
        for (x0, y0, x1, y1), score in zip(
            detections.xyxy.tolist(), detections.score.tolist(), strict=True
        )
    ]
    return message


def detections_from_persons(message: PersonArray) -> Detections:
    """The boxes of a PersonArray; its image size must be known (not that of several cameras)."""
    return Detections.from_arrays(
        [[p.x, p.y, p.x + p.width, p.y + p.height] for p in message.persons],
        [p.score for p in message.persons],
        (message.image_height, message.image_width),
    )


def point_from_array(position: NDArray[np.float64]) -> Point:
    """position: float64 [3], metres."""
    x, y, z = position.tolist()
    return Point(x=x, y=y, z=z)


def stamp_ns(header: Header) -> int:
    """The stamp in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
