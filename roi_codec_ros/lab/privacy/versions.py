# SPDX-License-Identifier: Apache-2.0
"""One image in the versions that are compared: coded, as JPEG at the same rate, and restored."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.datasets.annotated_images import resize
from roi_codec_ros.lab.evaluation.methods import Method
from roi_codec_ros.lab.privacy.inversions import INVERSIONS

JPEG_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
JPEG_QUALITIES = range(1, 96)


class Attacker(Protocol):
    """Makes of a payload what it takes for the photograph."""

    @property
    def name(self) -> str: ...

    @property
    def steps(self) -> int: ...

    @property
    def pairs(self) -> int:
        """How many pairs of code and photograph it was trained on."""
        ...

    def restore(self, data: bytes) -> ImageArray:
        """RGB uint8 [H, W, 3], of the size of the decoded image."""
        ...


@dataclass(frozen=True, eq=False)
class Versions:
    """pictures: `original`, `jpeg`, `decoded`, `attacker_NAME`, all of one size; and the bytes."""

    pictures: dict[str, ImageArray]
    coded_bytes: int
    jpeg_bytes: int


def attacker_source(name: str) -> str:
    """What the pictures of the attacker `name` are called among the versions."""
    return f"attacker_{name}"


def make_versions(
    image: ImageArray, method: Method, attackers: Sequence[Attacker] = ()
) -> Versions:
    """Code and decode `image` once, and let everyone have a go at the same payload."""
    height, width = image.shape[:2]
    data = method.encode(image)
    jpeg, jpeg_bytes = jpeg_at_rate(image, len(data))
    pictures = {
        "original": image,
        "jpeg": jpeg,
        "decoded": resize(method.decode(data), width, height),
    }
    for attacker in attackers:
        restored = resize(attacker.restore(data), width, height)
        pictures[attacker_source(attacker.name)] = restored
    return Versions(pictures, len(data), jpeg_bytes)


def negated(image: ImageArray) -> ImageArray:
    """The negative, which undoes the optimum of a loss that only rewards error in heads."""
    return INVERSIONS["negated"](image)


def jpeg_at_rate(image: ImageArray, limit_bytes: int) -> tuple[ImageArray, int]:
    """The best that JPEG makes of an image in `limit_bytes`, and the bytes it took.

    At such rates that is seldom the full size: of some sizes, each at its highest quality that
    fits, the one of the least squared error. Where none fits, the smallest file there is.
    """
    height, width = image.shape[:2]
    best: tuple[float, ImageArray, int] | None = None
    smallest: tuple[ImageArray, int] | None = None
    for scale in JPEG_SCALES:
        shrunk = resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
        low, high = 0, len(JPEG_QUALITIES)  # qualities before `low` fit, from `high` on none does
        fitting = b""
        while low < high:
            middle = (low + high) // 2
            data = _jpeg(shrunk, JPEG_QUALITIES[middle])
            if len(data) <= limit_bytes:
                low, fitting = middle + 1, data
            else:
                high = middle
        if not fitting:
            data = _jpeg(shrunk, JPEG_QUALITIES[0])
            smallest = (_from_jpeg(data, width, height), len(data))
            continue
        decoded = _from_jpeg(fitting, width, height)
        error = float(np.square(decoded.astype(np.float32) - image).mean())
        if best is None or error < best[0]:
            best = (error, decoded, len(fitting))
    if best is not None:
        return best[1], best[2]
    assert smallest is not None
    return smallest


def _jpeg(image: ImageArray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0", optimize=True
    )
    return buffer.getvalue()


def _from_jpeg(data: bytes, width: int, height: int) -> ImageArray:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return resize(np.array(picture.convert("RGB")), width, height)
