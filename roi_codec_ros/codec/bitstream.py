# SPDX-License-Identifier: Apache-2.0
"""The payload: one coded frame as bytes, in a `.roic` file and in `CompressedLatent.data`.

The format is defined in docs/bitstream.md.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from roi_codec_ros.common.errors import BitstreamError

MAGIC = b"ROIC"
FORMAT_VERSION = 2
MODEL_ID_BYTES = 8
MAX_SIDE = 0xFFFF  # px; sizes are 16-bit
MAX_BODY_BYTES = 0xFFFFFFFF
DEFAULT_MAX_PIXELS = 3840 * 2160  # of the coded frame

# magic, version, flags, model id, original height, width, coded height, width, body length
_FIELDS = struct.Struct("<4sBB8sHHHHI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size


@dataclass(frozen=True)
class Payload:
    """One coded frame, which decodes alone.

    Attributes:
        model_id: the first 8 bytes of the SHA-256 of the model file.
        original_height, original_width: the camera's frame, px, 1 to 65535.
        coded_height, coded_width: the frame that was coded, px, 1 to 65535.
        body: the entropy-coded latent.

    Raises:
        BitstreamError: a field is outside its range.
    """

    model_id: bytes
    original_height: int
    original_width: int
    coded_height: int
    coded_width: int
    body: bytes

    def __post_init__(self) -> None:
        if len(self.model_id) != MODEL_ID_BYTES:
            raise BitstreamError(
                f"payload: expected a model id of {MODEL_ID_BYTES} bytes, "
                f"found {len(self.model_id)}"
            )
        _check_size("original", self.original_height, self.original_width)
        _check_size("coded", self.coded_height, self.coded_width)
        if len(self.body) > MAX_BODY_BYTES:
            raise BitstreamError(
                f"payload: expected a body of at most {MAX_BODY_BYTES} bytes, "
                f"found {len(self.body)}"
            )

    def to_bytes(self) -> bytes:
        """The payload as `from_bytes` reads it."""
        fields = _FIELDS.pack(
            MAGIC,
            FORMAT_VERSION,
            0,
            self.model_id,
            self.original_height,
            self.original_width,
            self.coded_height,
            self.coded_width,
            len(self.body),
        )
        return b"".join((fields, _CRC.pack(_checksum(fields, self.body)), self.body))

    @classmethod
    def from_bytes(
        cls,
        data: bytes | bytearray | memoryview,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Payload:
        """Read a payload that may be anything; every field is checked before the body is copied.

        Args:
            data: any C-contiguous buffer.
            max_pixels: largest coded frame to accept, px.

        Raises:
            BitstreamError: anything is not as docs/bitstream.md says.
        """
        view = memoryview(data).cast("B")
        if len(view) < HEADER_BYTES:
            raise BitstreamError(
                f"payload: expected at least {HEADER_BYTES} bytes, found {len(view)}"
            )
        fields = bytes(view[: _FIELDS.size])
        magic, version, flags, model_id, *sizes, body_bytes = _FIELDS.unpack(fields)
        if magic != MAGIC:
            raise BitstreamError(f"payload: expected to start with {MAGIC!r}, found {magic!r}")
        if version != FORMAT_VERSION:
            raise BitstreamError(
                f"payload: expected format version {FORMAT_VERSION}, found {version}"
            )
        if flags != 0:
            raise BitstreamError(f"payload: expected no flags, found 0x{flags:02x}")
        original_height, original_width, coded_height, coded_width = sizes
        _check_size("original", original_height, original_width)
        _check_size("coded", coded_height, coded_width)
        if coded_height * coded_width > max_pixels:
            raise BitstreamError(
                f"payload: expected a coded frame of at most {max_pixels} pixels, "
                f"found {coded_width}x{coded_height}"
            )
        body = view[HEADER_BYTES:]
        if len(body) != body_bytes:
            raise BitstreamError(
                f"payload: expected a body of {body_bytes} bytes, found {len(body)}"
            )
        (stated,) = _CRC.unpack_from(view, _FIELDS.size)
        found = _checksum(fields, body)
        if found != stated:
            raise BitstreamError(f"payload: expected CRC-32 {stated:08x}, found {found:08x}")
        return cls(
            model_id, original_height, original_width, coded_height, coded_width, bytes(body)
        )


def _check_size(name: str, height: int, width: int) -> None:
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise BitstreamError(
            f"payload: expected {name} sides of 1 to {MAX_SIDE} px, found {width}x{height}"
        )


def _checksum(fields: bytes, body: bytes | memoryview) -> int:
    """CRC-32 of the whole payload but the checksum itself."""
    return zlib.crc32(body, zlib.crc32(fields))
