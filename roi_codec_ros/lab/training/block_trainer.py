# SPDX-License-Identifier: Apache-2.0
"""Training of a block codec's synthesis.

Analysis, steps and rounding are fixed, so nothing of the rate is learnt: what is learnt is to make
the best picture of what the steps leave.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from roi_codec_ros.codec.ladder import ROUND_UP_FROM, coded_channels, ladder_steps
from roi_codec_ros.codec.networks import BlockAnalysis, BlockSynthesis, build_transforms
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.common.devices import torch_device
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.training.block_batches import BlockBatch, BlockBatches
from roi_codec_ros.lab.training.block_config import BlockTrainingConfig
from roi_codec_ros.lab.training.checkpoints import read_checkpoint, write_checkpoint
from roi_codec_ros.lab.training.engine import learning_rate_share
from roi_codec_ros.lab.training.loader import Prefetcher
from roi_codec_ros.lab.training.photograph_store import worker_threads
from roi_codec_ros.lab.training.step import DetectorTerm
from roi_codec_ros.lab.training.trainer import StepReport


class BlockTrainer:
    """Runs a `BlockTrainingConfig` on batches; resumes where a checkpoint left off."""

    def __init__(
        self,
        config: BlockTrainingConfig,
        batches: BlockBatches,
        checkpoint: Path,
        device: str = "cpu",
        detector_distance: DetectorTerm | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """detector_distance, about: as of `trainer.Trainer`."""
        self.config, self.checkpoint = config, checkpoint
        self.about = dict(about or {})
        self.step, self.elapsed_s = 0, 0.0
        self.history = [{"from_step": 0, "config": asdict(config)}]
        self._batches, self._distance = batches, detector_distance
        self._device = torch_device(device)
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
        linear = {id(p) for p in self.synthesis.linear_parameters()}
        others = [p for p in self.synthesis.parameters() if id(p) not in linear]
        self._optimizer = torch.optim.Adam(
            [
                {"params": others, "scale": 1.0},
                {"params": self.synthesis.linear_parameters(), "scale": 0.05},
            ],
            lr=config.learning_rate,
        )
        self.average = {k: v.detach().clone() for k, v in self.synthesis.state_dict().items()}

    def resume(self) -> None:
        """Go on from the checkpoint. Raises RoiCodecError when it is of another kind."""
        state = read_checkpoint(self.checkpoint, self._device)
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
        self.synthesis.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]

    def start_from(self, weights: Mapping[str, Tensor], origin: Mapping[str, Any]) -> None:
        """Begin a new run at a synthesis' weights. Raises RoiCodecError for other sizes."""
        try:
            self.synthesis.load_state_dict({k: v.to(self._device) for k, v in weights.items()})
        except RuntimeError as error:
            raise RoiCodecError(
                f"expected weights of preset {self.config.preset}, "
                f"found: {' '.join(str(error).split())[:300]}"
            ) from error
        self.about["started_from"] = dict(origin)
        self.average = {k: v.detach().clone() for k, v in self.synthesis.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint; the old one stands until the new one is whole."""
        state = {
            "preset": self.config.preset,
            "config": asdict(self.config),
            "history": self.history,
            "about": self.about,
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.synthesis.state_dict(),
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
        }
        write_checkpoint(self.checkpoint, state)

    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        config = self.config
        if config.minutes is not None:
            return min(self.elapsed_s / (config.minutes * 60.0), 1.0)
        if config.steps is not None:
            return min(self.step / config.steps, 1.0)
        photographs = len(self._batches.sampler.annotations)
        steps = math.ceil((config.epochs or 0.0) * photographs / config.batch_size)
        return min(self.step / max(steps, 1), 1.0)

    def run(self, report: Callable[[StepReport], None]) -> None:
        """Train until the budget is spent, saving now and then and at the end.

        Raises RoiCodecError when the disk is full or the loss is not finite; the last checkpoint
        stands then.
        """
        config = self.config
        loader = Prefetcher(
            self._batches,
            config.batch_size,
            config.seed,
            first=self.step,
            workers=config.workers or worker_threads(),
        )
        last = saved = asked = time.monotonic()
        try:
            for batch in loader:
                wait_s = time.monotonic() - asked
                if (progress := self.progress()) >= 1.0:
                    break
                terms = self._train_step(batch, progress)
                self.step += 1
                now = time.monotonic()
                step_s, last = now - last, now
                self.elapsed_s += step_s
                report(
                    StepReport(
                        step=self.step,
                        progress=progress,
                        elapsed_s=self.elapsed_s,
                        loss=terms.pop("loss"),
                        bpp=None,
                        psnr_db=-10.0 * math.log10(max(terms.pop("person_mse"), 1e-10)),
                        terms=terms,
                        images=config.batch_size,
                        step_s=step_s,
                        wait_s=wait_s,
                    )
                )
                if now - saved >= config.checkpoint_every_s:
                    self.save()
                    saved = now
                asked = time.monotonic()
        finally:
            loader.close()
        self.save()

    def _train_step(self, batch: BlockBatch, progress: float) -> dict[str, float]:
        config = self.config
        self.synthesis.train()
        share = learning_rate_share(progress, self.step, config.warm_up_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * share * group["scale"]
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
        error = (squared * _enlarged(prices)).mean()
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
        large = _enlarged(seen)
        terms |= {"loss": loss, "person_mse": (squared * large).sum() / large.sum().clamp_min(1)}
        values = {name: float(value.detach()) for name, value in terms.items()}
        if not all(map(math.isfinite, values.values())):
            stands = "stands" if self.checkpoint.is_file() else "was never written"
            raise RoiCodecError(
                f"expected a finite loss, found {values['loss']} at step {self.step}; the "
                f"checkpoint {self.checkpoint} {stands}; try a lower learning rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.synthesis.parameters(), config.gradient_clip)
        self._optimizer.step()
        self._update_average()
        return values

    def dequantised(self, images: Tensor, levels: Tensor, hidden: Tensor) -> Tensor:
        """What a decoder gets of images [B, 3, S, S]: coefficients [B, C, h, w]."""
        places = levels.long()
        steps, coded = (x[places].permute(0, 3, 1, 2) for x in (self._steps, self._coded))
        values = self._analysis(images) / steps
        symbols = torch.trunc(values + torch.copysign(torch.tensor(1 - ROUND_UP_FROM), values))
        return torch.as_tensor(symbols * steps * coded * (1 - hidden))

    def _pixels(self, images: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2)
        return pixels.float().div_(255.0).contiguous(memory_format=torch.channels_last)

    def _plane(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)[:, None].float()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        state = self.synthesis.state_dict()
        torch._foreach_lerp_(list(self.average.values()), list(state.values()), 1.0 - decay)


def _enlarged(plane: Tensor) -> Tensor:
    """Blocks [B, 1, h, w] as pixels."""
    return functional.interpolate(plane, scale_factor=16.0, mode="nearest")
