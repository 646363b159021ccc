# SPDX-License-Identifier: Apache-2.0
"""The one reader of photographs: the pixels of a picture file, as it is shown.

A camera's rotation tag (EXIF orientation) is always applied, as viewers, browsers and labelling
tools do. Grey, palette, CMYK, 16-bit and transparent pictures become 8-bit RGB; pixels that have
no right conversion are refused by name. Every file that cannot be used is a `PhotographError`.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.images import ImageArray

# Pictures that may lie among photographs, and have to be converted before anything is read.
UNREAD_SUFFIXES = frozenset({".dng", ".heic", ".heif"})
PHOTOGRAPH_SUFFIXES = UNREAD_SUFFIXES | {
    *(".avif", ".bmp", ".jfif", ".jp2", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm", ".tif"),
    *(".tiff", ".webp"),
}
LARGEST_PX = 150_000_000  # 450 MB as RGB
LARGEST_FILE_BYTES = 1 << 30

# Formats that Pillow decodes by itself: EPS, for one, would start another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000", "AVIF")
_EIGHT_BIT = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"}
_SIXTEEN_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
_IMAGE_WIDTH, _IMAGE_HEIGHT, _ORIENTATION, _DNG_VERSION = 0x0100, 0x0101, 0x0112, 0xC612
# EXIF orientations: first the sides are swapped, then columns, then rows are reversed.
_SIDEWAYS, _RIGHT_TO_LEFT, _BOTTOM_UP = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)
_BACKGROUND = (255, 255, 255, 255)  # of what is transparent
_NOT_THIS_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)


class PhotographError(RoiCodecError):
    """A photograph that cannot be used. path: which one; reason: what was found instead."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"expected a photograph at {_printable(path)}, found {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[PhotographError], tuple[Path | str, str]]:
        return type(self), (self.path, self.reason)


def read_photograph(path: Path | str, size: tuple[int, int] | None = None) -> ImageArray:
    """The picture as it is shown, uint8 RGB [H, W, 3].

    size: width and height in px that it must have, since boxes were drawn in them. Raises
    PhotographError where there is no such file, or it is cut off, broken, too large, an animation,
    no picture, of another size, or has pixels that cannot be shown.
    """
    with _opened(path) as file:
        return _decoded(file, path, size)


def decode_photograph(data: bytes, name: str = "the data") -> ImageArray:
    """What `read_photograph` makes of a file with this content. name: what errors call it."""
    return _decoded(io.BytesIO(data), name, None)


def photograph_size(path: Path | str) -> tuple[int, int]:
    """Width and height in px of the picture as it is shown, from the header of its file.

    Raises PhotographError; a file that has a header may still be cut off behind it.
    """
    with _opened(path) as file:
        return _shown_size(_header(file, path))


def is_photograph(path: Path) -> bool:
    """Whether a file is named like a photograph."""
    return path.suffix.lower() in PHOTOGRAPH_SUFFIXES


