# SPDX-License-Identifier: Apache-2.0
"""The training loop: a preset, a loss, a time budget; checkpoints that a later run picks up."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roi_codec_ros.codec.devices import torch_device
from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.codec.networks import build_transforms
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.training import losses
from roi_codec_ros.training.data import Batch, CropSampler, CropSettings, Prefetcher
from roi_codec_ros.training.features import Distances
from roi_codec_ros.training.schedule import learning_rate_share

CHECKPOINT_FORMAT = 2
WARM_UP_STEPS = 200
OBJECTIVES = ("paper", "fill")


@dataclass(frozen=True)
class TrainingConfig:
    """What a run needs to be repeated.

    Attributes:
        preset: architecture to train.
        objective: ``paper`` (heads towards their negative, equation (5)) or ``fill`` (heads
            towards a thumbnail of themselves, persons and background towards the photograph).
        weights: the λ of equation (6); with ``fill`` the head weight prices the distance to the
            filled head.
        minutes: time budget; the learning rate follows one cosine over it.
        code_weight: with ``fill``, price of the distance between the latents of a photograph and
            those of the same photograph with its heads filled: what is not in the code no decoder
            can restore, however it was trained.
        head_cells: with ``fill``, how many mean colours a head keeps in each direction.
        feature_weight: price of the distance between a person detector's features on the
            reconstruction and on the target; 0 leaves it out.
        detection_weight: price of the divergence between what that detector finds in the
            reconstruction and what it finds in the photograph; 0 leaves it out.
        learning_rate, batch_size, seed, ema_decay: as usual.
    """

    preset: str = "fast"
    objective: str = "fill"
    weights: losses.LossWeights = field(default_factory=losses.LossWeights)
    minutes: float = 60.0
    head_cells: int = 1
    code_weight: float = 0.0
    feature_weight: float = 0.0
    detection_weight: float = 0.0
    learning_rate: float = 4e-4
    batch_size: int = 8
    seed: int = 1
    ema_decay: float = 0.999
    crops: CropSettings = field(default_factory=CropSettings)

    def __post_init__(self) -> None:
        get_preset(self.preset)
        if self.objective not in OBJECTIVES:
            raise RoiCodecError(
                f"expected an objective among {', '.join(OBJECTIVES)}; found {self.objective!r}"
            )
        if self.head_cells < 1:
            raise RoiCodecError(f"expected at least one cell a head, found {self.head_cells}")
        if self.minutes <= 0:
            raise RoiCodecError(f"expected a positive number of minutes, found {self.minutes}")


@dataclass(frozen=True)
class StepReport:
    """Figures of one step, for progress bars and logs."""

    step: int
    elapsed_s: float
    loss: float
    bpp: float
    psnr_db: float
    head_mse: float
    person_mse: float
    code_distance: float
    feature_distance: float
    detection_distance: float


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

    def forward(self, y: Tensor, reduced_precision: bool) -> tuple[Tensor, Tensor]:
        """``(x_hat, likelihoods)``: the rate sees uniform noise, the synthesis rounded values."""
        _, likelihoods = self.bottleneck(y)
        means = self.means()[None, :, None, None]
        residual = y - means
        y_hat = residual + (residual.round() - residual).detach() + means
        with torch.autocast(y.device.type, torch.bfloat16, enabled=reduced_precision):
            x_hat = self.synthesis(y_hat)
        return x_hat.float(), likelihoods

    def linear_parameters(self) -> list[nn.Parameter]:
        """Parameters of both networks that start as a linear transform coder; may be none."""
        parameters: list[nn.Parameter] = []
        for network in (self.analysis, self.synthesis):
            own = getattr(network, "linear_parameters", None)
            parameters += own() if callable(own) else []
        return parameters

    def means(self) -> Tensor:
        """The value of symbol 0 in each latent channel, [C]."""
        return self.bottleneck.quantiles[:, 0, 1].detach()


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What :meth:`Trainer.save` wrote. Raises RoiCodecError when ``path`` is something else."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise RoiCodecError(
            f"expected a training checkpoint at {path}; reading it failed: {error}"
        ) from error
    found = state.get("format") if isinstance(state, dict) else type(state).__name__
    if found != CHECKPOINT_FORMAT:
        raise RoiCodecError(
            f"expected a training checkpoint of format {CHECKPOINT_FORMAT} at {path}, "
            f"found {found!r}"
        )
    return dict(state)


def averaged_codec(checkpoint: Mapping[str, Any]) -> TrainableCodec:
    """The averaged weights of a checkpoint, in evaluation mode, the tables not yet made."""
    codec = TrainableCodec(checkpoint["preset"])
    codec.load_state_dict({k: v.cpu() for k, v in checkpoint["average"].items()})
    return codec.eval()


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
        detector_distance: Callable[[Tensor, Tensor, Tensor], Distances] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """``detector_distance(x, target, x_hat)`` gives what the detector's weights price.

        about: what else the model card shall say of the training, such as its data.
        """
        self.config = config
        self.about = dict(about or {})
        self.step = 0
        self.elapsed_s = 0.0
        self.history = [{"from_step": 0, "config": asdict(config)}]
        self._sampler = sampler
        self.checkpoint = checkpoint
        self._device = torch_device(device)
        self._detector_distance = detector_distance
        torch.manual_seed(config.seed)
        self.model = TrainableCodec(config.preset).to(self._device)
        self.model.to(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        quantiles = [self.model.bottleneck.quantiles]
        linear = self.model.linear_parameters()
        known = {id(parameter) for parameter in linear}
        transforms = [
            parameter
            for network in (self.model.analysis, self.model.synthesis)
            for parameter in network.parameters()
            if id(parameter) not in known
        ]
        densities = [
            p for n, p in self.model.bottleneck.named_parameters() if not n.endswith("quantiles")
        ]
        self._optimizer = torch.optim.Adam(
            [
                {"params": transforms, "scale": 1.0},
                {"params": linear, "scale": 0.05},
                {"params": densities, "scale": 10.0},
            ],
            lr=config.learning_rate,
            fused=True,
        )
        self._quantile_optimizer = torch.optim.Adam(quantiles, lr=1e-3)
        self._clipped = [
            *transforms,
            *linear,
            *densities,
        ]  # the quantiles' gradients are of another loss

    # ------------------------------------------------------------------------------- checkpoints

    def resume(self) -> None:
        """Go on from the checkpoint. Raises RoiCodecError when it is of another kind."""
        state = read_checkpoint(self.checkpoint, self._device)
        if state["preset"] != self.config.preset:
            raise RoiCodecError(
                f"expected a checkpoint of preset {self.config.preset!r}, found one of "
                f"{state['preset']!r}"
            )
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        if state["config"] != asdict(self.config):
            self.history = [
                *state["history"],
                {"from_step": self.step, "config": asdict(self.config)},
            ]
        else:
            self.history = state["history"]
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._quantile_optimizer.load_state_dict(state["quantile_optimizer"])

    def save(self) -> None:
        """Write the checkpoint; the old one stands until the new one is whole."""
        state = {
            "format": CHECKPOINT_FORMAT,
            "preset": self.config.preset,
            "config": asdict(self.config),
            "history": self.history,
            "about": self.about,
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
            "quantile_optimizer": self._quantile_optimizer.state_dict(),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    # ---------------------------------------------------------------------------------- the loop

    def run(self, report: Callable[[StepReport], None], checkpoint_every_s: float = 120.0) -> None:
        """Train until the budget is spent, saving now and then and at the end."""
        budget_s = self.config.minutes * 60.0
        batches = Prefetcher(
            self._sampler, self.config.batch_size, self.config.seed, first=self.step
        )
        last = time.monotonic()
        saved = last
        try:
            for batch in batches:
                if self.elapsed_s >= budget_s:
                    break
                self._set_learning_rate(self.elapsed_s / budget_s)
                figures = self._train_step(batch)
                self.step += 1
                now = time.monotonic()
                self.elapsed_s += now - last
                last = now
                report(StepReport(step=self.step, elapsed_s=self.elapsed_s, **figures))
                if now - saved > checkpoint_every_s:
                    self.save()
                    saved = now
        finally:
            batches.close()
        self.save()

    def _set_learning_rate(self, progress: float) -> None:
        share = learning_rate_share(progress, self.step, WARM_UP_STEPS)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * share * group["scale"]

    def _train_step(self, batch: Batch) -> dict[str, Any]:
        self.model.train()
        # The quantisation noise of a step depends on seed and step alone, as its crops do.
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        x = batch.images.to(self._device).float().div_(255.0)
        x = x.to(memory_format=torch.channels_last)
        loss, figures = self._loss(x, batch)
        if not torch.isfinite(loss):
            raise RoiCodecError(
                f"expected a finite loss, found {loss.item()} at step {self.step}; "
                f"the checkpoint {self.checkpoint} stands; try a lower learning rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._clipped, 1.0)
        self._optimizer.step()
        self._quantile_optimizer.zero_grad(set_to_none=True)
        self.model.bottleneck.loss().backward()
        self._quantile_optimizer.step()
        self._update_average()
        return figures

    def _loss(self, x: Tensor, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        y = self.model.code(x, reduced_precision=True)
        x_hat, likelihoods = self.model(y, reduced_precision=True)
        side = x.shape[-1]
        rate = losses.rate_bpp(likelihoods, side * side)
        if self.config.objective == "paper":
            target, known = x, None
            head = losses.head_loss(x, x_hat, batch.heads)
            head_mse = 1.0 - head
        else:
            target = losses.fill_regions(x, batch.heads, cells=self.config.head_cells)
            heads = losses.region_mask(batch.heads, side, side).to(self._device)
            unknown = losses.region_mask(batch.unknown, side, side).to(self._device)
            known = 1.0 - unknown * (1.0 - heads)
            head = head_mse = losses.region_loss(target, x_hat, batch.heads, k=0)
        background = losses.background_loss(target, x_hat, known)
        person = losses.visible_person_loss(target, x_hat, batch.persons, known)
        loss = losses.total_loss(rate, background, head, person, self.config.weights)
        code = torch.zeros(())
        feature = detection = 0.0
        if self.config.objective == "fill" and self.config.code_weight > 0:
            with torch.no_grad():
                wanted = self.model.code(target, reduced_precision=True)
            code = losses.code_distance(y, wanted)
            loss = loss + self.config.code_weight * code
        if self._detector_distance is not None:
            distances = self._detector_distance(x, target, x_hat)
            loss = loss + self.config.feature_weight * distances.features
            loss = loss + self.config.detection_weight * distances.detections
            feature, detection = distances.features.item(), distances.detections.item()
        return loss, {
            "loss": loss.item(),
            "feature_distance": feature,
            "detection_distance": detection,
            "bpp": rate.item(),
            "psnr_db": -10.0 * math.log10(max(background.item(), 1e-10)),
            "head_mse": head_mse.item(),
            "person_mse": person.item(),
            "code_distance": code.item(),
        }

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
