# SPDX-License-Identifier: Apache-2.0
"""What every training is: steps until a budget is spent, checkpoints that a later run picks up."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.lab.training.checkpoints import read_checkpoint, write_checkpoint
from roi_codec_ros.lab.training.engine import learning_rate_share
from roi_codec_ros.lab.training.loader import Prefetcher
from roi_codec_ros.lab.training.photograph_store import worker_threads

Drawn = TypeVar("Drawn")
Report = Callable[["StepReport"], None]


@dataclass(frozen=True)
class StepReport:
    """Figures of one step, for progress bars and logs.

    Attributes:
        progress: share of the budget that is spent, 0 to 1.
        figures: by name; ``loss`` is among them.
        images: photographs of this step in all processes.
        step_s, wait_s: how long it took, and how much of that the loader let it wait.
    """

    step: int
    progress: float
    elapsed_s: float
    figures: Mapping[str, float]
    images: int
    step_s: float
    wait_s: float


class TrainingRun(ABC, Generic[Drawn]):
    """Runs a configuration on batches.

    A run may be resumed with another configuration; ``history`` tells from which step each held.

    Attributes:
        step, elapsed_s: what was done so far, in this process and in those before.
        about: what else the model's card shall say, such as its data.
        average: an exponential moving average of the model's weights, which is what is kept.
    """

    def __init__(
        self,
        config: Any,
        kind: str,
        sampler: Any,
        checkpoint: Path,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """kind: what checkpoints are of. sampler: draws batches, has a length: its photographs."""
        self.config, self.checkpoint = config, checkpoint
        self.about = dict(about or {})
        self.step, self.elapsed_s = 0, 0.0
        self.history = [{"from_step": 0, "config": asdict(config)}]
        self.leads = True
        self._kind, self._sampler = kind, sampler
        self._processes, self._rank = 1, 0

    def _start(self, model: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        """To be called at the end of the constructor.

        optimizers: by the names under which checkpoints hold their state.
        """
        self.model, self._optimizers = model, dict(optimizers)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all crops are of one size
        self._average_from_here()

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where this process trains."""

    @abstractmethod
    def _train_step(self, batch: Drawn, progress: float) -> dict[str, float]:
        """One step of the optimizers; its figures, ``loss`` among them."""

    def _set_learning_rate(self, progress: float) -> None:
        """The rate of this step, half a cosine over the budget, warmed up.

        A group of parameters may have a ``rate`` of its own in place of the configured one, and
        a ``scale`` of it.
        """
        share = learning_rate_share(progress, self.step, self.config.warm_up_steps)
        for group in self._optimizers["optimizer"].param_groups:
            rate = group.get("rate", self.config.learning_rate)
            group["lr"] = rate * share * group.get("scale", 1.0)

    def _descend(self, loss: Tensor) -> None:
        """One step of the optimizer down the gradient of a loss, which is clipped."""
        optimizer = self._optimizers["optimizer"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        learnt = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(learnt, self.config.gradient_clip)
        optimizer.step()

    def _pixels(self, images: np.ndarray) -> Tensor:
        """Images uint8 [B, S, S, 3] as a network takes them: float32 [B, 3, S, S], 0 to 1."""
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        return pixels.float().div_(255.0).contiguous(memory_format=torch.channels_last)

    # ------------------------------------------------------------------------------- checkpoints

    def resume(self) -> None:
        """Resume from the checkpoint. Raises RoiCodecError if it is of another kind."""
        state = read_checkpoint(self.checkpoint, self.device)
        if state["preset"] != self._kind:
            raise RoiCodecError(
                f"expected a checkpoint of preset {self._kind!r} at {self.checkpoint}, found one "
                f"of {state['preset']!r}"
            )
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        self.history = state.get("history", self.history)
        if state["config"] != asdict(self.config):
            entry = {"from_step": self.step, "config": asdict(self.config)}
            self.history = [*self.history, entry]
        self.about = {**state.get("about", {}), **self.about}
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])
        self._take(state)

    def start_from(self, weights: Mapping[str, Tensor], origin: Mapping[str, Any]) -> None:
        """Begin a new run at weights. Raises RoiCodecError for those of other sizes.

        origin: what the model's card shall say of them.
        """
        try:
            self.model.load_state_dict({k: v.to(self.device) for k, v in weights.items()})
        except RuntimeError as error:
            raise RoiCodecError(
                f"expected weights of preset {self._kind}, found: {reason_of(error, most=300)}"
            ) from error
        self.about["started_from"] = dict(origin)
        self._average_from_here()

    def save(self) -> None:
        """Write the checkpoint; the old one stands until the new one is whole."""
        if not self.leads:
            return
        state = {
            "preset": self._kind,
            "config": asdict(self.config),
            "history": self.history,
            "about": self.about,
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(),
            "average": self.average,
            **self._further_state(),
            **{name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }
        write_checkpoint(self.checkpoint, state)

    def _further_state(self) -> dict[str, Any]:
        """What else a checkpoint of this kind of run holds, by names of its own."""
        return {}

    def _take(self, state: Mapping[str, Any]) -> None:
        """Take over what `_further_state` gave, or, of an earlier version, did not yet give."""

    # ---------------------------------------------------------------------------------- the loop

    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1; the same in every process."""
        config = self.config
        if config.minutes is not None:
            return min(self._mean_of_processes(self.elapsed_s / (config.minutes * 60.0)), 1.0)
        if config.steps is not None:
            return min(self.step / config.steps, 1.0)
        a_step = config.batch_size * self._processes
        steps = math.ceil((config.epochs or 0.0) * len(self._sampler) / a_step)
        return min(self.step / max(steps, 1), 1.0)

    def _mean_of_processes(self, value: float) -> float:
        return value

    def run(self, report: Report) -> None:
        """Train until the budget is spent, saving now and then and at the end.

        Raises RoiCodecError when memory or the disk is full or the loss is not finite; the last
        checkpoint stands then.
        """
        config = self.config
        batches: Prefetcher[Drawn] = Prefetcher(
            self._sampler,
            config.batch_size,
            config.seed,
            first=self.step * self._processes + self._rank,
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
                images = config.batch_size * self._processes
                report(
                    StepReport(
                        self.step, progress, self.elapsed_s, figures, images, step_s, wait_s
                    )
                )
                if now - saved >= config.checkpoint_every_s:
                    self.save()
                    saved = now
                asked = time.monotonic()
        finally:
            batches.close()
        self.save()

    def _guarded_step(self, batch: Drawn, progress: float) -> dict[str, float]:
        try:
            figures = self._train_step(batch, progress)
        except (MemoryError, RuntimeError) as error:
            text = reason_of(error)
            full = isinstance(error, (MemoryError, torch.OutOfMemoryError))
            if full or "not enough memory" in text or "can't allocate memory" in text:
                raise RoiCodecError(
                    f"expected {self.config.batch_size} crops of {self.config.crops.size} px to "
                    f"fit in the memory of {self.device}, found too little at step {self.step}; "
                    f"{self._stands}; try a smaller --batch-size"
                ) from error
            raise
        self._update_average()
        return figures

    def _check_finite(self, what: str, *values: float) -> None:
        """Raises RoiCodecError when one is not."""
        if not all(map(math.isfinite, values)):
            raise RoiCodecError(
                f"expected a finite {what}, found {values[0]} at step {self.step}; "
                f"{self._stands}; try a lower learning rate"
            )

    @property
    def _stands(self) -> str:
        if not self.checkpoint.is_file():
            return "there is no checkpoint yet"
        return f"the checkpoint {self.checkpoint} stands"

    def _average_from_here(self) -> None:
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        """Exponential moving average of the weights; short at first, so that it catches up."""
        step = self.step
        decay = min(self.config.ema_decay, (1 + step) / (10 + step))
        floats: list[tuple[Tensor, Tensor]] = []
        others: list[tuple[Tensor, Tensor]] = []
        for name, value in self.model.state_dict().items():
            pair = (self.average[name], value)
            (floats if value.is_floating_point() else others).append(pair)
        torch._foreach_lerp_([a for a, _ in floats], [v for _, v in floats], 1.0 - decay)
        for average, value in others:
            average.copy_(value)