def photographs_in(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The files in a folder that are named like photographs, in the order of their names.

    recursive: with those of its folders, and of folders that links lead to. Hidden ones are left
    out, such as macOS writes beside each file. Raises RoiCodecError where there is no such folder.
    """
    if not folder.is_dir():
        raise RoiCodecError(f"expected a folder of photographs at {folder}, found none")
    try:
        return sorted(
            path
            for path in files_in(folder, recursive=recursive)
            if is_photograph(path) and not path.name.startswith(".")
        )
    except OSError as error:
        raise RoiCodecError(
            f"expected a readable folder of photographs, found {error.filename}: "
            f"{reason_of(error)}"
        ) from error


def files_in(folder: Path, *, recursive: bool) -> Iterator[Path]:
    """Every file in a folder, in no order; hidden folders are passed over. Raises OSError."""
    if not recursive:
        yield from (path for path in folder.iterdir() if path.is_file())
        return

    def fail(error: OSError) -> None:
        raise error

    seen = set()
    for root, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here = os.stat(root)
        if (here.st_dev, here.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (path for path in (Path(root, name) for name in names) if path.is_file())


def readable(paths: Iterable[Path], broken: list[PhotographError]) -> Iterator[ImageArray]:
    """The pictures of those files that can be read; for the others their errors join `broken`."""
    for path in paths:
        try:
            yield read_photograph(path)
        except PhotographError as error:
            broken.append(error)


def left_out(errors: Sequence[RoiCodecError | str], total: int) -> list[str]:
    """A sentence that says how many of `total` photographs were not used, and names the first."""
    if not errors:
        return []
    return [f"{len(errors)} of {total} photographs left out, the first: {errors[0]}"]


def failure_reason(error: Exception) -> str:
    """One line without the file's path; names the kind of errors that are not ours."""
    if isinstance(error, PhotographError):
        return f"expected a photograph, found {error.reason}"
    text = reason_of(error)
    return text if isinstance(error, RoiCodecError) else f"{type(error).__name__}: {text}"


@contextmanager
def _opened(path: Path | str) -> Iterator[IO[bytes]]:
    """The file, or what comes out of a pipe, to seek in."""
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except OSError as error:
        kinds = {FileNotFoundError: "no such file", IsADirectoryError: "a folder"}
        raise PhotographError(path, kinds.get(type(error), reason_of(error))) from error
    except ValueError as error:  # a name that no file can have
        raise PhotographError(path, f"no such file ({error})") from error
    with file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield file
        else:
            try:
                content = file.read(LARGEST_FILE_BYTES + 1)
            except OSError as error:
                raise PhotographError(path, reason_of(error)) from error
            yield io.BytesIO(content)


def _header(file: IO[bytes], path: Path | str) -> Image.Image:
    """The picture before its pixels are decoded; checked for what its header tells."""
    length = file.seek(0, os.SEEK_END)
    if length == 0:
        raise PhotographError(path, "an empty file")
    if length > LARGEST_FILE_BYTES:
        raise PhotographError(path, f"a file of more than {LARGEST_FILE_BYTES >> 20} MB")
    file.seek(0)
    start = file.read(16)
    image, reason = None, _unidentified(start)
    for factory, accepts in _decoders():
        if accepts is not None and accepts(start) is not True:
            continue
        file.seek(0)
        try:
            image = factory(file, "")
            break
        except _NOT_THIS_FORMAT as error:
            if accepts is not None:
                reason = _broken(error)
        except Exception as error:  # whatever a parser makes of foreign bytes
            raise PhotographError(path, _broken(error)) from error
    if image is None:
        raise PhotographError(path, reason)
    width, height = image.size
    if width * height > LARGEST_PX:
        raise PhotographError(
            path, f"{width}×{height} px, more than {LARGEST_PX // 10**6} megapixels"
        )
    reason = _unusable(image)
    if reason:
        raise PhotographError(path, reason)
    return image


def _decoders() -> list[tuple[Any, Any]]:
    """Pillow's own for each of `_FORMATS` that it was built with.

    Not by `Image.open`: ultralytics puts another one in its place, which installs packages when it
    meets a broken file.
    """
    if not set(_FORMATS) <= set(Image.OPEN):
        Image.init()
    return [Image.OPEN[name] for name in _FORMATS if name in Image.OPEN]


def _unidentified(start: bytes) -> str:
    if start[4:8] == b"ftyp" and start[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "a HEIC picture, which has to be converted to JPEG or PNG"
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis"):
        return "an AVIF picture, which this Pillow does not read"
    return "no picture"


def _unusable(image: Image.Image) -> str:
    """Why a picture with this header is no photograph; "" if it is one."""
    if image.format == "TIFF" and _DNG_VERSION in image.tag_v2:  # type: ignore[attr-defined]
        return "a camera's raw file (DNG), which has to be developed first"
    if image.mode not in _EIGHT_BIT | _SIXTEEN_BIT and not _is_wide_grey(image):
        return f"pixels of Pillow's mode {image.mode}, which have no range to show them in"
    if image.format == "MPO":  # of a camera: the photograph, then smaller or other views of it
        return ""
    try:
        pictures = getattr(image, "n_frames", 1)
    except Exception as error:  # noqa: BLE001  # whatever a parser makes of foreign bytes
        return _broken(error)
    return f"{pictures} pictures in one file" if pictures > 1 else ""


def _is_wide_grey(image: Image.Image) -> bool:
    """Whether 32-bit pixels hold 16 bits, as Pillow reads some formats."""
    return image.mode == "I" and image.format in ("PNG", "PPM", "JPEG2000")


def _decoded(file: IO[bytes], path: Path | str, size: tuple[int, int] | None) -> ImageArray:
    image = _header(file, path)
    _check_size(image, path, size)
    try:
        image.load()
        # Pillow turns a TIFF by itself, whether or not it forgets the tag then.
        orientation = 1 if image.format == "TIFF" else orientation_of(image)
        return turned(np.asarray(_as_rgb(image)), orientation)
    except Exception as error:  # whatever a decoder makes of foreign bytes
        raise PhotographError(path, _broken(error)) from error


def _check_size(image: Image.Image, path: Path | str, size: tuple[int, int] | None) -> None:
    width, height = _shown_size(image)
    if size is None or (width, height) == tuple(size):
        return
    reason = f"{width}×{height} px where boxes are of {size[0]}×{size[1]} px"
    if (height, width) == tuple(size) and orientation_of(image) in _SIDEWAYS:
        reason += ", the size before its rotation tag is applied"
    raise PhotographError(path, reason)


def _shown_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    if image.format == "TIFF":  # newer Pillows give the size as shown, others as stored
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height = tags.get(_IMAGE_WIDTH, width), tags.get(_IMAGE_HEIGHT, height)
    return (height, width) if orientation_of(image) in _SIDEWAYS else (width, height)


def orientation_of(image: Image.Image) -> int:
    """1 to 8 as in EXIF; 1 where there is no tag, or one that says nothing."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  # broken tags: viewers show such a picture as it is stored
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels of a picture as it is stored, [H, W] or [H, W, C], as the picture is shown."""
    if orientation in _SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in _RIGHT_TO_LEFT:
        pixels = pixels[:, ::-1]
    if orientation in _BOTTOM_UP:
        pixels = pixels[::-1]
    return np.array(pixels, order="C")


def turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A mask of a picture as it is shown, [H, W], as the picture is stored."""
    if orientation in _BOTTOM_UP:
        pixels = pixels[::-1]
    if orientation in _RIGHT_TO_LEFT:
        pixels = pixels[:, ::-1]
    return pixels.T if orientation in _SIDEWAYS else pixels


def _as_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB. Transparent pixels become white, so that invisible content does not reappear."""
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        grey = np.asarray(image)
        return Image.fromarray(
            (grey.astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _BACKGROUND), image).convert(
            "RGB"
        )
    return image.convert("RGB")


def _broken(error: Exception) -> str:
    """What a decoder's error says of a picture."""
    text = reason_of(error)
    if "truncated" in text.lower():
        return "a picture that is cut off"
    kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
    return f"a broken picture: {kind}{text}"


def _printable(path: Path | str) -> str:
    """A name as a terminal takes it: no line breaks, nothing that no encoding has."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
