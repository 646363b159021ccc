# SPDX-License-Identifier: Apache-2.0
"""The reader of photographs: any file, as it is shown, or one error that names it."""

from __future__ import annotations

import os
import pickle
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.photographs import (
    PhotographError,
    decode_photograph,
    left_out,
    photograph_size,
    photographs_in,
    read_photograph,
    readable,
)

TURN = Image.Transpose
# How a picture is stored that its tag turns upright.
STORED = {
    1: None,
    2: TURN.FLIP_LEFT_RIGHT,
    3: TURN.ROTATE_180,
    4: TURN.FLIP_TOP_BOTTOM,
    5: TURN.TRANSPOSE,
    6: TURN.ROTATE_90,
    7: TURN.TRANSVERSE,
    8: TURN.ROTATE_270,
}
SIXTEEN_BITS = (np.arange(48 * 32, dtype=np.uint16).reshape(48, 32) * 42).astype(np.uint16)


def scene() -> np.ndarray:
    """48 × 32, grey, red in one corner."""
    pixels = np.full((48, 32, 3), 90, np.uint8)
    pixels[4:12, 4:10] = (250, 10, 10)
    return pixels


def save(path: Path, tag: int = 1, **options: Any) -> Path:
    """The scene, stored so that a viewer that knows rotation tags shows it."""
    image = Image.fromarray(scene())
    turn = STORED[tag]
    exif = Image.Exif()
    exif[0x0112] = tag
    (image if turn is None else image.transpose(turn)).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("tag", list(STORED))
def test_a_picture_is_read_as_it_is_shown(tmp_path: Path, suffix: str, tag: int) -> None:
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    path = save(tmp_path / f"a.{suffix}", tag, **options)
    pixels = read_photograph(path)
    assert pixels.shape == (48, 32, 3)
    assert np.abs(pixels.astype(int) - scene()).mean() < 4
    assert photograph_size(path) == (32, 48)


@pytest.mark.parametrize("tag", [0, 9, 60000])
def test_a_tag_that_means_nothing_turns_nothing(tmp_path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(scene()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_photograph(tmp_path / "a.png"), scene())


def test_a_jpeg_has_the_pixels_that_opencv_gives_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 255, (12, 9, 3), np.uint8), (90, 120))
    cv2.imwrite(str(tmp_path / "a.jpg"), noise)
    expected = cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]
    assert np.abs(read_photograph(tmp_path / "a.jpg").astype(int) - expected).max() <= 2


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "rgb.png", "rgb.tif", "rgba.png"])
def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path, name: str) -> None:
    planes = {"a": 1, "rgb": 3, "rgba": 4}[name.partition(".")[0]]
    pixels = np.dstack([SIXTEEN_BITS] * planes)
    if planes == 4:
        pixels[..., 3] = 65535
    cv2.imwrite(str(tmp_path / name), pixels)
    read = read_photograph(tmp_path / name)
    np.testing.assert_array_equal(read, np.dstack([SIXTEEN_BITS >> 8] * 3))


