# SPDX-License-Identifier: Apache-2.0
"""Picture files whose heads are hidden; their format, and how they are turned, stay.

What a file tells of where, when and by whom goes, and so do thumbnails. Formats that lose nothing
lose nothing outside heads; JPEGs are written with their own tables.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.files import stamped
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import (
    PhotographError,
    decode_photograph,
    orientation_of,
    turned,
    turned_back,
)
from roi_codec_ros.recordings.hiding import BoolArray
from roi_codec_ros.recordings.jpegs import hide_in_jpeg
from roi_codec_ros.regions import BLOCK_PX, paint_plane

JPEG = b"\xff\xd8\xff"
# How the others are written, so that they lose nothing where the format allows that.
OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_deflate"},
    "BMP": {},
    "PPM": {},
    "JPEG2000": {"irreversible": False},
    "AVIF": {"quality": 95},
    "GIF": {},
}
_KEPT_MODES = {"L", "RGB", "RGBA", "LA", "I;16"}
_WITH_ALPHA = {"RGBA", "LA"}


class Picture:
    """A picture file; as `pipeline.Frame`. Output: the bytes of the file to write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size_bytes(self) -> int:
        """Nothing is held but its name."""
        return 0

    def image(self) -> ImageArray:
        """As it is shown. Raises PhotographError."""
        return decode_photograph(self._content(), str(self.path))

    def hide(self, hidden: BoolArray) -> bytes:
        """The file without what is hidden. Raises RoiCodecError."""
        return hide_in_picture(self._content(), hidden, str(self.path))

    def shown(self, output: bytes) -> ImageArray:
        """What is written, as it is shown."""
        return decode_photograph(output, str(self.path))

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise PhotographError(self.path, reason_of(error)) from error


def hide_in_picture(data: bytes, hidden: BoolArray, name: str) -> bytes:
    """The content of a picture file without its hidden blocks.

    hidden: bool [⌈H / 16⌉, ⌈W / 16⌉] of the picture as it is shown. Raises RoiCodecError.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            kind = "JPEG" if data.startswith(JPEG) else str(picture.format)
            orientation = 1 if kind == "TIFF" else orientation_of(picture)
            if kind == "JPEG":
                blocks = _stored_blocks(hidden, picture.size, orientation)
                return stamped(hide_in_jpeg(data, blocks))
            if kind not in OPTIONS:
                raise PhotographError(name, f"a format that is not written: {kind}")
            return stamped(_without_loss(picture, hidden, orientation, kind))
    except RoiCodecError:
        raise
    except Exception as error:  # whatever a decoder or an encoder makes of foreign bytes
        raise PhotographError(
            name, f"a picture that cannot be written: {reason_of(error)}"
        ) from error


def hide_without_loss(data: bytes, hidden: BoolArray) -> bytes:
    """As `hide_in_picture` for PNGs and the like, which are not turned. Raises PhotographError."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return _without_loss(picture, hidden, 1, str(picture.format))
    except Exception as error:  # whatever a decoder makes of foreign bytes
        raise PhotographError(
            "a message", f"no picture that can be written: {reason_of(error)}"
        ) from error


def _without_loss(picture: Image.Image, hidden: BoolArray, orientation: int, kind: str) -> bytes:
    profile = picture.info.get("icc_profile")
    if picture.mode == "I":  # 16 bits, as older Pillows read them
        pixels: NDArray[Any] = np.asarray(picture).clip(0, 65535).astype(np.uint16)
    else:
        if picture.mode not in _KEPT_MODES:
            transparent = "transparency" in picture.info or picture.mode in ("PA", "La", "RGBa")
            picture = picture.convert("RGBA" if transparent else "RGB")
        pixels = np.asarray(picture)
    pixels = turned(pixels, orientation)
    block = (BLOCK_PX, BLOCK_PX)
    if picture.mode in _WITH_ALPHA:
        # Colours of what is transparent are not shown, and were not judged.
        seen = pixels[..., -1:] > 0
        colours = paint_plane(pixels[..., :-1] * seen, hidden, block)
        pixels = np.concatenate([colours, pixels[..., -1:]], axis=-1)
    else:
        pixels = paint_plane(pixels, hidden, block)
    written = io.BytesIO()
    options = OPTIONS[kind] | ({"icc_profile": profile} if profile else {})
    Image.fromarray(pixels).save(written, kind, **options)
    return written.getvalue()


def _stored_blocks(hidden: BoolArray, size: tuple[int, int], orientation: int) -> BoolArray:
    """Blocks of a picture as it is stored that touch what is hidden in it as it is shown."""
    if orientation == 1:
        return hidden
    width, height = size
    shown = (width, height) if orientation >= 5 else (height, width)
    mask = hidden.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1)[: shown[0], : shown[1]]
    stored = turned_back(mask, orientation)
    rows, columns = (-(-side // BLOCK_PX) for side in stored.shape)
    whole = np.zeros((rows * BLOCK_PX, columns * BLOCK_PX), np.bool_)
    whole[: stored.shape[0], : stored.shape[1]] = stored
    blocks = whole.reshape(rows, BLOCK_PX, columns, BLOCK_PX)
    return np.asarray(blocks.any(axis=(1, 3)), np.bool_)
