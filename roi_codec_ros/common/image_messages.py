# SPDX-License-Identifier: Apache-2.0
"""The pixels of image messages, by whatever library they were read."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.photographs import LARGEST_PX, PhotographError, decode_photograph

Pixels = NDArray[np.uint8]


class ImageMessage(Protocol):
    """What a sensor_msgs/Image has."""

    height: int
    width: int
    encoding: str
    is_bigendian: Any
    step: int
    data: Any


class CompressedMessage(Protocol):
    """What a sensor_msgs/CompressedImage has."""

    format: str
    data: Any


class ImageMessageError(RoiCodecError):
    """An image message with an encoding or a layout that cannot be read."""


def _recolour(code: int) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.asarray(cv2.cvtColor(pixels, code), np.uint8)


@dataclass(frozen=True)
class _Layout:
    """How the bytes of an encoding lie.

    channels: samples per pixel of a row. to_rgb: from uint8 [rows, W] or [rows, W, channels].
    rows_per_pixel: rows of bytes for a row of pixels. even: sizes that must be even, of "width"
    and "height". smallest: height and width below which there is no picture.
    """

    channels: int
    to_rgb: Callable[[Pixels], Pixels]
    rows_per_pixel: Fraction = Fraction(1)
    even: tuple[str, ...] = ()
    smallest: int = 1


_GREY = _Layout(1, _recolour(cv2.COLOR_GRAY2RGB))
_BGR = _Layout(3, _recolour(cv2.COLOR_BGR2RGB))
_BGRA = _Layout(4, _recolour(cv2.COLOR_BGRA2RGB))
_UYVY = _Layout(2, _recolour(cv2.COLOR_YUV2RGB_UYVY), even=("width",))
_YUYV = _Layout(2, _recolour(cv2.COLOR_YUV2RGB_YUYV), even=("width",))


def _bayer(code: int) -> _Layout:
    return _Layout(1, _recolour(code), smallest=3)


def _two_planes(code: int) -> _Layout:
    return _Layout(1, _recolour(code), Fraction(3, 2), even=("width", "height"))


# OpenCV names a Bayer pattern by its second row, and takes 8UC3 and 8UC4 for BGR and BGRA.
_LAYOUTS: dict[str, _Layout] = {
    "rgb8": _Layout(3, lambda pixels: pixels),
    "bgr8": _BGR,
    "rgba8": _Layout(4, _recolour(cv2.COLOR_RGBA2RGB)),
    "bgra8": _BGRA,
    "mono8": _GREY,
    "8UC1": _GREY,
    "8UC3": _BGR,
    "8UC4": _BGRA,
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _two_planes(cv2.COLOR_YUV2RGB_NV12),
    "nv21": _two_planes(cv2.COLOR_YUV2RGB_NV21),
    "bayer_rggb8": _bayer(cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _bayer(cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _bayer(cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _bayer(cv2.COLOR_BayerGB2RGB),
}
# Sixteen bits a sample: the upper eight are what these encodings of eight bits would hold.
_UPPER_BYTE_OF: dict[str, str] = {
    "mono16": "mono8",
    "16UC1": "8UC1",
    "16UC3": "8UC3",
    "16UC4": "8UC4",
    "rgb16": "rgb8",
    "bgr16": "bgr8",
    "rgba16": "rgba8",
    "bgra16": "bgra8",
    "bayer_rggb16": "bayer_rggb8",
    "bayer_bggr16": "bayer_bggr8",
    "bayer_gbrg16": "bayer_gbrg8",
    "bayer_grbg16": "bayer_grbg8",
}
ENCODINGS = (*_LAYOUTS, *_UPPER_BYTE_OF)
# The same for people to read, in fewer words.
FAMILIES = (
    "{rgb,bgr,rgba,bgra,mono}{8,16}, {8,16}UC{1,3,4}, bayer_{rggb,bggr,gbrg,grbg}{8,16}, "
    "yuv422, uyvy, yuv422_yuy2, yuyv, nv12, nv21"
)
MOST_PX_PER_BYTE = 1100  # of JPEG and PNG, even of a picture of one colour
FEW_LEVELS = 16  # of 256; a picture of sixteen bits with fewer was not scaled to its sixteen bits


_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = b"\0\0\0\x0dIHDR"


@dataclass(frozen=True)
class SampleRows:
    """How the bytes of an image lie: rows of them, those of a row that count, and of a sample."""

    rows: int
    row_bytes: int
    sample_bytes: int
    channels: int


def sample_rows(message: ImageMessage) -> SampleRows:
    """How the data of a sensor_msgs/Image lies.

    Raises ImageMessageError for an encoding other than ENCODINGS, an empty image or too few bytes.
    """
    if message.encoding not in ENCODINGS:
        raise ImageMessageError(
            f"expected an image encoding among {FAMILIES}, found {message.encoding[:64]!r}"
        )
    layout = _layout_of(message)
    sample_bytes = 2 if message.encoding in _UPPER_BYTE_OF else 1
    height, width, step = message.height, message.width, message.step
    row_bytes = width * layout.channels * sample_bytes
    rows = math.ceil(height * layout.rows_per_pixel)
    found = len(message.data)
    if not (height and width) or step < row_bytes or found < step * rows:
        raise ImageMessageError(
            f"expected {height}×{width} pixels of {message.encoding} in {rows} rows of at least "
            f"{row_bytes} bytes, found rows of {step} and {found} bytes"
        )
    for name, size in (("height", height), ("width", width)):
        if name in layout.even and size % 2:
            raise ImageMessageError(
                f"expected an even {name} for {message.encoding}, found {size}"
            )
    if min(height, width) < layout.smallest:
        raise ImageMessageError(
            f"expected at least {layout.smallest}×{layout.smallest} pixels of "
            f"{message.encoding}, found {height}×{width}"
        )
    return SampleRows(rows, row_bytes, sample_bytes, layout.channels)


def rgb_from_image(message: ImageMessage) -> Pixels:
    """The pixels of a sensor_msgs/Image as uint8 [H, W, 3] RGB; of 16 bits the upper eight.

    Raises ImageMessageError as `sample_rows`.
    """
    lie, layout = sample_rows(message), _layout_of(message)
    data = np.frombuffer(message.data, np.uint8)[: message.step * lie.rows]
    samples = data.reshape(lie.rows, message.step)[:, : lie.row_bytes]
    if lie.sample_bytes == 2:
        samples = samples[:, 0 if message.is_bigendian else 1 :: 2]
    pixels = np.ascontiguousarray(samples)
    return layout.to_rgb(
        pixels
        if layout.channels == 1
        else pixels.reshape(lie.rows, message.width, layout.channels)
    )


def _layout_of(message: ImageMessage) -> _Layout:
    return _LAYOUTS[_UPPER_BYTE_OF.get(message.encoding, message.encoding)]


def unscaled(encoding: str, pixels: Pixels) -> bool:
    """Whether a picture of 16 bits has hardly any contrast left in the upper eight.

    So it is with raw data of 10 to 14 bits that a driver did not scale, of thermal cameras above
    all. pixels: as `rgb_from_image` gives them.
    """
    return encoding in _UPPER_BYTE_OF and int(pixels.max()) - int(pixels.min()) < FEW_LEVELS


def rgb_from_compressed(message: CompressedMessage) -> Pixels:
    """The pixels of a sensor_msgs/CompressedImage (JPEG or PNG) as uint8 [H, W, 3] RGB.

    As the driver's camera info describes them: a rotation tag is left alone. Raises
    ImageMessageError for any other content, or one that is broken or absurdly large.
    """
    data = bytes(message.data)
    png = data.startswith(_PNG)
    if not png and not data.startswith(_JPEG):
        raise ImageMessageError(
            f"expected JPEG or PNG in a compressed image, found format {message.format[:64]!r}"
        )
    _check_pixels(data)
    pixels = _decoded_png(data) if png else _decoded_jpeg(data)
    # A driver that compresses what its sensor gives says so in front of the format.
    pattern = message.format.partition(";")[0].strip()
    layout = _LAYOUTS.get(_UPPER_BYTE_OF.get(pattern, pattern))
    grey = pixels[:, :, 0]
    if layout is None or layout.smallest == 1 or (pixels != grey[:, :, None]).any():
        return pixels
    if min(grey.shape) < layout.smallest:
        raise ImageMessageError(f"expected at least 3×3 Bayer pixels, found {grey.shape}")
    return layout.to_rgb(np.ascontiguousarray(grey))


def _check_pixels(data: bytes) -> None:
    """Refuse more pixels than any camera has, or than the data can hold, before allocation."""
    height, width = _png_size(data) if data.startswith(_PNG) else _jpeg_size(data)
    if not height * width:
        raise ImageMessageError("expected a JPEG or PNG with a size, found none")
    if height * width > LARGEST_PX:
        raise ImageMessageError(
            f"expected at most {LARGEST_PX // 10**6} megapixels, found {width}×{height}"
        )
    if height * width > MOST_PX_PER_BYTE * len(data):
        raise ImageMessageError(
            f"expected a JPEG or PNG with the data of {width}×{height} pixels, found {len(data)} "
            "bytes"
        )


def _decoded_jpeg(data: bytes) -> Pixels:
    """uint8 [H, W, 3] RGB."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ImageMessageError(
            f"expected a JPEG that can be decoded, found {len(data)} bytes that cannot"
        )
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _decoded_png(data: bytes) -> Pixels:
    """As `_decoded_jpeg`. Not by OpenCV, which allocates whatever length a chunk claims."""
    try:
        return decode_photograph(data, "a compressed image")
    except PhotographError as error:
        raise ImageMessageError(
            f"expected a PNG that can be decoded, found {error.reason}"
        ) from error


def _png_size(data: bytes) -> tuple[int, int]:
    """Height and width; 0, 0 where there are none."""
    place = len(_PNG)
    if data[place : place + 8] != _PNG_HEADER:
        return 0, 0
    width, height = struct.unpack(">II", data[place + 8 : place + 16].ljust(8, b"\0"))
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width of the first frame; 0, 0 where none is found."""
    place = 2
    while place + 9 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place] != 0xFF:
            break
        if marker == 0xFF:  # fill bytes
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return height, width
        place += 2 + length
    return 0, 0