def test_grey_palette_and_cmyk_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(scene())
    image.convert("L").save(tmp_path / "grey.png")
    image.quantize(4).save(tmp_path / "palette.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95, subsampling=0)
    grey = np.asarray(image.convert("L"))
    np.testing.assert_array_equal(
        read_photograph(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2)
    )
    for name in ("palette.png", "cmyk.jpg"):
        assert np.abs(read_photograph(tmp_path / name).astype(int) - scene()).mean() < 4


def test_what_is_transparent_does_not_reappear(tmp_path: Path) -> None:
    """An editor that erases a person may leave the colours below and set them transparent."""
    pixels = np.dstack([scene(), np.full((48, 32), 255, np.uint8)])
    pixels[4:12, 4:10, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_photograph(tmp_path / "a.png")
    assert (read[4:12, 4:10] == 255).all()
    assert (read[20:] == 90).all()


def test_the_first_picture_of_a_cameras_multi_picture_file_is_read(tmp_path: Path) -> None:
    image = Image.fromarray(scene())
    image.save(tmp_path / "a.mpo", save_all=True, append_images=[image.resize((8, 8))])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert read_photograph(tmp_path / "a.jpg").shape == (48, 32, 3)


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def broken_files(folder: Path) -> dict[str, str]:
    """Files of each kind that is refused, and what is said of them."""
    image = Image.fromarray(scene())
    frames = [Image.new("RGB", (32, 48), colour) for colour in ("red", "blue")]
    image.save(folder / "animated.webp", save_all=True, append_images=frames)
    image.save(folder / "animated.png", save_all=True, append_images=frames)
    image.save(folder / "animated.gif", save_all=True, append_images=frames)
    image.save(folder / "pages.tif", save_all=True, append_images=frames)
    cv2.imwrite(str(folder / "float.tif"), scene().astype(np.float32)[..., 0])
    Image.fromarray(SIXTEEN_BITS.astype(np.int32)).save(folder / "int32.tif")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "noise.jpg").write_bytes(bytes(range(256)) * 4)
    (folder / "text.png").write_text("no picture")
    (folder / "huge.png").write_bytes(png_header(20000, 20000))
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (folder / "folder.jpg").mkdir()
    reasons = {
        "animated.webp": "3 pictures in one file",
        "animated.png": "pictures in one file",
        "animated.gif": "3 pictures in one file",
        "pages.tif": "3 pictures in one file",
        "float.tif": "mode F, which have no range",
        "int32.tif": "mode I, which have no range",
        "empty.jpg": "an empty file",
        "noise.jpg": "no picture",
        "text.png": "no picture",
        "huge.png": "20000×20000 px, more than 150 megapixels",
        "phone.heic": "a HEIC picture, which has to be converted",
        "folder.jpg": "a folder",
        "absent.jpg": "no such file",
    }
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    for suffix in ("jpg", "png", "bmp", "tif"):
        Image.fromarray(noise).save(folder / f"whole.{suffix}")
        whole = (folder / f"whole.{suffix}").read_bytes()
        (folder / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
        reasons[f"cut.{suffix}"] = "a picture that is cut off"
    return reasons


def test_what_cannot_be_used_is_one_error_that_names_it(tmp_path: Path) -> None:
    for name, reason in broken_files(tmp_path).items():
        with pytest.raises(PhotographError) as caught:
            read_photograph(tmp_path / name)
        assert reason in str(caught.value)
        assert str(caught.value).startswith(f"expected a photograph at {tmp_path / name}, found ")
        assert caught.value.path == tmp_path / name
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b.jpg", "\ud800.jpg", "a" * 300 + ".jpg"])
def test_a_name_that_no_file_can_have_is_no_file(name: str) -> None:
    with pytest.raises(PhotographError) as caught:
        read_photograph(name)
    str(caught.value).encode()  # what is said can be printed


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PhotographError(Path("a.jpg"), "no picture")))
    assert (error.path, error.reason, str(error)) == (
        Path("a.jpg"),
        "no picture",
        "expected a photograph at a.jpg, found no picture",
    )


def test_the_size_is_that_of_the_boxes_or_it_is_refused(tmp_path: Path) -> None:
    upright = save(tmp_path / "a.jpg")
    turned = save(tmp_path / "b.jpg", 6)
    assert read_photograph(turned, (32, 48)).shape == (48, 32, 3)
    with pytest.raises(PhotographError, match=r"found 32×48 px where boxes are of 16×24 px$"):
        read_photograph(upright, (16, 24))
    with pytest.raises(PhotographError, match="the size before its rotation tag is applied"):
        read_photograph(turned, (48, 32))
    with pytest.raises(PhotographError, match=r"of 48×32 px$"):
        read_photograph(upright, (48, 32))


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    content = save(tmp_path / "a.png").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    np.testing.assert_array_equal(read_photograph(tmp_path / "pipe"), scene())
    writer.join()
    np.testing.assert_array_equal(decode_photograph(content), scene())


def test_a_folder_is_listed_with_its_folders_and_without_what_is_hidden(tmp_path: Path) -> None:
    names = ["b.JPG", "a.tif", "notes.txt", "._a.tif", "day2/c.png", ".trash/d.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "day2" / "again").symlink_to(tmp_path)  # leads round and round
    os.mkfifo(tmp_path / "pipe.png")  # would be waited for
    assert [path.name for path in photographs_in(tmp_path)] == ["a.tif", "b.JPG"]
    listed = photographs_in(tmp_path, recursive=True)
    assert [str(p.relative_to(tmp_path)) for p in listed] == ["a.tif", "b.JPG", "day2/c.png"]
    with pytest.raises(RoiCodecError, match="expected a folder of photographs at"):
        photographs_in(tmp_path / "absent")


def test_broken_ones_are_passed_over_counted_and_named(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.png"), tmp_path / "b.png", save(tmp_path / "c.png")]
    broken: list[PhotographError] = []
    assert len(list(readable(paths, broken))) == 2
    assert left_out(broken, 3) == [
        f"1 of 3 photographs left out, the first: expected a photograph at {tmp_path / 'b.png'}, "
        "found no such file"
    ]
    assert left_out([], 3) == []
