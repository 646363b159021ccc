# SPDX-License-Identifier: Apache-2.0
"""The loss of one step: equation (6) over any classes and objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from roi_codec_ros.lab.training import losses
from roi_codec_ros.lab.training.config import TrainingConfig
from roi_codec_ros.lab.training.features import Distances
from roi_codec_ros.lab.training.losses import Boxes
from roi_codec_ros.lab.training.normalized import NormalizedCodec, codec_to_train
from roi_codec_ros.lab.training.objectives import (
    OBJECTIVES,
    Regions,
    Scene,
    filled_target,
    hidden_classes,
    known_pixels,
)
from roi_codec_ros.lab.training.teaching import Teacher

DetectorTerm = Callable[[Tensor, Tensor, Tensor], Distances]


class CodecLoss(nn.Module):
    """A codec, and the loss of a batch as its ``forward``."""

    def __init__(
        self,
        config: TrainingConfig,
        detector: DetectorTerm | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        """``detector(x, target, x_hat)`` gives what the detector's weights price.

        teacher: whose features a normalized network foretells.
        """
        super().__init__()
        widths = config.normalized.analysis, config.normalized.synthesis
        self.codec = codec_to_train(config.preset, *widths, teacher.layers if teacher else ())
        self._reduced = config.precision == "bf16"
        # In lists: not among this module's own networks.
        self._detector, self._teacher = [detector], [teacher]

    def forward(
        self, x: Tensor, boxes: Mapping[str, Boxes], unknown: Boxes, config: TrainingConfig
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What all optimizers lower, each by its own parameters, and the figures of the step.

        x: photographs [B, 3, H, W] in [0, 1]. boxes: by class. unknown: where an unannotated head
            is possible. config: what the loss is made of in this step. Figures are scalars without
            gradients.
        """
        regions = config.regions
        y = self.codec.code(x, self._reduced)
        x_hat, likelihoods = self.codec(y, self._reduced)
        target = filled_target(x, boxes, regions)
        scene = Scene(
            x=x,
            target=target,
            x_hat=x_hat,
            boxes=boxes,
            known=_known(x, boxes, unknown, config),
        )
        rate = losses.rate_bpp(likelihoods, x.shape[-2] * x.shape[-1])
        background = losses.background_loss(target, x_hat, scene.known)
        loss = config.lambda_rate * rate + config.lambda_background * background
        figures = {"bpp": rate, "mse": background}
        for name, term, weight in region_terms(scene, regions):
            figures[name] = term
            loss = loss + weight * term
        detector = self._detector[0]
        if detector is not None:
            distances = detector(x, target, x_hat)
            loss = loss + config.feature_weight * distances.features
            loss = loss + config.detection_weight * distances.detections
            figures |= {"features": distances.features, "detections": distances.detections}
        teacher = self._teacher[0]
        if teacher is not None:
            assert isinstance(self.codec, NormalizedCodec)
            figures["teaching"] = self.codec.teaching_loss(y, teacher(x))
            loss = loss + config.normalized.teaching_weight * figures["teaching"]
        figures = {"loss": loss, **figures}
        loss = loss + self.codec.bottleneck.loss()  # moves the quantiles only
        return loss, {name: value.detach() for name, value in figures.items()}


def _known(
    x: Tensor, boxes: Mapping[str, Boxes], unknown: Boxes, config: TrainingConfig
) -> Tensor | None:
    if not config.skip_unknown_heads or "head" not in hidden_classes(config.regions):
        return None
    return known_pixels(boxes["head"], unknown, x.shape[-2], x.shape[-1]).to(x.device)


def region_terms(scene: Scene, regions: Regions) -> list[tuple[str, Tensor, float]]:
    """Every objective's name ``class.objective``, term and weight; a weight of 0 leaves it out."""
    return [
        (f"{name}.{chosen}", OBJECTIVES[chosen].loss(scene, name, settings), settings.weight)
        for name, wanted in regions.items()
        for chosen, settings in wanted.items()
        if settings.weight > 0
    ]
