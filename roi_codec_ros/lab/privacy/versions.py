# SPDX-License-Identifier: Apache-2.0
"""One image in the versions that are compared: coded, as JPEG, restored, and after inversions.

An inversion is an operation of any image editor, applied before searching for faces.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import Registry
from roi_codec_ros.lab.datasets.annotated_images import resize
from roi_codec_ros.lab.evaluation.methods import Method

JPEG_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)
JPEG_QUALITIES = range(1, 96)


class Attacker(Protocol):
    """Restores a photograph from a payload."""

    @property
    def name(self) -> str:
        """From what it restores: `latents` or `decoded`."""

    @property
    def steps(self) -> int:
        """Training steps that it had."""

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
    """Code and decode `image` once, and let all attackers restore the same payload."""
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


Inversion = Callable[[ImageArray], ImageArray]

INVERSIONS: Registry[Inversion] = Registry()
NEGATED = "negated"

STRETCHED_PERCENTILES = (1.0, 99.0)
LOCAL_CONTRAST_LIMIT = 4.0
LOCAL_CONTRAST_TILES = (8, 8)
UNSHARP_SIGMA_PX = 3.0
UNSHARP_AMOUNT = 1.5


def chosen_inversions(names: str | None) -> dict[str, Inversion]:
    """The inversions of a list of names with commas, the negative always among them; None: all.

    Raises UsageError for an unknown name.
    """
    if names is None:
        return dict(INVERSIONS)
    wanted = {NEGATED, *names.split(",")}
    if unknown := wanted - set(INVERSIONS):
        raise UsageError(
            f"expected inversions of {', '.join(INVERSIONS)}; found {', '.join(sorted(unknown))}"
        )
    return {name: inversion for name, inversion in INVERSIONS.items() if name in wanted}


@INVERSIONS.register(NEGATED)
def negative(image: ImageArray) -> ImageArray:
    """255 − x: undoes the optimum of a loss that only rewards error inside of heads."""
    return ~image


@INVERSIONS.register("gamma_brighter")
def brighter(image: ImageArray) -> ImageArray:
    """Gamma 0.5: opens the shadows."""
    return _gamma(image, 0.5)


@INVERSIONS.register("gamma_darker")
def darker(image: ImageArray) -> ImageArray:
    """Gamma 2: opens the lights."""
    return _gamma(image, 2.0)


@INVERSIONS.register("contrast_stretch")
def contrast_stretch(image: ImageArray) -> ImageArray:
    """Each colour from its 1st to its 99th percentile onto 0 to 255."""
    low, high = np.percentile(image, STRETCHED_PERCENTILES, axis=(0, 1))
    stretched = (image - low) / np.maximum(high - low, 1.0) * 255.0
    return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)


@INVERSIONS.register("local_contrast")
def local_contrast(image: ImageArray) -> ImageArray:
    """Brightness equalised tile by tile: what little is left in a filled head becomes strong."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    equaliser = cv2.createCLAHE(LOCAL_CONTRAST_LIMIT, LOCAL_CONTRAST_TILES)
    lab[..., 0] = equaliser.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)


@INVERSIONS.register("unsharp")
def unsharp(image: ImageArray) -> ImageArray:
    """Unsharp mask: 1.5 times what a blur of 3 px takes away, added again."""
    sharp = image.astype(np.float32)
    sharp += UNSHARP_AMOUNT * (sharp - cv2.GaussianBlur(sharp, (0, 0), UNSHARP_SIGMA_PX))
    return np.clip(np.rint(sharp), 0, 255).astype(np.uint8)


@INVERSIONS.register("super_resolution")
def super_resolution(image: ImageArray) -> ImageArray:
    """Twice the size by Lanczos interpolation; learned priors would add faces of their own."""
    height, width = image.shape[:2]
    larger = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LANCZOS4)
    return np.asarray(larger, dtype=np.uint8)


def _gamma(image: ImageArray, exponent: float) -> ImageArray:
    levels = np.rint(255.0 * (np.arange(256) / 255.0) ** exponent).astype(np.uint8)
    return levels[image]
