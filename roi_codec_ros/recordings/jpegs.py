# SPDX-License-Identifier: Apache-2.0
"""JPEG files: what is hidden in them, and what they tell apart from the picture.

A file without heads stays as it is, to the byte of its picture. Another is decoded to the samples
that it holds, painted over, and coded again with its own tables and sampling: what was in no
hidden block comes out as it was, but for rounding.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.recordings.hiding import BoolArray
from roi_codec_ros.regions import BLOCK_PX, paint_plane

EOI, SOS, COMMENT = 0xD9, 0xDA, 0xFE
APP0, APP1, APP2, APP14 = 0xE0, 0xE1, 0xE2, 0xEE
JFIF, EXIF, ICC = b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0"
JFIF_BYTES = 18  # of its segment, without a thumbnail
ORIENTATION = 0x0112
# In coded pictures 0xff is followed by 0 or a restart's number; anything else is a marker.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
INSTALL = "pip install 'roi-codec-ros[recordings]'"
# Rows and columns of pixels that share a sample of colour, by FFmpeg's names.
SHARED: dict[str, tuple[int, int]] = {
    "yuvj420p": (2, 2),
    "yuvj422p": (1, 2),
    "yuvj444p": (1, 1),
    "yuvj440p": (2, 1),
    "yuv420p": (2, 2),
    "yuv422p": (1, 2),
    "yuv444p": (1, 1),
}
PILLOW_SAMPLINGS = {(1, 1): "4:4:4", (1, 2): "4:2:2", (2, 2): "4:2:0"}


def hide_in_jpeg(data: bytes, hidden: BoolArray) -> bytes:
    """A JPEG without its hidden blocks, without thumbnails, places and comments.

    hidden: bool [⌈H / 16⌉, ⌈W / 16⌉] of the picture as it is stored, before any rotation tag.
    Raises RoiCodecError where it cannot be decoded, or PyAV is not installed.
    """
    if not hidden.any():
        return without_metadata(data)
    planes = _planes(data)
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as source:
            tables = getattr(source, "quantization", None)
            progressive = bool(source.info.get("progressive"))
            if planes is None:  # colours that are no luminance and two of colour
                painted = _painted(np.asarray(source), hidden, (1, 1))
                picture, sampling = Image.fromarray(painted, source.mode), "4:4:4"
            else:
                picture, sampling = _assembled(*planes, hidden)
            written = io.BytesIO()
            picture.save(
                written,
                "JPEG",
                qtables=_tables(tables),
                subsampling=sampling,
                progressive=progressive,
                optimize=progressive,
            )
    except (OSError, ValueError, SyntaxError) as error:
        raise RoiCodecError(
            f"expected a JPEG that can be decoded; found: {reason_of(error)}"
        ) from error
    # After the first segment, which Pillow writes and JFIF requires.
    coded = written.getvalue()
    end = 4 + int.from_bytes(coded[4:6], "big")
    return coded[:end] + _rotation_and_profile(data) + coded[end:]


def _planes(data: bytes) -> tuple[list[NDArray[np.uint8]], tuple[int, int]] | None:
    """Samples of luminance and colours as the file holds them, and how many pixels share one."""
    av = optional("av", needed_for="JPEGs with hidden heads", install=INSTALL)
    context = av.CodecContext.create("mjpeg", "r")
    try:
        frames = context.decode(av.Packet(data)) + context.decode(None)
    except (av.FFmpegError, ValueError) as error:
        raise RoiCodecError(
            f"expected a JPEG that can be decoded; found: {reason_of(error)}"
        ) from error
    if not frames:
        raise RoiCodecError("expected a JPEG that can be decoded; found: no picture")
    frame: Any = frames[0]
    if frame.format.name in ("gray", "gray8"):
        return [plane_array(frame.planes[0])], (1, 1)
    shared = SHARED.get(frame.format.name)
    if shared not in PILLOW_SAMPLINGS:
        return None
    return [plane_array(plane) for plane in frame.planes], shared


def plane_array(plane: Any) -> NDArray[np.uint8]:
    """The samples of a plane of PyAV, uint8 [h, w]; a view."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]


