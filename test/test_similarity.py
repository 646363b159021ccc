# SPDX-License-Identifier: Apache-2.0
"""MS-SSIM: worked values, and parity with another implementation."""

from __future__ import annotations

import numpy as np
import pytest

from roi_codec_ros.lab.evaluation.distortion import SCALE_WEIGHTS, SMALLEST_SIDE_PX, ms_ssim

HEIGHT, WIDTH = 176, 192


def texture(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    image = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width]
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


def noisy(image: np.ndarray, sigma: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def test_an_image_is_wholly_like_itself() -> None:
    image = texture()
    region = np.zeros((HEIGHT, WIDTH), dtype=bool)
    region[60:90, 60:90] = True
    assert ms_ssim(image, image, {"part": region}) == {"image": 1.0, "part": 1.0}


def test_flat_images_differ_in_luminance_alone() -> None:
    dark, bright = (np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (50, 100))
    floor = (0.01 * 255) ** 2
    luminance = (2 * 50 * 100 + floor) / (50**2 + 100**2 + floor)
    expected = luminance ** SCALE_WEIGHTS[-1]  # luminance counts on the last scale only
    assert ms_ssim(dark, bright)["image"] == pytest.approx(expected, abs=1e-4)


def test_the_negative_of_a_texture_is_not_like_it() -> None:
    image = texture()
    assert ms_ssim(255 - image, image)["image"] == 0.0


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (177, 203), (162, 301)])
def test_parity_with_another_implementation(height: int, width: int) -> None:
    torch = pytest.importorskip("torch")
    other = pytest.importorskip("pytorch_msssim")
    image = texture(height=height, width=width)
    for sigma in (5, 40, 90):
        worse = noisy(image, sigma)
        tensors = [torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in (worse, image)]
        expected = float(other.ms_ssim(*tensors, data_range=255))
        assert ms_ssim(worse, image)["image"] == pytest.approx(expected, abs=2e-5)


def test_only_what_is_near_a_region_counts_for_it() -> None:
    image = texture(height=400, width=800)
    worse = image.copy()
    worse[:, :200] = noisy(image[:, :200], 80)
    left = np.zeros((400, 800), dtype=bool)
    left[:, :100] = True
    right = np.zeros((400, 800), dtype=bool)
    right[:, 700:] = True
    figures = ms_ssim(worse, image, {"left": left, "right": right})
    assert figures["right"] == 1.0  # though it lies at the border
    assert figures["left"] < 0.9 < figures["image"] < 1.0


def test_what_cannot_be_measured_is_none() -> None:
    small = texture(height=SMALLEST_SIDE_PX - 1)
    assert ms_ssim(small, small) == {"image": None}
    least = texture(height=SMALLEST_SIDE_PX, width=SMALLEST_SIDE_PX)
    assert ms_ssim(least, least) == {"image": 1.0}
    image = texture()
    nowhere = np.zeros((HEIGHT, WIDTH), dtype=bool)
    assert ms_ssim(image, image, {"nowhere": nowhere})["nowhere"] is None


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="equal shape"):
        ms_ssim(texture(), texture(width=200))
