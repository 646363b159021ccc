# SPDX-License-Identifier: Apache-2.0
"""Where fuzzing starts: one good input of each kind, and some near the edges."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from targets import _SCALES, _decoder, _small_model, _tables

from roi_codec_ros.codec import Encoder
from roi_codec_ros.codec.bitstream import Payload
from roi_codec_ros.codec.entropy import FIRST_CLASS, HIDDEN, SKIPPED
from roi_codec_ros.codec.measured_entry import METADATA_KEY
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.temporal import may_be_temporal, packed


def write_seeds(target: str, folder: Path) -> None:
    """Write the seeds of a target as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(_SEEDS[target]()):
        (folder / f"seed{index}").write_bytes(data)


def _payload() -> Iterator[bytes]:
    for sides in ((1, 1, 1, 1), (1080, 1920, 48, 64), (64, 64, 64, 64), (65535, 65535, 1, 4096)):
        yield Payload(bytes(8), *sides, bytes(40)).to_bytes()
    yield Payload(bytes(8), 9, 9, 9, 9, bytes(4), bytes(6), (0, 63, 1), 5, 2**32 - 1).to_bytes()
    predicting = Payload(bytes(8), 9, 9, 9, 9, bytes(6), bytes(4), (0, 63), 5, 6, b"\x80\0\0\1")
    yield predicting.to_bytes()


def _temporal() -> Iterator[bytes]:
    for levels, bits in ((b"\7\x17\7", b"\xa0"), (b"\7\7\7", b""), (b"\0\1\2", b"\xff\x80")):
        yield b"\1\3" + levels + bytes((0, 1, 2, 3, 4, 2, 3, 4)) + bits
    yield b"\2\2\x05\x17\x17" + bytes([2] * 9) + b"\xff\x80"


def _entropy() -> Iterator[bytes]:
    rng = np.random.default_rng(1)
    for index, (tables, scale) in enumerate(zip(_tables(), (*_SCALES, 1.0, 0.2), strict=True)):
        coder = RansCoder(tables)
        for height, width in ((1, 1), (2, 3), (8, 8), (13, 16)):
            shape = (tables.channels, height, width)
            symbols = np.rint(rng.laplace(0, scale, shape)).astype(np.int16)
            symbols[0, 0, 0] = 32767
            blocks = np.full((height, width), FIRST_CLASS, np.uint8)
            for value in range(tables.classes + 2 if height == 8 or tables.levels > 1 else 0):
                blocks[value :: tables.classes + 3, value % 4 :] = value
            levels = np.arange(1, tables.classes + 1) % tables.levels
            temporal = may_be_temporal(blocks, levels.tolist()) & (rng.random(blocks.shape) < 0.3)
            block_map, body = coder.encode(symbols, blocks, levels, temporal)
            bits = packed(temporal, blocks, levels.tolist())[:8]
            chosen = sum(int(level) * 4**c for c, level in enumerate(levels))
            head = bytes((index, height - 1, width - 1, chosen, len(block_map), len(bits)))
            yield head + block_map + bits + body


def _roic() -> Iterator[bytes]:
    encoder = Encoder(_decoder().models[0])
    for height, width in ((16, 16), (17, 1), (64, 64)):
        image = np.random.default_rng(2).integers(0, 255, (height, width, 3), np.uint8)
        yield encoder.encode(image).data
    coder = RansCoder(encoder.model.tables)
    symbols = encoder.symbols(np.full((48, 64, 3), 90, np.uint8))
    for value in (HIDDEN, SKIPPED):
        blocks = np.full(symbols.shape[1:], FIRST_CLASS, np.uint8)
        blocks[1:, 2:] = value
        block_map, body = coder.encode(symbols, blocks)
        yield Payload(encoder.model.id, 48, 64, 48, 64, body, block_map).to_bytes()
    place = {"stream": 7, "number": 2**32 - 1}
    yield Payload(encoder.model.id, 48, 64, 48, 64, body, block_map, **place).to_bytes()


def _model() -> Iterator[bytes]:
    content = _small_model().content
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length]
    card = json.loads(header)["__metadata__"][METADATA_KEY]
    yield b"b" + content
    yield b"h" + header
    yield b"c" + card.encode()
    yield b"p" + json.dumps(json.loads(card)["preset"]).encode()
    yield b"t" + content[8 + length :]


