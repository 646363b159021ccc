# SPDX-License-Identifier: Apache-2.0
"""What a training run needs to be repeated, and how it is read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from roi_codec_ros.codec.presets import BLOCKS, get_preset
from roi_codec_ros.common.errors import UsageError, reason_of
from roi_codec_ros.common.files import YAML_FAULTS
from roi_codec_ros.common.share import shared_file
from roi_codec_ros.lab.training.data import CropSettings
from roi_codec_ros.lab.training.objectives import Regions, default_regions, read_regions
from roi_codec_ros.lab.training.settings import (
    choice,
    number,
    positive,
    read_settings,
    settle_budget,
)


@dataclass(frozen=True)
class Stage:
    """A part of a run with a loss of its own.

    Attributes:
        share: how much of the budget it lasts, relative to the other stages.
        others: take the place of the run's own while it lasts; None leaves those.
    """

    share: float = positive(1.0)
    regions: Regions | None = None
    lambda_rate: float | None = number(None, 0.0)
    lambda_background: float | None = number(None, 0.0)
    skip_unknown_heads: bool | None = None
    feature_weight: float | None = number(None, 0.0)
    detection_weight: float | None = number(None, 0.0)

    def changes(self) -> dict[str, Any]:
        """What it replaces, by key of `TrainingConfig`."""
        names = [item.name for item in fields(self) if item.name != "share"]
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class NormalizedSettings:
    """A network that learns with batch normalization, folded afterwards (normalized.py).

    Attributes:
        analysis: channels of each convolution of the analysis; none: the preset's own network.
        synthesis: of each hidden layer of the synthesis.
        teaching_weight: price of the error with which its layers foretell a person detector's
            features.
    """

    analysis: tuple[int, ...] = ()
    synthesis: tuple[int, ...] = ()
    teaching_weight: float = number(1.0, 0.0)


@dataclass(frozen=True)
class TrainingConfig:
    """A run.

    Attributes:
        preset: architecture to train.
        normalized: train it narrower, with batch normalization.
        stages: parts of the run, one after the other, that replace some of what follows; without
            any the run is one stage. The learning rate follows one cosine over all of them.
        regions: by class of boxes, what shall become of it.
        lambda_rate, lambda_background: λ_r and λ_bg of equation (6).
        target_bpp: bits per pixel, equation (1), that λ_r is led to while training: it starts at
            ``lambda_rate`` and, after a tenth of the budget, rises while a step takes more and
            falls while one takes fewer; None leaves it. A model's tables, which know the symbols
            around, take a third fewer.
        skip_unknown_heads: leave out of what is kept the places where a person's head should be
            but none is annotated; only where heads are to be hidden.
        feature_weight: price of the distance between a person detector's features on the
            reconstruction and on the target; 0 leaves it out.
        detection_weight: price of the divergence between what that detector finds in the
            reconstruction and what it finds in the photograph; 0 leaves it out.
        minutes, steps, epochs: the budget, one of them; the learning rate follows one cosine over
            it. An epoch is as many photographs as there are.
        batch_size: photographs of a step, in each process.
        gradient_clip: greatest norm of a step's gradient.
        precision: of the networks; everything else is computed in float32.
        checkpoint_every_s: seconds between checkpoints; 0 writes one each step.
        pictures_every: steps between two picture strips; 0 makes none.
        workers: threads that make crops, 0 lets the number of CPUs decide.
    """

    preset: str = "paper-256-2"
    normalized: NormalizedSettings = field(default_factory=NormalizedSettings)
    stages: tuple[Stage, ...] = ()
    regions: Regions = field(default_factory=default_regions)
    lambda_rate: float = number(0.04, 0.0)
    lambda_background: float = number(1.0, 0.0)
    target_bpp: float | None = positive(None)
    skip_unknown_heads: bool = True
    feature_weight: float = number(0.0, 0.0)
    detection_weight: float = number(0.0, 0.0)
    minutes: float | None = positive(None)
    steps: int | None = number(None, 1)
    epochs: float | None = positive(None)
    learning_rate: float = positive(4e-4)
    warm_up_steps: int = number(200, 1)
    batch_size: int = number(8, 1)
    gradient_clip: float = positive(1.0)
    ema_decay: float = number(0.999, 0.0, 1.0)
    seed: int = number(1, 0)
    precision: str = choice("bf16", "bf16", "fp32")
    checkpoint_every_s: float = number(120.0, 0.0)
    pictures_every: int = number(500, 0)
    workers: int = number(0, 0, 256)
    crops: CropSettings = field(default_factory=CropSettings)

    def __post_init__(self) -> None:
        if get_preset(self.preset).architecture == BLOCKS:
            raise UsageError(
                f"expected a preset whose analysis is trained, found {self.preset!r}, which codes "
                "blocks"
            )
        settle_budget(self)
        rates = (self.lambda_rate, *(stage.lambda_rate for stage in self.stages))
        if self.target_bpp is not None and 0.0 in rates:
            raise UsageError("expected lambda_rate above 0 for target_bpp, found 0")
        for index, stage in enumerate(self.stages):
            others = set(stage.regions or ()) - set(self.regions)
            if others:
                raise UsageError(
                    f"expected classes among {', '.join(self.regions)} in "
                    f"stages.{index}.regions, found {', '.join(sorted(others))}"
                )

    def stage(self, progress: float) -> TrainingConfig:
        """The configuration at a share ``progress`` of the budget, 0 to 1."""
        if not self.stages:
            return self
        total = sum(stage.share for stage in self.stages)
        end = 0.0
        for stage in self.stages:
            end += stage.share / total
            if progress < end:
                break
        return replace(self, **stage.changes(), stages=())


def parse_config(values: Any) -> TrainingConfig:
    """A configuration from a mapping. Raises UsageError that names the key."""
    if not isinstance(values, Mapping):
        raise UsageError(f"expected keys and values as configuration, found {values!r}")
    plain = {key: value for key, value in values.items() if key != "stages"}
    config = read_settings(TrainingConfig, _with_regions(plain))
    return replace(config, stages=_stages(values.get("stages") or []))


def _with_regions(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    if "regions" not in values:
        return dict(values)
    return {**values, "regions": read_regions(values["regions"], f"{where}regions")}


def _stages(values: Any) -> tuple[Stage, ...]:
    if not isinstance(values, list) or not all(isinstance(v, Mapping) for v in values):
        raise UsageError(f"expected a list of stages with their settings, found {values!r}")
    places = [(f"stages.{index}", value) for index, value in enumerate(values)]
    return tuple(
        read_settings(Stage, _with_regions(value, f"{where}."), where) for where, value in places
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file's keys and values, unchecked. Raises UsageError for invalid YAML."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (*YAML_FAULTS, yaml.YAMLError) as error:
        raise UsageError(
            f"expected a configuration in YAML at {path}, found: {reason_of(error)}"
        ) from error
    if not isinstance(values, dict):
        raise UsageError(f"expected keys and values in {path}, found {values!r}")
    return values


def preset_config(preset: str) -> Path:
    """The file `config/training/<preset>.yaml` that ships. Raises UsageError without any."""
    get_preset(preset)
    path = shared_file("config", "training", f"{preset}.yaml")
    if path is None:
        raise UsageError(f"expected config/training/{preset}.yaml in the package, found none")
    return path
