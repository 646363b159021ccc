# SPDX-License-Identifier: Apache-2.0
"""Training of a block codec's synthesis.

Analysis, steps and rounding are fixed, so nothing of the rate is learnt: what is learnt is to make
the best picture of what the steps leave.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from roi_codec_ros.codec.block_transform import fill_hidden
from roi_codec_ros.codec.ladder import ROUND_UP_FROM, coded_channels, ladder_steps
from roi_codec_ros.codec.networks import BlockAnalysis, BlockSynthesis, build_transforms
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.lab.training.block_batches import BlockBatch, BlockBatches
from roi_codec_ros.lab.training.block_config import BlockTrainingConfig
from roi_codec_ros.lab.training.face_likeness import FaceLikeness
from roi_codec_ros.lab.training.step import DetectorTerm
from roi_codec_ros.lab.training.training_run import TrainingRun

FLAT = (4 / 255) ** 2  # variance from which on texture hides an error


class BlockTrainer(TrainingRun[BlockBatch]):
    """Runs a `BlockTrainingConfig` on batches."""

    config: BlockTrainingConfig

    def __init__(
        self,
        config: BlockTrainingConfig,
        batches: BlockBatches,
        checkpoint: Path,
        device: str = "cpu",
        detector_distance: DetectorTerm | None = None,
        faces: FaceLikeness | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """detector_distance, about: as of `trainer.Trainer`. faces: what `face_weight` prices."""
        super().__init__(config, config.preset, batches, checkpoint, about)
        self._distance, self._device = detector_distance, torch_device(device)
        self._faces = faces.to(self._device) if faces is not None else None
        torch.manual_seed(config.seed)
        preset = get_preset(config.preset)
        analysis, synthesis = build_transforms(preset)
        assert isinstance(analysis, BlockAnalysis) and isinstance(synthesis, BlockSynthesis)
        self._analysis = analysis.to(self._device).eval()
        self.synthesis = synthesis.to(self._device).to(memory_format=torch.channels_last)
        steps = ladder_steps(preset.latent_channels, preset.stride)
        self._steps = torch.from_numpy(steps).to(self._device)
        counts = torch.from_numpy(coded_channels(preset.latent_channels))
        coded = torch.arange(preset.latent_channels)[None] < counts[:, None]
        self._coded = coded.float().to(self._device)
        learnt = [p for p in self.synthesis.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(learnt, lr=config.learning_rate)
        self._start(self.synthesis, {"optimizer": optimizer})

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self._device

    def _train_step(self, batch: BlockBatch, progress: float) -> dict[str, float]:
        config = self.config
        self.synthesis.train()
        self._set_learning_rate(progress)
        photographs, wanted = (self._pixels(x) for x in (batch.images, batch.wanted))
        levels = torch.from_numpy(batch.levels).to(self._device)
        hidden = self._plane(batch.hidden)
        with torch.no_grad():
            y = self.dequantised(photographs, levels, hidden)
        x_hat = self.synthesis(y, levels[:, None].float(), hidden).float()
        persons, heads = self._plane(batch.persons), self._plane(batch.heads)
        seen = persons * (1 - hidden)
        prices = (
            config.person_weight * seen
            + config.background_weight * (1 - persons) * (1 - hidden)
            + (config.head_weight * heads + config.hidden_weight * (1 - heads)) * hidden
        )
        squared = (x_hat - wanted).square().mean(dim=1, keepdim=True)
        flat = 1 + config.flat_weight * _flatness(wanted) * _enlarged(1 - hidden)
        error = (squared * _enlarged(prices) * flat).mean()
        loss, terms = error, {"error": error}
        if self._distance is not None and progress >= config.detector_from:
            looked_at = max(1, round(len(x_hat) * config.detector_share))
            # A person should be found whatever stands where the head was.
            distances = self._distance(
                photographs[:looked_at], wanted[:looked_at], x_hat[:looked_at]
            )
            loss = (
                loss
                + config.feature_weight * distances.features
                + config.detection_weight * distances.detections
            )
            terms |= {"features": distances.features, "detections": distances.detections}
        if self._faces is not None and config.face_weight:
            terms["faces"] = self._faces(x_hat, hidden)
            loss = loss + config.face_weight * terms["faces"]
        large = _enlarged(seen)
        terms |= {"loss": loss, "person_mse": (squared * large).sum() / large.sum().clamp_min(1)}
        figures = {name: float(value.detach()) for name, value in terms.items()}
        self._check_finite("loss", figures["loss"], *figures.values())
        self._descend(loss)
        figures["psnr_db"] = -10.0 * math.log10(max(figures.pop("person_mse"), 1e-10))
        return figures

    def dequantised(self, images: Tensor, levels: Tensor, hidden: Tensor) -> Tensor:
        """What a decoder gets of images [B, 3, S, S]: coefficients [B, C, h, w]."""
        places = levels.long()
        steps, coded = (x[places].permute(0, 3, 1, 2) for x in (self._steps, self._coded))
        values = self._analysis(images) / steps
        symbols = torch.trunc(values + torch.copysign(torch.tensor(1 - ROUND_UP_FROM), values))
        y = (symbols * steps * coded * (1 - hidden)).cpu().numpy()
        for coefficients, mask in zip(y, hidden[:, 0].bool().cpu().numpy(), strict=True):
            fill_hidden(coefficients, mask)
        return torch.from_numpy(y).to(self._device)

    def _plane(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)[:, None].float()


def _flatness(images: Tensor) -> Tensor:
    """Near 1 where an image does not change over 9 pixels, near 0 in texture: [B, 1, H, W]."""
    grey = images.mean(dim=1, keepdim=True)
    mean, square = (
        functional.avg_pool2d(x, 9, stride=1, padding=4, count_include_pad=False)
        for x in (grey, grey.square())
    )
    return FLAT / (FLAT + (square - mean.square()).clamp_min(0))


def _enlarged(plane: Tensor) -> Tensor:
    """Blocks [B, 1, h, w] as pixels."""
    return functional.interpolate(plane, scale_factor=16.0, mode="nearest")
