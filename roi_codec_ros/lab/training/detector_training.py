# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of a person detector on decoded photographs.

    photograph ─► teacher, frozen ─► features, persons ─┐
       decoded ─► student ─────────► features, persons ─┼─► how far they are apart
                       boxes, where they are human-made ─┘

From the teacher it learns on photographs whose persons nobody has marked, too, and keeps what the
teacher learnt from many more photographs than these; from boxes, what the teacher does not know.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from roi_codec_ros.common.devices import fast_bfloat16, settle, torch_device
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import GENERATOR
from roi_codec_ros.lab.training.box_loss import BoxLoss
from roi_codec_ros.lab.training.checkpoints import read_checkpoint
from roi_codec_ros.lab.training.detector_data import PairBatch, PairBatches, PairCrops
from roi_codec_ros.lab.training.features import (
    COMPARED_LAYERS,
    detection_distance,
    feature_distance,
)
from roi_codec_ros.lab.training.settings import number, positive, settle_budget
from roi_codec_ros.lab.training.training_run import TrainingRun
from roi_codec_ros.perception.person_detector import feature_pyramid

LICENCE = (
    "AGPL-3.0: made with ultralytics from its weights; not under the Apache-2.0 licence of this "
    "package. Who passes them on, or lets others use them over a network, should read it."
)
IMAGE_SIZE = 640  # longer side in px that the weights are for


@dataclass(frozen=True)
class DetectorTrainingConfig:
    """A run.

    Attributes:
        feature_weight, box_weight: prices of the distance of features, and of the loss against
            human-made boxes (`box_loss.BoxLoss`), relative to the distance of detections.
        teacher_share: share of the teacher in the weights that are written, the rest is learnt: a
            mean of both finds as much in decoded photographs, and forgets less of the originals
            (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022). A teacher of other
            classes has no share.
        minutes, steps, epochs: the budget, one of them; the learning rate follows one cosine over
            it.
        batch_size: crops of a step.
        gradient_clip: greatest norm of a step's gradient.
        checkpoint_every_s: seconds between checkpoints.
        workers: threads that make crops, 0 lets the number of CPUs decide.
        crops: how they are drawn.
    """

    feature_weight: float = number(0.5, 0.0)
    box_weight: float = number(0.5, 0.0)
    teacher_share: float = number(0.2, 0.0, 1.0)
    minutes: float | None = positive(None)
    steps: int | None = number(None, 1)
    epochs: float | None = positive(None)
    learning_rate: float = positive(1e-4)
    warm_up_steps: int = number(50, 1)
    batch_size: int = number(4, 1)
    gradient_clip: float = positive(10.0)
    ema_decay: float = number(0.998, 0.0, 1.0)
    seed: int = number(1, 0)
    checkpoint_every_s: float = number(120.0, 0.0)
    workers: int = number(0, 0, 256)
    crops: PairCrops = field(default_factory=PairCrops)

    def __post_init__(self) -> None:
        settle_budget(self)


class DetectorTrainer(TrainingRun[PairBatch]):
    """Runs a `DetectorTrainingConfig` on pairs of photographs."""

    config: DetectorTrainingConfig

    def __init__(
        self,
        config: DetectorTrainingConfig,
        pairs: PairBatches,
        checkpoint: Path,
        weights: Path,
        teacher: Path,
        device: str = "cpu",
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """weights: YOLOv8 to start from. teacher: one of the same size, which knows originals.

        about: what a resumed run must have in common, and the card shall say. Raises RoiCodecError
        for weights or a device that cannot be used, UsageError where both differ in size.
        """
        super().__init__(config, "person-detector", pairs, checkpoint, about)
        self._device = torch_device(device)
        torch.manual_seed(config.seed)
        self._reduces = fast_bfloat16(self._device)
        self._teacher: Any = settle(feature_pyramid(teacher, COMPARED_LAYERS), self._device)
        student: Any = settle(feature_pyramid(weights, COMPARED_LAYERS), self._device)
        _check_sizes(student, self._teacher, teacher)
        for network in (self._teacher, student):
            network.to(memory_format=torch.channels_last)
        strides = [round(float(stride)) for stride in student.detect.stride]
        self._boxes = BoxLoss(strides).to(self._device)
        parameters = list(student.requires_grad_(True).parameters())
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=1e-4)
        self._start(student, {"optimizer": optimizer})

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self._device

    def resume(self) -> None:
        """Resume from the checkpoint. Raises RoiCodecError if it belongs to another run."""
        began = read_checkpoint(self.checkpoint, self.device).get("about")
        if began != self.about:
            raise RoiCodecError(
                f"expected a run with these images and weights in {self.checkpoint.parent}, "
                "found another; start over without --resume"
            )
        super().resume()

    def _train_step(self, batch: PairBatch, progress: float) -> dict[str, float]:
        config, student = self.config, self.model
        student.eval()  # batch normalisation keeps its statistics: those of a few crops are worse
        self._set_learning_rate(progress)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._reduces):
            with torch.no_grad():
                wanted = self._teacher(self._pixels(batch.originals))
                found = self._teacher.predictions(wanted)
            features = student(self._pixels(batch.decoded))
            predictions = student.predictions(features)  # type: ignore[operator]
        terms = {
            "detections": detection_distance(found, predictions),
            "features": feature_distance(wanted, features),
            "boxes": self._boxes(predictions, batch.boxes),
        }
        prices = {"features": config.feature_weight, "boxes": config.box_weight}
        loss = sum(prices.get(name, 1.0) * term for name, term in terms.items())
        assert isinstance(loss, torch.Tensor)
        figures = {name: float(x.detach()) for name, x in {"loss": loss, **terms}.items()}
        self._check_finite("loss", figures["loss"])
        self._descend(loss)
        return figures

    def weights_file(self) -> memoryview:
        """The averaged weights, with the teacher's share, as `weights_bytes` writes them."""
        known, weights = self._teacher.state_dict(), self.average
        if all(known[key].shape == value.shape for key, value in weights.items()):
            share = self.config.teacher_share
            weights = {
                key: value.lerp(known[key], share) if value.is_floating_point() else value
                for key, value in weights.items()
            }
        self.model.load_state_dict(weights)
        whole: Any = self.model.whole
        return weights_bytes(whole[0], IMAGE_SIZE)


def _check_sizes(student: nn.Module, teacher: nn.Module, file: Path) -> None:
    sizes = [{k: v.shape for k, v in net.state_dict().items()} for net in (student, teacher)]
    other = [key for key, shape in sizes[0].items() if sizes[1].get(key) != shape]
    other = [key for key in other if ".cv3." not in key]  # its classes may be others
    if other:
        raise UsageError(
            f"expected a teacher of the size of the weights, found another in {file}: {other[0]}"
        )


def weights_bytes(network: Any, image_size: int) -> memoryview:
    """An ultralytics weights file: half precision, no optimizer, no paths of this machine."""
    network = network.half().eval().requires_grad_(False).to("cpu")
    settings = {"task": "detect", "imgsz": image_size}
    network.args = settings
    network.criterion = None
    vars(network).pop("pt_path", None)
    content = {
        "generator": GENERATOR,
        "epoch": -1,
        "best_fitness": None,
        "model": network,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": settings,
        "train_metrics": None,
        "train_results": None,
        "date": datetime.now(timezone.utc).isoformat(),
        "version": version("ultralytics"),
        "license": LICENCE,
    }
    file = io.BytesIO()  # torch's own writer hides why the disk refused
    torch.save(content, file)
    return file.getbuffer()
