# SPDX-License-Identifier: Apache-2.0
"""Distortion: PSNR and MS-SSIM (Wang et al., 2003), of the whole image and of regions of it.

```
  image, reference ──► SSIM map of scale 1 ──► halve ──► … ──► scale 5
                            │ mean where the region is, a colour at a time     │
                            └────────────► Π contrast^weight · ssim^weight ◄───┘
```
A window counts for a region by where its centre lies. Windows are 11 px wide on every scale, which
is 176 px of the image on the fifth: the figure of a small region also tells of its surroundings.
For the whole image only windows that lie inside it count, as is usual; for a region all do, the
image mirrored at its borders, since few heads are 80 px away from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.datasets.annotations import Annotation

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW_PX = 11
WINDOW_SIGMA_PX = 1.5
LUMINANCE_FLOOR = (0.01 * 255.0) ** 2
CONTRAST_FLOOR = (0.03 * 255.0) ** 2
SMALLEST_SIDE_PX = (WINDOW_PX - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1

MaskArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]


def ms_ssim(
    image: ImageArray, reference: ImageArray, regions: Mapping[str, MaskArray] | None = None
) -> dict[str, float | None]:
    """MS-SSIM, 0 to 1, of "image" (the whole of it) and of each of `regions` (bool [H, W]).

    Images are RGB uint8 [H, W, 3]; the colours' figures are averaged. None for all where a side is
    under 161 px, too short for five scales, and for an empty region.
    """
    if image.shape != reference.shape:
        raise ValueError(f"expected images of equal shape, found {image.shape}, {reference.shape}")
    weights = {name: mask.astype(np.float32) for name, mask in (regions or {}).items()}
    products = {name: np.ones(image.shape[2]) for name in ("image", *weights)}
    if min(image.shape[:2]) < SMALLEST_SIDE_PX:
        return dict.fromkeys(products)
    first, second = image.astype(np.float32), reference.astype(np.float32)
    last = len(SCALE_WEIGHTS) - 1
    for scale, exponent in enumerate(SCALE_WEIGHTS):
        maps = _maps(first, second)
        values = maps.ssim if scale == last else maps.contrast
        products["image"] *= _usable(_inside(values).mean(axis=(0, 1), dtype=float)) ** exponent
        for name, weight in weights.items():
            products[name] *= _usable(_weighted_mean(values, weight)) ** exponent
        if scale < last:
            first, second = _halve(first), _halve(second)
            weights = {name: _halve(weight) for name, weight in weights.items()}
    means = {name: float(product.mean()) for name, product in products.items()}
    return {name: None if np.isnan(mean) else mean for name, mean in means.items()}


@dataclass(frozen=True, eq=False)
class _Maps:
    """float32 [H, W, 3] each: the structural similarity, and its factor of contrast."""

    ssim: FloatArray
    contrast: FloatArray


def _maps(first: FloatArray, second: FloatArray) -> _Maps:
    mean_1, mean_2 = _window(first), _window(second)
    variance_1 = _window(first * first) - mean_1 * mean_1
    variance_2 = _window(second * second) - mean_2 * mean_2
    covariance = _window(first * second) - mean_1 * mean_2
    contrast = (2 * covariance + CONTRAST_FLOOR) / (variance_1 + variance_2 + CONTRAST_FLOOR)
    luminance = (2 * mean_1 * mean_2 + LUMINANCE_FLOOR) / (
        mean_1 * mean_1 + mean_2 * mean_2 + LUMINANCE_FLOOR
    )
    return _Maps(luminance * contrast, contrast)


def _weighted_mean(values: FloatArray, weight: FloatArray) -> NDArray[np.float64]:
    """Mean of each colour, float64 [3]; NaN where nothing weighs."""
    weight = weight.astype(np.float64)
    total = weight.sum()
    if total == 0:
        return np.full(values.shape[2], np.nan)
    return np.einsum("hw,hwc->c", weight, values) / total


def _usable(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    # A negative mean has no root; it means as little likeness as there can be.
    return np.maximum(mean, 0.0)


def _window(values: FloatArray) -> FloatArray:
    """Gaussian mean around every pixel, the image mirrored at its borders."""
    kernel = cv2.getGaussianKernel(WINDOW_PX, WINDOW_SIGMA_PX, cv2.CV_32F)
    return cv2.sepFilter2D(values, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def _inside(values: FloatArray) -> FloatArray:
    """What stems from windows that lie wholly in the image."""
    margin = WINDOW_PX // 2
    return values[margin:-margin, margin:-margin]


def _halve(values: FloatArray) -> FloatArray:
    """Means of 2 × 2 px, an odd side framed by zeros first, as is usual for this measure."""
    height, width = values.shape[:2]
    frame = [(height % 2,) * 2, (width % 2,) * 2, (0, 0)][: values.ndim]
    padded = np.pad(values, frame)
    even = padded[: padded.shape[0] // 2 * 2, : padded.shape[1] // 2 * 2]
    return 0.25 * (even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2])


REGIONS = ("background", "persons", "heads")
PERSONS_SHOWN = "persons_shown"  # persons without heads and without what a codec hides on purpose


def region_masks(annotation: Annotation) -> dict[str, MaskArray]:
    """Which pixels are what: bool [H, W] for each of REGIONS; no pixel is in two of them.

    Heads are taken out of persons; ignored regions (crowds, guessed bodies) are in none.
    """
    shape = (annotation.height, annotation.width)
    heads = _pixels_in(annotation.heads, shape)
    persons = _pixels_in(annotation.persons, shape)
    ignored = _pixels_in(annotation.ignored, shape)
    return {
        "background": ~(persons | heads | ignored),
        "persons": persons & ~heads,
        "heads": heads,
    }


def squared_error(image: ImageArray, reference: ImageArray) -> NDArray[np.float64]:
    """Mean over the colours of the squared difference: float64 [H, W], in 8-bit steps squared."""
    if image.shape != reference.shape:
        raise ValueError(f"expected images of equal shape, found {image.shape}, {reference.shape}")
    difference = image.astype(np.float64) - reference
    return np.square(difference).mean(axis=-1)


def psnr_db(error: NDArray[np.float64], mask: MaskArray | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB of 8-bit images, from `squared_error`, where `mask` is set.

    Infinite without any error; None where the mask covers nothing.
    """
    counted = error if mask is None else error[mask]
    if counted.size == 0:
        return None
    mean = float(counted.mean())
    return math.inf if mean == 0.0 else 10.0 * math.log10(255.0**2 / mean)


def _pixels_in(boxes: NDArray[np.float32], shape: tuple[int, int]) -> MaskArray:
    mask = np.zeros(shape, dtype=np.bool_)
    for x0, y0, x1, y1 in boxes:
        mask[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
    return mask
