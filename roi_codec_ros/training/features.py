# SPDX-License-Identifier: Apache-2.0
"""A distance between images as a person detector's layers see them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from roi_codec_ros.codec.devices import settle, torch_device
from roi_codec_ros.perception.detector import feature_pyramid

# Layers of YOLOv8 whose outputs are compared: strides 8 and 16 of the backbone, and what the
# detection head is given at strides 8, 16 and 32.
_COMPARED_LAYERS = (4, 6, 15, 18, 21)


class FeatureDistance(nn.Module):
    """Mean squared distance of YOLOv8 activations, each layer relative to its own energy.

    Called with ``(target, x_hat)``, images [B, 3, H, W] in [0, 1] whose sides are multiples of 32;
    gives a scalar, 0 for equal images and about 1 to 2 for unrelated ones. The network is frozen.
    """

    def __init__(self, weights: str | Path, device: str = "cpu") -> None:
        """Raises RoiCodecError when ``weights`` is no YOLOv8 that ``ultralytics`` can load."""
        super().__init__()
        target = torch_device(device)
        self.pyramid = settle(feature_pyramid(weights, _COMPARED_LAYERS), target)
        self._device_type = target.type

    def forward(self, target: Tensor, x_hat: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._features(target)
        terms = [
            ((w.float() - f.float()) ** 2).mean() / (w.float() ** 2).mean().clamp_min(1e-6)
            for w, f in zip(wanted, self._features(x_hat), strict=True)
        ]
        return torch.stack(terms).mean()

    def _features(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(self._device_type, torch.bfloat16):
            features: list[Tensor] = self.pyramid(x)
        return features
