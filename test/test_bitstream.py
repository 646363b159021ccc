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
STREAM_AT, CLASSES_AT, MAP_BYTES_AT, BODY_BYTES_AT = 22, 30, 31, 35

PAYLOAD = Payload(
    model_id=bytes.fromhex(GOLDEN["model_id"]),
    original_height=GOLDEN["original_height"],
    original_width=GOLDEN["original_width"],
    coded_height=GOLDEN["coded_height"],
    coded_width=GOLDEN["coded_width"],
    body=bytes.fromhex(GOLDEN["body"]),
    block_map=bytes.fromhex(GOLDEN["map"]),
    levels=tuple(GOLDEN["levels"]),
    stream=GOLDEN["stream"],
    number=GOLDEN["number"],
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
    predicting = dataclasses.replace(PAYLOAD, temporal=bytes.fromhex(GOLDEN["temporal"]))
    assert predicting.to_bytes() == bytes.fromhex(GOLDEN["data_temporal"])
    assert Payload.from_bytes(predicting.to_bytes()) == predicting


@given(
    st.binary(min_size=8, max_size=8),
    *[st.integers(1, 65535) for _ in range(4)],
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.lists(st.integers(0, 63), min_size=1, max_size=6),
    st.one_of(
        st.just((0, 0, b"")),
        st.tuples(st.integers(1, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=20)),
    ),
)
def test_fields_come_back(
    model_id, original_height, original_width, height, width, body, block_map, levels, place
):
    payload = Payload(
        model_id,
        original_height,
        original_width,
        height,
        width,
        body,
        block_map,
        tuple(levels),
        *place,
    )
    assert Payload.from_bytes(payload.to_bytes(), max_pixels=65535**2) == payload


def test_of_a_frame_that_stands_alone_only_the_body_need_be_given():
    payload = Payload(bytes(8), 4, 4, 4, 4, b"body")
    assert Payload.from_bytes(payload.to_bytes()) == payload
    assert (payload.stream, payload.number, payload.block_map) == (0, 0, b"")
    assert payload.levels == (0,)
    assert len(payload.to_bytes()) == HEADER_BYTES + 1 + 4


@pytest.mark.parametrize("wrap", [bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_any_buffer_is_read(wrap):
    payload = Payload.from_bytes(wrap(DATA))
    assert payload == PAYLOAD
    assert type(payload.body) is type(payload.block_map) is bytes


def test_a_frame_that_stands_alone_has_no_temporal_block():
    alone = dataclasses.replace(PAYLOAD, stream=0, number=0).to_bytes()
    flagged = alone[:5] + b"\1" + alone[6:CRC_AT]
    rest = alone[HEADER_BYTES:] + b"\x80"
    sealed = flagged + struct.pack("<I", zlib.crc32(rest, zlib.crc32(flagged))) + rest
    with pytest.raises(BitstreamError, match="expected a frame that stands alone to have no"):
        Payload.from_bytes(sealed)
    with pytest.raises(BitstreamError, match="expected a frame that stands alone to have no"):
        Payload(bytes(8), 4, 4, 4, 4, b"", temporal=b"\x80")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "expected at least 43 bytes, found 0"),
        (DATA[:42], "expected at least 43 bytes, found 42"),
        (patched(0, "4s", b"\nOIC"), r"expected to start with b'ROIC', found b'\\nOIC'"),
        (patched(4, "B", 2), "expected format version 5, found 2, which only another version"),
        (b"ROIC\2" + bytes(30), "expected format version 5, found 2"),
        (patched(5, "B", 128), "expected flags 0x00 or 0x01, found 0x80"),
        (patched(14, "H", 0), "expected original sides of 1 to 65535 px, found 1920x0"),
        (patched(16, "H", 0), "expected original sides of 1 to 65535 px, found 0x1080"),
        (patched(18, "H", 0), "expected coded sides of 1 to 65535 px, found 640x0"),
        (patched(20, "H", 0), "expected coded sides of 1 to 65535 px, found 0x360"),
        (patched(18, "HH", 65535, 65535), "at most 8294400 pixels, found 65535x65535"),
        (patched(STREAM_AT, "I", 0), "expected number 0 of a frame that stands alone, found 77"),
        (patched(CLASSES_AT, "B", 0), "expected levels of 1 to 6 classes, found 0"),
        (patched(CLASSES_AT, "B", 7), "expected levels of 1 to 6 classes, found 7"),
        (patched(CLASSES_AT, "B", 4), "expected 4 levels, a map of 6 bytes .* found 13 bytes"),
        (patched(MAP_BYTES_AT, "I", 7), "a map of 7 bytes and a body of 4 bytes .* found 13"),
        (patched(MAP_BYTES_AT, "I", 2**32 - 1), "a map of 4294967295 bytes .* found 13 bytes"),
        (patched(BODY_BYTES_AT, "I", 3), "a map of 6 bytes and a body of 3 bytes .* found 13"),
        (patched(BODY_BYTES_AT, "I", 2**32 - 1), "a body of 4294967295 bytes .* found 13 bytes"),
        (patched(HEADER_BYTES, "B", 64), r"expected levels of 0 to 63, found \[64, 0, 63\]"),
        (patched(5, "B", 1), "a body of 4 bytes and more after the header, found 13"),
        (DATA[:-1], "a body of 4 bytes after the header, found 12 bytes"),
        (DATA + b"\0", "a body of 4 bytes after the header, found 14 bytes"),
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
        ({"levels": ()}, "expected levels of 1 to 6 classes, found 0"),
        ({"levels": (0,) * 7}, "expected levels of 1 to 6 classes, found 7"),
        ({"levels": (0, 64)}, r"expected levels of 0 to 63, found \[0, 64\]"),
        ({"levels": (-1,)}, r"expected levels of 0 to 63, found \[-1\]"),
        ({"stream": 2**32}, "expected a stream and a number of 0 to 4294967295"),
        ({"number": -1}, "expected a stream and a number of 0 to 4294967295"),
        ({"stream": 0}, "expected number 0 of a frame that stands alone, found 77"),
    ],
)
def test_a_payload_that_can_not_be_written_is_refused(change, sentence):
    with pytest.raises(BitstreamError, match=sentence):
        dataclasses.replace(PAYLOAD, **change)
