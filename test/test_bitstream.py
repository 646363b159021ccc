# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roi_codec_ros.codec.bitstream import HEADER_BYTES, Payload
from roi_codec_ros.common.errors import BitstreamError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "payload.json").read_text())
CRC_AT = HEADER_BYTES - 4

PAYLOAD = Payload(
    model_id=bytes.fromhex(GOLDEN["model_id"]),
    original_height=GOLDEN["original_height"],
    original_width=GOLDEN["original_width"],
    coded_height=GOLDEN["coded_height"],
    coded_width=GOLDEN["coded_width"],
    body=bytes.fromhex(GOLDEN["body"]),
)
DATA = bytes.fromhex(GOLDEN["data"])


def patched(offset: int, layout: str, *values: int | bytes) -> bytes:
    """The golden payload with some fields changed and its checksum made right again."""
    data = bytearray(DATA)
    struct.pack_into("<" + layout, data, offset, *values)
    checksum = zlib.crc32(data[HEADER_BYTES:], zlib.crc32(data[:CRC_AT]))
    struct.pack_into("<I", data, CRC_AT, checksum)
    return bytes(data)


def test_golden_bytes():
    assert PAYLOAD.to_bytes() == DATA
    assert Payload.from_bytes(DATA) == PAYLOAD
    assert patched(0, "4s", b"ROIC") == DATA


@given(
    st.binary(min_size=8, max_size=8),
    *[st.integers(1, 65535) for _ in range(4)],
    st.binary(max_size=300),
)
def test_fields_come_back(model_id, original_height, original_width, height, width, body):
    payload = Payload(model_id, original_height, original_width, height, width, body)
    assert Payload.from_bytes(payload.to_bytes(), max_pixels=65535**2) == payload


@pytest.mark.parametrize("wrap", [bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_any_buffer_is_read(wrap):
    payload = Payload.from_bytes(wrap(DATA))
    assert payload == PAYLOAD
    assert type(payload.body) is bytes


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "expected at least 30 bytes, found 0"),
        (DATA[:29], "expected at least 30 bytes, found 29"),
        (patched(0, "4s", b"\nOIC"), r"expected to start with b'ROIC', found b'\\nOIC'"),
        (patched(4, "B", 1), "expected format version 2, found 1"),
        (patched(5, "B", 128), "expected no flags, found 0x80"),
        (patched(14, "H", 0), "expected original sides of 1 to 65535 px, found 1920x0"),
        (patched(16, "H", 0), "expected original sides of 1 to 65535 px, found 0x1080"),
        (patched(18, "H", 0), "expected coded sides of 1 to 65535 px, found 640x0"),
        (patched(20, "H", 0), "expected coded sides of 1 to 65535 px, found 0x360"),
        (patched(18, "HH", 65535, 65535), "at most 8294400 pixels, found 65535x65535"),
        (patched(22, "I", 31), "expected a body of 31 bytes, found 32"),
        (patched(22, "I", 0xFFFFFFFF), "expected a body of 4294967295 bytes, found 32"),
        (DATA[:-1], "expected a body of 32 bytes, found 31"),
        (DATA + b"\0", "expected a body of 32 bytes, found 33"),
    ],
)
def test_each_wrong_field_is_named(data, sentence):
    with pytest.raises(BitstreamError, match=sentence) as caught:
        Payload.from_bytes(data)
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_is_noticed():
    for bit in range(8 * len(DATA)):
        damaged = bytearray(DATA)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            Payload.from_bytes(damaged)


def test_max_pixels_is_the_callers():
    pixels = PAYLOAD.coded_height * PAYLOAD.coded_width
    assert Payload.from_bytes(DATA, max_pixels=pixels) == PAYLOAD
    with pytest.raises(BitstreamError, match="found 640x360"):
        Payload.from_bytes(DATA, max_pixels=pixels - 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_id": b"1234567"}, "expected a model id of 8 bytes, found 7"),
        ({"original_height": 65536}, "found 1920x65536"),
        ({"coded_width": 0}, "found 0x360"),
        ({"coded_width": -5}, "found -5x360"),
    ],
)
def test_a_payload_that_can_not_be_written_is_refused(change, sentence):
    with pytest.raises(BitstreamError, match=sentence):
        dataclasses.replace(PAYLOAD, **change)