def _painted(plane: NDArray[np.uint8], hidden: BoolArray, shared: tuple[int, int]) -> Any:
    block = (BLOCK_PX // shared[0], BLOCK_PX // shared[1])
    return paint_plane(np.ascontiguousarray(plane), hidden, block)


def _assembled(
    planes: list[NDArray[np.uint8]], shared: tuple[int, int], hidden: BoolArray
) -> tuple[Image.Image, str]:
    """A picture whose colours are repeated, so that taking their mean gives back each sample."""
    height, width = planes[0].shape
    wanted = (-(-height // BLOCK_PX), -(-width // BLOCK_PX))
    if hidden.shape != wanted:
        raise ValueError(f"a picture of {wanted} blocks where {hidden.shape} were judged")
    luminance = _painted(planes[0], hidden, (1, 1))
    if len(planes) == 1:
        return Image.fromarray(luminance), "4:4:4"
    channels = [luminance]
    for plane in planes[1:]:
        colours = _painted(plane, hidden, shared)
        size = (shared[1] * plane.shape[1], shared[0] * plane.shape[0])
        repeated = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)
        channels.append(repeated[:height, :width])
    merged = cv2.merge(channels)
    picture = Image.frombuffer("YCbCr", (width, height), merged, "raw", "YCbCr", 0, 1)
    return picture, PILLOW_SAMPLINGS[shared]


def _tables(tables: Any) -> Any:
    """Quantisation tables as Pillow requires them: by number, without gaps."""
    return {number: table for number, (_, table) in enumerate(sorted(tables.items()))}


# -------------------------------------------------------------------------------------- segments


def without_metadata(data: bytes) -> bytes:
    """A JPEG without metadata about place, time and author, and without thumbnails.

    Its coded picture stays as it is; so do its rotation tag, its colour profile, and how its
    colours are meant. What follows its end, as another picture does, goes. Raises RoiCodecError.
    """
    kept = [_kept(marker, segment) for marker, segment in _segments(data)]
    return data[:2] + b"".join(kept)


def _rotation_and_profile(data: bytes) -> bytes:
    return b"".join(
        _kept(marker, segment) for marker, segment in _segments(data) if marker in (APP1, APP2)
    )


def _kept(marker: int, segment: bytes) -> bytes:
    """What is kept of a segment: all, a part, or nothing."""
    content = segment[4:]
    if marker == APP0 and content.startswith(JFIF):
        return (
            b"\xff\xe0\x00\x10" + content[: JFIF_BYTES - 6].ljust(JFIF_BYTES - 6, b"\0") + b"\0\0"
        )
    if marker == APP1 and content.startswith(EXIF):
        return _rotation(content)
    if marker == APP2 and content.startswith(ICC):
        return segment
    dropped = marker == COMMENT or (APP0 <= marker <= 0xEF and marker != APP14)
    return b"" if dropped else segment


def _rotation(content: bytes) -> bytes:
    """The segment that holds the rotation tag of this one, and nothing else."""
    given = Image.Exif()
    try:
        given.load(content)
        value = given.get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001  # broken tags: viewers show such a picture as it is stored
        return b""
    if not isinstance(value, int) or not 2 <= value <= 8:
        return b""
    alone = Image.Exif()
    alone[ORIENTATION] = value
    exif = alone.tobytes()
    return b"\xff\xe1" + (2 + len(exif)).to_bytes(2, "big") + exif


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and whole segments of a JPEG, coded pictures with the header before them."""
    place = 2
    while True:
        while data[place : place + 2] == b"\xff\xff":  # fill bytes
            place += 1
        if data[place : place + 1] != b"\xff" or place + 2 > len(data):
            raise RoiCodecError("expected a whole JPEG, found one that is cut off or broken")
        marker = data[place + 1]
        if marker == EOI:
            yield marker, data[place : place + 2]
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == SOS:
            found = _MARKER.search(data, end)
            end = found.start() if found else len(data)
        if not place + 4 <= end <= len(data):
            raise RoiCodecError("expected a whole JPEG, found one that is cut off or broken")
        yield marker, data[place:end]
        place = end
