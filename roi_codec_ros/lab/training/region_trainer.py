# SPDX-License-Identifier: Apache-2.0
"""Training of the regions network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.training.checkpoints import read_checkpoint, write_checkpoint
from roi_codec_ros.lab.training.engine import learning_rate_share
from roi_codec_ros.lab.training.loader import Prefetcher
from roi_codec_ros.lab.training.photograph_store import worker_threads
from roi_codec_ros.lab.training.region_batches import (
    RegionBatch,
    RegionBatches,
    RegionCropSettings,
)
from roi_codec_ros.lab.training.region_network import RegionNetwork
from roi_codec_ros.lab.training.settings import number, positive

CHECKPOINT_KIND = "regions"


@dataclass(frozen=True)
class RegionTrainingConfig:
    """A run.

    Attributes:
        minutes: the budget; the learning rate follows one cosine over it.
        trunk_learning_rate, learning_rate: of what starts from published weights, and of the rest.
        head_weight: price of heads relative to persons.
        head_recall, person_recall: how much dearer a missed head or person is than a false one.
    """

    minutes: float = positive(30.0)
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
    crops: RegionCropSettings = field(default_factory=RegionCropSettings)


@dataclass(frozen=True)
class RegionStep:
    """Figures of one step. head, person: weighed cross entropies, nats a block."""

    step: int
    progress: float
    head: float
    person: float


class RegionTrainer:
    """Runs a `RegionTrainingConfig`; resumes where a checkpoint left off."""

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
        self.config, self.checkpoint, self.about = config, checkpoint, dict(about or {})
        self.step, self.elapsed_s = 0, 0.0
        self._batches, self._device = batches, torch_device(device)
        self.network = network.to(self._device).to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.AdamW(
            [
                {"params": network.trunk_parameters(), "rate": config.trunk_learning_rate},
                {"params": network.new_parameters(), "rate": config.learning_rate},
            ],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def resume(self) -> None:
        """Go on from the checkpoint. Raises RoiCodecError when it is of something else."""
        state = read_checkpoint(self.checkpoint, self._device)
        if state.get("preset") != CHECKPOINT_KIND:
            raise RoiCodecError(
                f"expected a checkpoint of regions at {self.checkpoint}, "
                f"found one of {state.get('preset')!r}"
            )
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        self.about = {**state["about"], **self.about}
        self.network.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]

    def save(self) -> None:
        """Write the checkpoint; the old one stands until the new one is whole."""
        state = {
            "preset": CHECKPOINT_KIND,
            "config": asdict(self.config),
            "about": self.about,
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.network.state_dict(),
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
        }
        write_checkpoint(self.checkpoint, state)

    def averaged(self) -> RegionNetwork:
        """A network of the averaged weights, on the CPU."""
        network = RegionNetwork()
        network.load_state_dict({k: v.cpu() for k, v in self.average.items()})
        return network.eval()

    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        return min(self.elapsed_s / (60.0 * self.config.minutes), 1.0)

    def run(self, report: Callable[[RegionStep], None]) -> None:
        """Train until the budget is spent, saving now and then and at the end.

        Raises RoiCodecError when the disk is full or the loss is not finite.
        """
        config = self.config
        loader = Prefetcher(
            self._batches,
            config.batch_size,
            config.seed,
            first=self.step,
            workers=worker_threads(),
        )
        last = saved = time.monotonic()
        try:
            for batch in loader:
                if (progress := self.progress()) >= 1.0:
                    break
                head, person = self._train_step(batch, progress)
                self.step += 1
                now = time.monotonic()
                self.elapsed_s, last = self.elapsed_s + now - last, now
                report(RegionStep(self.step, progress, head, person))
                if now - saved >= config.checkpoint_every_s:
                    self.save()
                    saved = now
        finally:
            loader.close()
        self.save()

    def _train_step(self, batch: RegionBatch, progress: float) -> tuple[float, float]:
        config = self.config
        share = learning_rate_share(progress, self.step, config.warm_up_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * share
        images = torch.from_numpy(batch.images).to(self._device).permute(0, 3, 1, 2).float()
        wanted, prices = (
            torch.from_numpy(x).to(self._device) for x in (batch.wanted, batch.prices)
        )
        logits = self.network(images.contiguous(memory_format=torch.channels_last)).float()
        dearer = torch.tensor([config.head_recall, config.person_recall], device=self._device)
        prices = prices * torch.where(wanted > 0.5, dearer[None, :, None, None], 1.0)
        entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        head, person = (entropy * prices).mean(dim=(0, 2, 3))
        loss = config.head_weight * head + person
        if not math.isfinite(loss.item()):
            raise RoiCodecError(
                f"expected a finite loss, found {loss.item()} at step {self.step}; try a lower "
                "learning rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
        self._optimizer.step()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        state = self.network.state_dict()
        torch._foreach_lerp_(list(self.average.values()), list(state.values()), 1.0 - decay)
        return float(head.detach()), float(person.detach())
