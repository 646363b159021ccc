# SPDX-License-Identifier: Apache-2.0
"""The network that is trained: a preset's two transforms around compressai's entropy model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from roi_codec_ros.codec.networks import build_transforms
from roi_codec_ros.codec.presets import get_preset


class TrainableCodec(nn.Module):
    """Analysis, compressai's factorised entropy bottleneck, synthesis (paper, Fig. 3)."""

    def __init__(self, preset_name: str) -> None:
        super().__init__()
        from compressai.entropy_models import EntropyBottleneck

        preset = get_preset(preset_name)
        self.analysis, self.synthesis = build_transforms(preset)
        self.bottleneck = EntropyBottleneck(preset.latent_channels)

    def code(self, x: Tensor, reduced_precision: bool) -> Tensor:
        """The latent y before it is rounded, float32 [B, C, h, w]."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=reduced_precision):
            y = self.analysis(x)
        return torch.as_tensor(y.float())

    def quantised(self, y: Tensor) -> Tensor:
        """ŷ, rounded around the channels' means; gradients pass as if it were not."""
        means = self.means()[None, :, None, None]
        residual = y - means
        return residual + (residual.round() - residual).detach() + means

    def forward(self, y: Tensor, reduced_precision: bool) -> tuple[Tensor, Tensor]:
        """``(x̂, likelihoods)``: the rate sees uniform noise, the synthesis rounded values."""
        _, likelihoods = self.bottleneck(y)
        return self.decoded(self.quantised(y), reduced_precision), likelihoods

    def decoded(self, y_hat: Tensor, reduced_precision: bool) -> Tensor:
        """The reconstruction, float32 [B, 3, H, W], not clipped to [0, 1]."""
        with torch.autocast(y_hat.device.type, torch.bfloat16, enabled=reduced_precision):
            x_hat = self.synthesis(y_hat)
        return torch.as_tensor(x_hat.float())

    def density_parameters(self) -> list[nn.Parameter]:
        """The entropy model's, without the quantiles, whose loss is another."""
        named = self.bottleneck.named_parameters()
        return [p for name, p in named if not name.endswith("quantiles")]

    def transform_parameters(self) -> list[nn.Parameter]:
        """Those of both networks."""
        return [*self.analysis.parameters(), *self.synthesis.parameters()]

    def means(self) -> Tensor:
        """The value of symbol 0 in each latent channel, [C]."""
        return self.bottleneck.quantiles[:, 0, 1].detach()
