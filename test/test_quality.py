# SPDX-License-Identifier: Apache-2.0
"""Distortion by region: worked values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.distortion import psnr_db, region_masks, squared_error


def boxes(*corners: list[float]) -> np.ndarray:
    return np.array(corners, dtype=np.float32).reshape(-1, 4)


def annotation(**kinds: np.ndarray) -> Annotation:
    every = {"persons": boxes(), "heads": boxes(), "ignored": boxes()} | kinds
    return Annotation(Path("a.jpg"), "a", width=8, height=6, **every)


def test_no_pixel_is_in_two_regions() -> None:
    masks = region_masks(
        annotation(
            persons=boxes([1, 1, 5, 5]), heads=boxes([2, 0, 4, 2]), ignored=boxes([6, 0, 8, 6])
        )
    )
    counts = {name: int(mask.sum()) for name, mask in masks.items()}
    assert counts == {"background": 48 - 16 - 2 - 12, "persons": 16 - 2, "heads": 4}
    assert max(sum(mask.astype(int) for mask in masks.values()).ravel()) == 1


def test_a_box_covers_every_pixel_that_it_touches() -> None:
    masks = region_masks(annotation(heads=boxes([1.9, 1.9, 2.1, 2.1])))
    assert np.argwhere(masks["heads"]).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_psnr_of_a_known_error() -> None:
    reference = np.full((6, 8, 3), 100, dtype=np.uint8)
    image = reference.copy()
    image[0, 0] = 90
    error = squared_error(image, reference)
    assert error[0, 0] == 100.0
    mask = np.zeros((6, 8), dtype=bool)
    mask[0, :2] = True
    assert psnr_db(error, mask) == pytest.approx(10 * math.log10(255**2 / 50))
    assert psnr_db(error) == pytest.approx(10 * math.log10(255**2 * 48 / 100))


def test_the_ends_of_the_scale() -> None:
    black = np.zeros((6, 8, 3), dtype=np.uint8)
    assert psnr_db(squared_error(black, black)) == math.inf
    assert psnr_db(squared_error(black, black + np.uint8(255))) == 0.0
    assert psnr_db(squared_error(black, black), np.zeros((6, 8), dtype=bool)) is None


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="equal shape"):
        squared_error(np.zeros((2, 2, 3), np.uint8), np.zeros((1, 2, 3), np.uint8))
