# SPDX-License-Identifier: Apache-2.0
"""Training of the regions network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from roi_codec_ros.common.devices import fast_bfloat16, torch_device
from roi_codec_ros.lab.training.region_batches import (
    RegionBatch,
    RegionBatches,
    RegionCropSettings,
)
from roi_codec_ros.lab.training.region_network import RegionNetwork
from roi_codec_ros.lab.training.settings import number, positive, settle_budget
from roi_codec_ros.lab.training.training_run import TrainingRun

CHECKPOINT_KIND = "regions"


@dataclass(frozen=True)
class RegionTrainingConfig:
    """A run.

    Attributes:
        minutes, steps, epochs: the budget, one of them; the learning rate follows one cosine over
            it.
        trunk_learning_rate, learning_rate: of what starts from published weights, and of the rest.
        head_weight: price of heads relative to persons.
        head_recall, person_recall: how much dearer a missed head or person is than a false one.
    """

    minutes: float | None = positive(None)
    steps: int | None = number(None, 1)
    epochs: float | None = positive(None)
    trunk_learning_rate: float = positive(1.5e-4)
    learning_rate: float = positive(1e-3)
    warm_up_steps: int = number(100, 1)
    batch_size: int = number(8, 1)
    head_weight: float = positive(2.0)
    head_recall: float = positive(3.0)
    person_recall: float = positive(1.5)
    ema_decay: float = number(0.998, 0.0, 1.0)
    gradient_clip: float = positive(2.0)
    weight_decay: float = number(1e-4, 0.0)
    checkpoint_every_s: float = number(120.0, 0.0)
    seed: int = number(1, 0)
    workers: int = number(0, 0, 256)
    crops: RegionCropSettings = field(default_factory=RegionCropSettings)

    def __post_init__(self) -> None:
        settle_budget(self, minutes=30.0)


class RegionTrainer(TrainingRun[RegionBatch]):
    """Runs a `RegionTrainingConfig` on batches."""

    config: RegionTrainingConfig

    def __init__(
        self,
        config: RegionTrainingConfig,
        network: RegionNetwork,
        batches: RegionBatches,
        checkpoint: Path,
        device: str = "cpu",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """network: as it starts. about: what the card shall say of the training."""
        super().__init__(config, CHECKPOINT_KIND, batches, checkpoint, about)
        self._device = torch_device(device)
        self._reduces = fast_bfloat16(self._device)
        self.network = network.to(self._device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            [
                {"params": network.trunk_parameters(), "rate": config.trunk_learning_rate},
                {"params": network.new_parameters(), "rate": config.learning_rate},
            ],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self._start(self.network, {"optimizer": optimizer})

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self._device

    def averaged(self) -> RegionNetwork:
        """A network of the averaged weights, on the CPU."""
        network = RegionNetwork()
        network.load_state_dict({k: v.cpu() for k, v in self.average.items()})
        return network.eval()

    def _train_step(self, batch: RegionBatch, progress: float) -> dict[str, float]:
        """Figures: weighed cross entropies of heads and persons, nats a block."""
        config = self.config
        self._set_learning_rate(progress)
        images = torch.from_numpy(batch.images).to(self._device).permute(0, 3, 1, 2).float()
        wanted, prices = (
            torch.from_numpy(x).to(self._device) for x in (batch.wanted, batch.prices)
        )
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduces):
            logits = self.network(images.contiguous(memory_format=torch.channels_last))
        logits = logits.float()
        dearer = torch.tensor([config.head_recall, config.person_recall], device=self._device)
        prices = prices * torch.where(wanted > 0.5, dearer[None, :, None, None], 1.0)
        entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        head, person = (entropy * prices).mean(dim=(0, 2, 3))
        loss = config.head_weight * head + person
        terms = {"loss": loss, "head": head, "person": person}
        figures = {name: float(value.detach()) for name, value in terms.items()}
        self._check_finite("loss", figures["loss"])
        self._descend(loss)
        return figures
