# SPDX-License-Identifier: Apache-2.0
"""Distortion, over the whole image and over its background, persons and heads apart."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.datasets.annotations import Annotation

REGIONS = ("background", "persons", "heads")

MaskArray = NDArray[np.bool_]


def region_masks(annotation: Annotation) -> dict[str, MaskArray]:
    """Which pixels are what: bool [H, W] for each of REGIONS; no pixel is in two of them.

    Heads are taken out of persons; ignored regions (crowds, guessed bodies) are in none.
    """
    shape = (annotation.height, annotation.width)
    heads = _inside(annotation.heads, shape)
    persons = _inside(annotation.persons, shape)
    ignored = _inside(annotation.ignored, shape)
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


def _inside(boxes: NDArray[np.float32], shape: tuple[int, int]) -> MaskArray:
    mask = np.zeros(shape, dtype=np.bool_)
    for x0, y0, x1, y1 in boxes:
        mask[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
    return mask
