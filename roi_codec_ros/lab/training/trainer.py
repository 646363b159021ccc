# SPDX-License-Identifier: Apache-2.0
"""Training of a codec whose analysis is learnt, as the paper's are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from roi_codec_ros.lab.training.config import TrainingConfig
from roi_codec_ros.lab.training.data import Batch, CropSampler
from roi_codec_ros.lab.training.engine import start_engine
from roi_codec_ros.lab.training.step import CodecLoss, DetectorTerm
from roi_codec_ros.lab.training.teaching import Teacher
from roi_codec_ros.lab.training.trainable import TrainableCodec
from roi_codec_ros.lab.training.training_run import TrainingRun

_SEEDS_PER_RUN = 1_000_003
_SEEDS_PER_PROCESS = 7_919_000_011
# How λ_r follows a target of bits: its logarithm moves by this share of the bits' distance, which
# counts up to a limit, and so far from where it started. At first the entropy model has yet to
# learn what the network's latents are, and the bits say little.
_FOLLOWS, _MOST_DISTANCE, _MOST_CHANGE = 0.01, 0.5, 50.0
_FOLLOWS_FROM = 0.1  # of the budget


class Trainer(TrainingRun[Batch]):
    """Runs a :class:`TrainingConfig` on a sampler of crops."""

    config: TrainingConfig
    model: TrainableCodec

    def __init__(
        self,
        config: TrainingConfig,
        sampler: CropSampler,
        checkpoint: Path,
        device: str = "cpu",
        detector_distance: DetectorTerm | None = None,
        about: Mapping[str, Any] | None = None,
        engine: Any = None,
        teacher: Teacher | None = None,
    ) -> None:
        """``detector_distance(x, target, x_hat)`` gives what the detector's weights price.

        about: what else the model card shall say of the training, such as its data. engine: of
        :func:`~.engine.start_engine`, started on ``device`` unless given.
        teacher: whose features a normalized network foretells.
        """
        super().__init__(config, config.preset, sampler, checkpoint, about)
        self._engine = engine if engine is not None else start_engine(device)
        self._processes, self._rank = self._engine.world_size, self._engine.global_rank
        self.leads = self._rank == 0
        torch.manual_seed(config.seed)
        self._rate_price = 1.0  # what λ_r is multiplied by to come to a target of bits
        losses = CodecLoss(config, detector_distance, teacher)
        losses.to(memory_format=torch.channels_last)
        optimizers = _make_optimizers(losses.codec, config)
        self._loss, *self._steppers = self._engine.setup(losses, *optimizers.values())
        self._start(losses.codec, optimizers)

    @property
    def device(self) -> torch.device:
        """Where this process trains."""
        return torch.device(self._engine.device)

    def _mean_of_processes(self, value: float) -> float:
        if self._processes == 1:
            return value
        mine = torch.tensor(value, device=self.device)
        return float(self._engine.all_reduce(mine, reduce_op="mean"))

    def _train_step(self, batch: Batch, progress: float) -> dict[str, float]:
        self._loss.train()
        stage = self.config.stage(progress)
        if stage.target_bpp is not None:
            stage = replace(stage, lambda_rate=stage.lambda_rate * self._rate_price)
        self._set_learning_rate(progress)
        # Noise, as crops, depends on seed, step and process alone.
        torch.manual_seed(
            self.config.seed * _SEEDS_PER_RUN + self.step + self._rank * _SEEDS_PER_PROCESS
        )
        x = batch.images.to(self.device).float().div_(255.0)
        x = x.to(memory_format=torch.channels_last)
        wanted = dict.fromkeys((*stage.regions, "head"))
        boxes = {name: batch.boxes(name) for name in wanted}
        loss, scalars = self._loss(x, boxes, batch.unknown, stage)
        values = torch.stack([value.float().to(x.device) for value in scalars.values()]).tolist()
        figures = dict(zip(scalars, values, strict=True))
        self._check_finite("loss", figures["loss"], *values)
        self._loss.zero_grad(set_to_none=True)
        self._engine.backward(loss)
        norm = nn.utils.clip_grad_norm_(
            [p for group in self._optimizers["optimizer"].param_groups for p in group["params"]],
            self.config.gradient_clip,
        )
        self._check_finite("gradient", norm.item())
        for stepper in self._steppers:
            stepper.step()
        figures["psnr_db"] = -10.0 * math.log10(max(figures.pop("mse"), 1e-10))
        if stage.target_bpp is not None:
            figures["lambda_rate"] = stage.lambda_rate
            if progress >= _FOLLOWS_FROM:
                self._follow(stage.target_bpp, self._mean_of_processes(figures["bpp"]))
        return figures

    def _follow(self, target_bpp: float, bpp: float) -> None:
        """Raise the price of a bit where a step took more than the target, lower it where less."""
        distance = math.log(max(bpp, 1e-6) / target_bpp)
        distance = min(max(distance, -_MOST_DISTANCE), _MOST_DISTANCE)
        moved = self._rate_price * math.exp(_FOLLOWS * distance)
        self._rate_price = min(max(moved, 1.0 / _MOST_CHANGE), _MOST_CHANGE)

    def _further_state(self) -> dict[str, Any]:
        return {"rate_price": self._rate_price}

    def _take(self, state: Mapping[str, Any]) -> None:
        self._rate_price = state.get("rate_price", 1.0)


def _make_optimizers(
    codec: TrainableCodec, config: TrainingConfig
) -> dict[str, torch.optim.Optimizer]:
    """By the names under which checkpoints hold their state; the codec's own comes first.

    Its groups follow the learning rate's schedule, times their ``scale``.
    """
    groups = [
        {"params": codec.transform_parameters(), "scale": 1.0},
        {"params": codec.density_parameters(), "scale": 10.0},
    ]
    return {
        "optimizer": torch.optim.Adam(groups, lr=config.learning_rate, fused=True),
        "quantile_optimizer": torch.optim.Adam([codec.bottleneck.quantiles], lr=1e-3),
    }
