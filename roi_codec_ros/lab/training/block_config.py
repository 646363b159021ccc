# SPDX-License-Identifier: Apache-2.0
"""What a training run of a block codec needs to be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.training.block_batches import StepSettings
from roi_codec_ros.lab.training.data import CropSettings
from roi_codec_ros.lab.training.settings import number, positive, read_settings, settle_budget


@dataclass(frozen=True)
class BlockTrainingConfig:
    """A run.

    Attributes:
        preset: architecture to train, one of blocks.
        person_weight, background_weight: prices of the squared error (pixels in [0, 1]) in blocks
            of persons and elsewhere.
        head_weight, hidden_weight: the same in hidden blocks, where a head is and beside it: there
            the wanted picture is the constant head, and what surrounds.
        flat_weight: what is added to the price of errors, relative to it, where nothing is hidden
            and the picture does not change: the eye sees them there first.
        feature_weight, detection_weight: prices of the distances that a person detector sees
            (`features.DetectorDistance`).
        face_weight: price of what YuNet takes for faces in hidden blocks (`FaceLikeness`).
        detector_share: share of each batch that the detector looks at.
        detector_from: share of the budget after which it begins to; before, pixels alone count,
            which is twice as fast.
        minutes, steps, epochs: the budget, one of them; the learning rate follows one cosine over
            it.
        batch_size: crops of a step.
        gradient_clip: greatest norm of a step's gradient.
        checkpoint_every_s: seconds between checkpoints.
        workers: threads that make crops, 0 lets the number of CPUs decide.
        crops, levels: how crops, and their steps, are drawn.
    """

    preset: str = "fast"
    person_weight: float = number(40.0, 0.0)
    background_weight: float = number(15.0, 0.0)
    head_weight: float = number(12.0, 0.0)
    hidden_weight: float = number(8.0, 0.0)
    flat_weight: float = number(8.0, 0.0)
    feature_weight: float = number(0.5, 0.0)
    detection_weight: float = number(0.15, 0.0)
    face_weight: float = number(0.03, 0.0)
    detector_share: float = number(0.5, 0.0, 1.0)
    detector_from: float = number(0.25, 0.0, 1.0)
    minutes: float | None = positive(None)
    steps: int | None = number(None, 1)
    epochs: float | None = positive(None)
    learning_rate: float = positive(8e-4)
    warm_up_steps: int = number(100, 1)
    batch_size: int = number(8, 1)
    gradient_clip: float = positive(1.0)
    ema_decay: float = number(0.998, 0.0, 1.0)
    seed: int = number(1, 0)
    checkpoint_every_s: float = number(120.0, 0.0)
    workers: int = number(0, 0, 256)
    crops: CropSettings = field(default_factory=CropSettings)
    levels: StepSettings = field(default_factory=StepSettings)

    def __post_init__(self) -> None:
        preset = get_preset(self.preset)
        if preset.architecture != "blocks":
            raise UsageError(f"expected a preset that codes blocks, found {self.preset!r}")
        settle_budget(self)


def parse_block_config(values: Any) -> BlockTrainingConfig:
    """A configuration from a mapping. Raises UsageError that names the key."""
    if not isinstance(values, Mapping):
        raise UsageError(f"expected keys and values as configuration, found {values!r}")
    return read_settings(BlockTrainingConfig, values)
