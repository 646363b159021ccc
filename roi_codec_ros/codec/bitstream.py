# SPDX-License-Identifier: Apache-2.0
"""The payload: one coded frame as bytes, in a `.roic` file and in `CompressedLatent.data`.

The format is defined in docs/bitstream.md.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from roi_codec_ros.codec.table_checks import MAX_CLASSES, MAX_LEVELS
from roi_codec_ros.common.errors import BitstreamError

MAGIC = b"ROIC"
FORMAT_VERSION = 5
FORMAT = f"roic/{FORMAT_VERSION}"  # in messages and files
MODEL_ID_BYTES = 8
MAX_SIDE = 0xFFFF  # px; sizes are 16-bit
MAX_NUMBER = 0xFFFFFFFF  # of streams, frames and byte counts, which are 32-bit
DEFAULT_MAX_PIXELS = 3840 * 2160  # of the coded frame

# magic, version, flags, model id, original height, width, coded height, width, stream, number,
# classes, bytes of the map, bytes of the body
_FIELDS = struct.Struct("<4sBB8sHHHHIIBII")
_CRC = struct.Struct("<I")
TEMPORAL = 1  # flag: the frame has temporal blocks
HEADER_BYTES = _FIELDS.size + _CRC.size  # without the levels that follow, one byte each


@dataclass(frozen=True)
class Payload:
    """One coded frame.

    Attributes:
        model_id: the first 8 bytes of the model's identity.
        original_height, original_width: size of the camera's frame, px, 1 to 65535.
        coded_height, coded_width: size of the coded frame, px, 1 to 65535.
        body: the entropy-coded symbols.
        block_map: the entropy-coded block map; empty if all blocks are of class 0.
        levels: the level of each of the model's 1 to 6 classes, 0 to 63.
        stream: id of the frame's stream, 32 bits; 0 for a standalone frame, which may not skip
            blocks.
        number: the frame's position in its stream, 32 bits; 0 for a standalone frame.
        temporal: which blocks are differences to an earlier frame (`temporal.packed`); empty if
            none, as in a standalone frame.

    Raises:
        BitstreamError: a field is outside its range.
    """

    model_id: bytes
    original_height: int
    original_width: int
    coded_height: int
    coded_width: int
    body: bytes
    block_map: bytes = b""
    levels: tuple[int, ...] = (0,)
    stream: int = 0
    number: int = 0
    temporal: bytes = b""

    def __post_init__(self) -> None:
        if len(self.model_id) != MODEL_ID_BYTES:
            raise BitstreamError(
                f"payload: expected a model id of {MODEL_ID_BYTES} bytes, "
                f"found {len(self.model_id)}"
            )
        _check_size("original", self.original_height, self.original_width)
        _check_size("coded", self.coded_height, self.coded_width)
        _check_place(self.stream, self.number)
        _check_temporal(self.stream, bool(self.temporal))
        _check_classes(len(self.levels))
        _check_levels(self.levels)
        for name, part in (("map", self.block_map), ("body", self.body)):
            if len(part) > MAX_NUMBER:
                raise BitstreamError(
                    f"payload: expected a {name} of at most {MAX_NUMBER} bytes, found {len(part)}"
                )

    def to_bytes(self) -> bytes:
        """Serialise the payload; `from_bytes` reads it back."""
        fields = _FIELDS.pack(
            MAGIC,
            FORMAT_VERSION,
            TEMPORAL if self.temporal else 0,
            self.model_id,
            self.original_height,
            self.original_width,
            self.coded_height,
            self.coded_width,
            self.stream,
            self.number,
            len(self.levels),
            len(self.block_map),
            len(self.body),
        )
        rest = bytes(self.levels) + self.block_map + self.body + self.temporal
        return fields + _CRC.pack(_checksum(fields, rest)) + rest

    @classmethod
    def from_bytes(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Payload:
        """Parse an untrusted payload; every field is checked before anything is copied.

        Args:
            data: any C-contiguous buffer.
            max_pixels: largest accepted coded frame, in pixels.

        Raises:
            BitstreamError: the payload violates docs/bitstream.md.
        """
        view = memoryview(data).cast("B")
        _check_format(view)
        if len(view) < HEADER_BYTES:
            raise BitstreamError(
                f"payload: expected at least {HEADER_BYTES} bytes, found {len(view)}"
            )
        fields = bytes(view[: _FIELDS.size])
        _, _, flags, model_id, *sizes, stream, number, classes, map_bytes, body_bytes = (
            _FIELDS.unpack(fields)
        )
        if flags not in (0, TEMPORAL):
            raise BitstreamError(f"payload: expected flags 0x00 or 0x01, found 0x{flags:02x}")
        original_height, original_width, coded_height, coded_width = sizes
        _check_size("original", original_height, original_width)
        _check_size("coded", coded_height, coded_width)
        if coded_height * coded_width > max_pixels:
            raise BitstreamError(
                f"payload: expected a coded frame of at most {max_pixels} pixels, "
                f"found {coded_width}x{coded_height}"
            )
        _check_place(stream, number)
        _check_temporal(stream, flags == TEMPORAL)
        _check_classes(classes)
        rest = view[HEADER_BYTES:]
        body_at = classes + map_bytes
        end = body_at + body_bytes
        if not (len(rest) > end if flags == TEMPORAL else len(rest) == end):
            raise BitstreamError(
                f"payload: expected {classes} levels, a map of {map_bytes} bytes and a body of "
                f"{body_bytes} bytes{' and more' if flags == TEMPORAL else ''} after the header, "
                f"found {len(rest)} bytes"
            )
        levels = tuple(rest[:classes])
        _check_levels(levels)
        (stated,) = _CRC.unpack_from(view, _FIELDS.size)
        found = _checksum(fields, rest)
        if found != stated:
            raise BitstreamError(f"payload: expected CRC-32 {stated:08x}, found {found:08x}")
        return cls(
            model_id,
            original_height,
            original_width,
            coded_height,
            coded_width,
            body=bytes(rest[body_at:end]),
            block_map=bytes(rest[classes:body_at]),
            levels=levels,
            stream=stream,
            number=number,
            temporal=bytes(rest[end:]),
        )


def _check_format(view: memoryview) -> None:
    """Check magic and version before the length: other versions may have a shorter header."""
    known = len(MAGIC) + 1
    if len(view) < known:
        raise BitstreamError(f"payload: expected at least {HEADER_BYTES} bytes, found {len(view)}")
    magic, version = bytes(view[: len(MAGIC)]), view[len(MAGIC)]
    if magic != MAGIC:
        raise BitstreamError(f"payload: expected to start with {MAGIC!r}, found {magic!r}")
    if version != FORMAT_VERSION:
        raise BitstreamError(
            f"payload: expected format version {FORMAT_VERSION}, found {version}, which only "
            "another version of this package reads"
        )


def _check_place(stream: int, number: int) -> None:
    if not (0 <= stream <= MAX_NUMBER and 0 <= number <= MAX_NUMBER):
        raise BitstreamError(
            f"payload: expected a stream and a number of 0 to {MAX_NUMBER}, "
            f"found {stream} and {number}"
        )
    if stream == 0 and number != 0:
        raise BitstreamError(
            f"payload: expected number 0 of a frame that stands alone, found {number}"
        )


def _check_temporal(stream: int, temporal: bool) -> None:
    if temporal and stream == 0:
        raise BitstreamError(
            "payload: expected a frame that stands alone to have no temporal block"
        )


def _check_classes(count: int) -> None:
    if not 1 <= count <= MAX_CLASSES:
        raise BitstreamError(
            f"payload: expected levels of 1 to {MAX_CLASSES} classes, found {count}"
        )


def _check_levels(levels: tuple[int, ...]) -> None:
    if not all(0 <= level < MAX_LEVELS for level in levels):
        raise BitstreamError(
            f"payload: expected levels of 0 to {MAX_LEVELS - 1}, found {list(levels)}"
        )


def _check_size(name: str, height: int, width: int) -> None:
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise BitstreamError(
            f"payload: expected {name} sides of 1 to {MAX_SIDE} px, found {width}x{height}"
        )


def _checksum(fields: bytes, rest: bytes | memoryview) -> int:
    """CRC-32 of the payload without the checksum field."""
    return zlib.crc32(rest, zlib.crc32(fields))
