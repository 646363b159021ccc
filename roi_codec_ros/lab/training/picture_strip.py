# SPDX-License-Identifier: Apache-2.0
"""A picture strip of a training run: a few crops, always the same ones, and what they become."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roi_codec_ros.common.files import stamped, write
from roi_codec_ros.lab.training.data import CropSampler
from roi_codec_ros.lab.training.trainable import TrainableCodec

_SEED = 20231123  # of the crops that are shown: any, as long as it stays


class PictureStrip:
    """Originals to the left, decoded to the right."""

    def __init__(self, sampler: CropSampler, crops: int = 4) -> None:
        self._images = sampler.batch(crops, np.random.default_rng(_SEED)).images

    @torch.no_grad()
    def draw(self, codec: TrainableCodec, device: torch.device) -> NDArray[np.uint8]:
        """The strip under a codec's present weights, RGB uint8 [crops · S, 2 · S, 3]."""
        x = self._images.to(device).float().div(255.0)
        y = codec.code(x, reduced_precision=False)
        x_hat = codec.decoded(codec.quantised(y), reduced_precision=False)
        rows = [_pixels(images) for images in (x, x_hat)]
        return np.concatenate([np.concatenate(list(row), axis=0) for row in rows], axis=1)


def _pixels(images: Tensor) -> NDArray[np.uint8]:
    pixels = images.clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)
    return np.asarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


def write_strip(path: Path, strip: NDArray[np.uint8]) -> None:
    """Write a strip as PNG. Raises RoiCodecError."""
    _, data = cv2.imencode(".png", cv2.cvtColor(strip, cv2.COLOR_RGB2BGR))
    write(path, stamped(data.tobytes()))
