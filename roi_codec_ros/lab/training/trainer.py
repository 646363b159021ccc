# SPDX-License-Identifier: Apache-2.0
"""The training loop: a configuration, a budget; checkpoints that a later run picks up."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.training.checkpoints import (
    initial_weights,
    read_checkpoint,
    write_checkpoint,
)
from roi_codec_ros.lab.training.config import TrainingConfig
from roi_codec_ros.lab.training.data import Batch, CropSampler
from roi_codec_ros.lab.training.engine import learning_rate_share, start_engine
from roi_codec_ros.lab.training.loader import Prefetcher
from roi_codec_ros.lab.training.photograph_store import worker_threads
from roi_codec_ros.lab.training.step import CodecLoss, DetectorTerm
from roi_codec_ros.lab.training.trainable import TrainableCodec

_SEEDS_PER_RUN = 1_000_003
_SEEDS_PER_PROCESS = 7_919_000_011


@dataclass(frozen=True)
class StepReport:
    """Figures of one step, for progress bars and logs.

    Attributes:
        progress: share of the budget that is spent, 0 to 1.
        terms: every objective's term, unweighted, by ``class.objective``, and the detector's.
        bpp: bits per pixel of the latents, None where the training says nothing of them.
        images: photographs of this step in all processes.
        step_s, wait_s: how long it took, and how much of that the loader let it wait.
    """

    step: int
    progress: float
    elapsed_s: float
    loss: float
    bpp: float | None
    psnr_db: float
    terms: Mapping[str, float]
    images: int
    step_s: float
    wait_s: float


class Trainer:
    """Runs a :class:`TrainingConfig` on a sampler of crops.

    A run may be resumed with another configuration; ``history`` tells from which step each held.
    """

    def __init__(
        self,
        config: TrainingConfig,
        sampler: CropSampler,
        checkpoint: Path,
        device: str = "cpu",
        detector_distance: DetectorTerm | None = None,
        about: Mapping[str, Any] | None = None,
        engine: Any = None,
    ) -> None:
        """``detector_distance(x, target, x_hat)`` gives what the detector's weights price.

        about: what else the model card shall say of the training, such as its data. engine: of
        :func:`~.engine.start_engine`, started on ``device`` unless given.
        """
        self.config, self.checkpoint = config, checkpoint
        self.about = dict(about or {})
        self.step, self.elapsed_s = 0, 0.0
        self.history = [{"from_step": 0, "config": asdict(config)}]
        self._sampler = sampler
        self._engine = engine if engine is not None else start_engine(device)
        self._processes: int = self._engine.world_size
        self.leads: bool = self._engine.global_rank == 0
        torch.manual_seed(config.seed)
        losses = CodecLoss(config, detector_distance)
        losses.to(memory_format=torch.channels_last)
        self.model = losses.codec
        self._optimizers = _make_optimizers(losses.codec, config)
        self._loss, *self._steppers = self._engine.setup(losses, *self._optimizers.values())
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    @property
    def device(self) -> torch.device:
        """Where this process trains."""
        return torch.device(self._engine.device)

    # ------------------------------------------------------------------------------- checkpoints

    def resume(self) -> None:
        """Go on from the checkpoint. Raises RoiCodecError when it is of another kind."""
        state = read_checkpoint(self.checkpoint, self.device)
        if state["preset"] != self.config.preset:
            raise RoiCodecError(
                f"expected a checkpoint of preset {self.config.preset!r}, found one of "
                f"{state['preset']!r}"
            )
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        self.history = state["history"]
        if state["config"] != asdict(self.config):
            entry = {"from_step": self.step, "config": asdict(self.config)}
            self.history = [*self.history, entry]
        self.about = {**state.get("about", {}), **self.about}
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])

    def start_from(self, path: Path) -> None:
        """Begin a new run at the weights of a checkpoint or a model file. Raises RoiCodecError."""
        weights, self.about["started_from"] = initial_weights(path, self.config.preset)
        self.model.load_state_dict(weights)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint; the old one stands until the new one is whole."""
        if not self.leads:
            return
        state = {
            "preset": self.config.preset,
            "config": asdict(self.config),
            "history": self.history,
            "about": self.about,
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(),
            "average": self.average,
            **{name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }
        write_checkpoint(self.checkpoint, state)

    # ---------------------------------------------------------------------------------- the loop

    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1; the same in every process."""
        config = self.config
        if config.minutes is not None:
            share = self.elapsed_s / (config.minutes * 60.0)
            if self._processes > 1:
                mine = torch.tensor(share, device=self.device)
                share = float(self._engine.all_reduce(mine, reduce_op="mean"))
            return min(share, 1.0)
        if config.steps is not None:
            return min(self.step / config.steps, 1.0)
        a_step = config.batch_size * self._processes
        steps = math.ceil((config.epochs or 0.0) * len(self._sampler.annotations) / a_step)
        return min(self.step / max(steps, 1), 1.0)

    def run(self, report: Callable[[StepReport], None]) -> None:
        """Train until the budget is spent, saving now and then and at the end.

        Raises RoiCodecError when memory or the disk is full or the loss is not finite; the last
        checkpoint stands then.
        """
        config = self.config
        batches = Prefetcher(
            self._sampler,
            config.batch_size,
            config.seed,
            first=self.step * self._processes + self._engine.global_rank,
            stride=self._processes,
            workers=config.workers or worker_threads(),
        )
        last = saved = asked = time.monotonic()
        try:
            for batch in batches:
                wait_s = time.monotonic() - asked
                if (progress := self.progress()) >= 1.0:
                    break
                figures = self._guarded_step(batch, progress)
                self.step += 1
                now = time.monotonic()
                step_s, last = now - last, now
                self.elapsed_s += step_s
                report(self._report(figures, progress, step_s, wait_s))
                if now - saved >= config.checkpoint_every_s:
                    self.save()
                    saved = now
                asked = time.monotonic()
        finally:
            batches.close()
        self.save()

    def _report(
        self, figures: dict[str, float], progress: float, step_s: float, wait_s: float
    ) -> StepReport:
        terms = {k: v for k, v in figures.items() if k not in ("loss", "bpp", "mse")}
        return StepReport(
            step=self.step,
            progress=progress,
            elapsed_s=self.elapsed_s,
            loss=figures["loss"],
            bpp=figures["bpp"],
            psnr_db=-10.0 * math.log10(max(figures["mse"], 1e-10)),
            terms=terms,
            images=self.config.batch_size * self._processes,
            step_s=step_s,
            wait_s=wait_s,
        )

    def _guarded_step(self, batch: Batch, progress: float) -> dict[str, float]:
        try:
            return self._train_step(batch, progress)
        except (MemoryError, RuntimeError) as error:
            text = " ".join(str(error).split())
            full = isinstance(error, (MemoryError, torch.OutOfMemoryError))
            if full or "not enough memory" in text or "can't allocate memory" in text:
                raise RoiCodecError(
                    f"expected {self.config.batch_size} crops of {self.config.crops.size} px to "
                    f"fit in the memory of {self.device}, found too little at step {self.step}; "
                    f"{self._stands}; try a smaller --batch-size"
                ) from error
            raise

    def _train_step(self, batch: Batch, progress: float) -> dict[str, float]:
        self._loss.train()
        share = learning_rate_share(progress, self.step, self.config.warm_up_steps)
        for group in self._optimizers["optimizer"].param_groups:
            group["lr"] = self.config.learning_rate * share * group["scale"]
        # Noise, as crops, depends on seed, step and process alone.
        torch.manual_seed(
            self.config.seed * _SEEDS_PER_RUN
            + self.step
            + self._engine.global_rank * _SEEDS_PER_PROCESS
        )
        x = batch.images.to(self.device).float().div_(255.0)
        x = x.to(memory_format=torch.channels_last)
        wanted = dict.fromkeys((*self.config.regions, "head"))
        boxes = {name: batch.boxes(name) for name in wanted}
        loss, scalars = self._loss(x, boxes, batch.unknown)
        values = torch.stack([value.float().to(x.device) for value in scalars.values()]).tolist()
        figures = dict(zip(scalars, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise self._not_finite("loss", figures["loss"])
        self._loss.zero_grad(set_to_none=True)
        self._engine.backward(loss)
        norm = nn.utils.clip_grad_norm_(
            [p for group in self._optimizers["optimizer"].param_groups for p in group["params"]],
            self.config.gradient_clip,
        )
        if not torch.isfinite(norm):
            raise self._not_finite("gradient", norm.item())
        for stepper in self._steppers:
            stepper.step()
        self._update_average()
        return figures

    def _not_finite(self, what: str, found: float) -> RoiCodecError:
        return RoiCodecError(
            f"expected a finite {what}, found {found} at step {self.step}; {self._stands}; "
            "try a lower learning rate"
        )

    @property
    def _stands(self) -> str:
        if not self.checkpoint.is_file():
            return "there is no checkpoint yet"
        return f"the checkpoint {self.checkpoint} stands"

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average of the weights; short at first, so that it catches up."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        floats: list[tuple[Tensor, Tensor]] = []
        others: list[tuple[Tensor, Tensor]] = []
        for name, value in self.model.state_dict().items():
            pair = (self.average[name], value)
            (floats if value.is_floating_point() else others).append(pair)
        torch._foreach_lerp_([a for a, _ in floats], [v for _, v in floats], 1.0 - decay)
        for average, value in others:
            average.copy_(value)


def _make_optimizers(
    codec: TrainableCodec, config: TrainingConfig
) -> dict[str, torch.optim.Optimizer]:
    """By the names under which checkpoints hold their state; the codec's own comes first.

    Its groups follow the learning rate's schedule, times their ``scale``.
    """
    groups = [
        {"params": codec.transform_parameters(), "scale": 1.0},
        {"params": codec.linear_parameters(), "scale": 0.05},
        {"params": codec.density_parameters(), "scale": 10.0},
    ]
    return {
        "optimizer": torch.optim.Adam(groups, lr=config.learning_rate, fused=True),
        "quantile_optimizer": torch.optim.Adam([codec.bottleneck.quantiles], lr=1e-3),
    }
