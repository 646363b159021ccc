# SPDX-License-Identifier: Apache-2.0
"""What anybody can do to an anonymized picture with an image editor before looking for faces.

Each is a function of an RGB uint8 image [H, W, 3]; the result may be larger, never turned or cut.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from roi_codec_ros.common.images import ImageArray

Inversion = Callable[[ImageArray], ImageArray]

INVERSIONS: dict[str, Inversion] = {}

STRETCHED_PERCENTILES = (1.0, 99.0)
LOCAL_CONTRAST_LIMIT = 4.0
LOCAL_CONTRAST_TILES = (8, 8)
UNSHARP_SIGMA_PX = 3.0
UNSHARP_AMOUNT = 1.5


def register_inversion(name: str) -> Callable[[Inversion], Inversion]:
    """Audit with one more inversion, under `name`."""

    def register(inversion: Inversion) -> Inversion:
        INVERSIONS[name] = inversion
        return inversion

    return register


@register_inversion("negated")
def negative(image: ImageArray) -> ImageArray:
    """255 − x: undoes the optimum of a loss that only rewards error inside of heads."""
    return 255 - image


@register_inversion("gamma_brighter")
def brighter(image: ImageArray) -> ImageArray:
    """Gamma 0.5: opens the shadows."""
    return _gamma(image, 0.5)


@register_inversion("gamma_darker")
def darker(image: ImageArray) -> ImageArray:
    """Gamma 2: opens the lights."""
    return _gamma(image, 2.0)


@register_inversion("contrast_stretch")
def contrast_stretch(image: ImageArray) -> ImageArray:
    """Each colour from its 1st to its 99th percentile onto 0 to 255."""
    low, high = np.percentile(image, STRETCHED_PERCENTILES, axis=(0, 1))
    stretched = (image - low) / np.maximum(high - low, 1.0) * 255.0
    return np.clip(np.rint(stretched), 0, 255).astype(np.uint8)


@register_inversion("local_contrast")
def local_contrast(image: ImageArray) -> ImageArray:
    """Brightness equalised tile by tile: what little is left in a filled head becomes strong."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    equaliser = cv2.createCLAHE(LOCAL_CONTRAST_LIMIT, LOCAL_CONTRAST_TILES)
    lab[..., 0] = equaliser.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)


@register_inversion("unsharp")
def unsharp(image: ImageArray) -> ImageArray:
    """Unsharp mask: 1.5 times what a blur of 3 px takes away, added again."""
    sharp = image.astype(np.float32)
    sharp += UNSHARP_AMOUNT * (sharp - cv2.GaussianBlur(sharp, (0, 0), UNSHARP_SIGMA_PX))
    return np.clip(np.rint(sharp), 0, 255).astype(np.uint8)


@register_inversion("super_resolution")
def super_resolution(image: ImageArray) -> ImageArray:
    """Twice the size by Lanczos interpolation; learned priors would add faces of their own."""
    height, width = image.shape[:2]
    larger = cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_LANCZOS4)
    return np.asarray(larger, dtype=np.uint8)


def _gamma(image: ImageArray, exponent: float) -> ImageArray:
    levels = np.rint(255.0 * (np.arange(256) / 255.0) ** exponent).astype(np.uint8)
    return levels[image]