def _photograph() -> Iterator[bytes]:
    pixels = np.random.default_rng(3).integers(0, 255, (6, 9, 3), np.uint8)
    rgb = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    images = {
        "JPEG": [rgb, rgb.convert("L"), rgb.convert("CMYK")],
        "PNG": [
            rgb,
            rgb.quantize(4),
            rgb.convert("LA"),
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        ],
        "WEBP": [rgb],
        "TIFF": [rgb, Image.fromarray(pixels[..., 0].astype(np.uint16))],
        "BMP": [rgb],
        "PPM": [rgb],
        "GIF": [rgb],
    }
    for name, variants in images.items():
        for image in variants:
            for options in ({"exif": exif},) if name in ("JPEG", "PNG", "TIFF") else ({},):
                file = io.BytesIO()
                image.save(file, name, **options)
                yield file.getvalue()


def _data_set() -> Iterator[bytes]:
    box = {"vbox": [1, 2, 9, 9], "hbox": [2, 2, 3, 3], "tag": "person", "head_attr": {"ignore": 0}}
    line = {"ID": "a", "gtboxes": [box, {**box, "tag": "mask", "extra": {"ignore": 1}}]}
    sized = {**line, "ID": "day2/a", "width": 64, "height": 48, "person_boxes": "teacher"}
    yield b"o" + json.dumps(line).encode() + b"\n" + json.dumps(sized).encode()
    images = [
        {"id": 1, "file_name": "a.png", "width": 64, "height": 48},
        {"id": "2", "file_name": "day2\\a.png"},
    ]
    boxes = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": "2", "category_id": 2.0, "bbox": [1, 2, 3, 4]},
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "Head"}]
    coco = {"images": images, "annotations": boxes, "categories": categories}
    yield b"c" + json.dumps(coco).encode()
    yield b"y" + b"names: [person, head]\nnc: 2\nval: ../images/val\n"
    yield b"y" + b"path: .\nvalidation: [images/val/day2]\nnames:\n  0: person\n  '1': x\n"
    yield b"l" + b"0 0.5 0.5 0.2 0.2\n1.0 .1 .1 .2 .2 .5 .5 1 .5 .5 1\n"


def _messages() -> Iterator[bytes]:
    """Kind, camera, stamp, frame id, and what `targets` takes for each kind."""

    def head(kind: int, camera: int, seconds: int) -> bytes:
        return struct.pack("<BBiIH", kind, camera, seconds, 5, 0)

    coded = Payload(bytes(8), 16, 16, 16, 16, bytes(40)).to_bytes()
    latent = struct.pack("<QH", 1, 0) + struct.pack("<H", len(coded)) + coded + b"\1\1"
    yield head(0, 0, 1) + latent + head(0, 0, 2) + latent
    frame = struct.pack("<IIHH", 480, 640, 4, 6)
    pixels = bytes(72)
    for encoding, depth in ((0, 3), (4, 1), (5, 2), (9, 1)):
        image = bytes((encoding, 0, 4, 6, 6 * depth))
        image += struct.pack("<H", 24 * depth) + pixels[: 24 * depth]
        yield head(1, 0, 1) + frame + head(2, 0, 1) + image
    lens = struct.pack("<BBHHB", 0, 0, 640, 480, 4) + struct.pack("<4e", 0.1, 0.01, 0, 0)
    lens += struct.pack("<9e", 500, 0, 320, 0, 500, 240, 0, 0, 1)
    person = struct.pack("<IB5e", 1, 0, 0.9, 300, 100, 60, 200)
    persons = struct.pack("<HBHHfB", 0, 0, 480, 640, 5.0, 2) + person + person
    for camera in (0, 1):
        moving = b"".join(head(3, camera, seconds) + persons for seconds in (1, 2, 3))
        yield head(4, camera, 1) + lens + moving


def _driver_image() -> Iterator[bytes]:
    """Number of the encoding, sizes and pixels; or the number of a compression and its bytes."""
    from roi_codec_ros.common.image_messages import ENCODINGS

    rng = np.random.default_rng(4)
    for number in range(len(ENCODINGS)):
        yield bytes((number, 0, 4, 4, 32, 0)) + rng.integers(0, 255, 32 * 6, np.uint8).tobytes()
    compressed = len(ENCODINGS)
    for mode in ("L", "RGB"):
        picture = Image.new(mode, (12, 8), 77)
        for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})):
            file = io.BytesIO()
            picture.save(file, kind, **options)
            yield bytes((compressed,)) + file.getvalue()
            yield bytes((compressed + 1,)) + file.getvalue()


_SEEDS = {
    "payload": _payload,
    "entropy": _entropy,
    "roic": _roic,
    "temporal": _temporal,
    "model": _model,
    "photograph": _photograph,
    "data_set": _data_set,
    "driver_image": _driver_image,
    "messages": _messages,
}
