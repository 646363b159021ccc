# SPDX-License-Identifier: Apache-2.0
"""A small decoder that learns, while the codec trains, to restore what the codec shall hide."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from roi_codec_ros.codec.networks import ResidualBlock
from roi_codec_ros.lab.training import losses


class Attacker(nn.Module):
    """Pictures [B, 3, H, W] from latents [B, C, H / stride, W / stride]."""

    def __init__(self, channels: int, stride: int, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            ResidualBlock(width),
            ResidualBlock(width),
            nn.Conv2d(width, 3 * stride * stride, 3, padding=1),
            nn.PixelShuffle(stride),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, H, W] in [0, 1]."""
        return torch.as_tensor(self.network(latents) + 0.5)

    def restart(self, seed: int) -> None:
        """New random weights, the same ones for the same seed; no other draw is disturbed."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    fresh = nn.Conv2d(module.in_channels, module.out_channels, 3, padding=1)
                    module.weight.copy_(fresh.weight)
                    assert module.bias is not None and fresh.bias is not None
                    module.bias.copy_(fresh.bias)


class Duel(NamedTuple):
    """attacker: what the attacker is to lower. encoder: what the encoder is to lower."""

    attacker: Tensor
    encoder: Tensor


def duel(
    attacker: nn.Module, latents: Tensor, x: Tensor, filled: Tensor, boxes: losses.Boxes
) -> Duel:
    """Both sides' losses over the boxes of photographs, each blind to the other's weights.

    The attacker's is its squared error (equation (3), k = 0); the encoder gains by a rise of that
    error, but no further than to the error of ``filled``, the photographs with thumbnails in the
    boxes: from there on its loss is 0 and has no gradient, so that it cannot run away.
    """
    error = losses.region_loss(x, attacker(latents.detach()), boxes, k=0)
    weights = {name: value.detach() for name, value in attacker.named_parameters()}
    restored = functional_call(attacker, weights, (latents,))
    ceiling = losses.region_loss(x, filled, boxes, k=0).detach()
    gain = ceiling - losses.region_loss(x, restored, boxes, k=0)
    return Duel(attacker=error, encoder=functional.relu(gain))
