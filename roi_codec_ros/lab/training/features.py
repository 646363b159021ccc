# SPDX-License-Identifier: Apache-2.0
"""How far two images are apart for a person detector: in its layers, and in what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from roi_codec_ros.common.devices import fast_bfloat16, settle, torch_device
from roi_codec_ros.perception.person_detector import feature_pyramid

# Layers of YOLOv8 whose outputs are compared: strides 8 and 16 of the backbone, and what the
# detection head is given at strides 8, 16 and 32.
COMPARED_LAYERS = (4, 6, 15, 18, 21)
_SIDES = 4  # of a box


class Distances(NamedTuple):
    """Two scalars: of the layers' outputs, and of the detections."""

    features: Tensor
    detections: Tensor


class DetectorDistance(nn.Module):
    """What a frozen YOLOv8 sees of a reconstruction beside what it should see.

    Called with ``(x, target, x_hat)``, images [B, 3, H, W] in [0, 1] whose sides are multiples of
    32: the photograph, what the reconstruction should look like, and the reconstruction. The
    layers' outputs are compared with those on ``target``, the detections with those on ``x``,
    since a person should be found whatever stands where the head was.
    """

    def __init__(self, weights: str | Path, device: str = "cpu") -> None:
        """Raises RoiCodecError when ``weights`` is no YOLOv8 that ``ultralytics`` can load."""
        super().__init__()
        target = torch_device(device)
        self.pyramid: Any = settle(feature_pyramid(weights, COMPARED_LAYERS), target)
        self.pyramid.to(memory_format=torch.channels_last)
        self._device_type = target.type
        self._reduces = fast_bfloat16(target)

    def forward(self, x: Tensor, target: Tensor, x_hat: Tensor) -> Distances:
        """How far the reconstruction is from what the detector should see and find."""
        with torch.no_grad(), self._reduced_precision():
            wanted = self.pyramid(target)
            found = self.pyramid.predictions(wanted if target is x else self.pyramid(x))
        with self._reduced_precision():
            features = self.pyramid(x_hat)
            predictions = self.pyramid.predictions(features)
        return Distances(
            feature_distance(wanted, features), detection_distance(found, predictions)
        )

    def _reduced_precision(self) -> torch.autocast:
        return torch.autocast(self._device_type, torch.bfloat16, enabled=self._reduces)


def feature_distance(wanted: list[Tensor], features: list[Tensor]) -> Tensor:
    """Mean squared distance of activations, each layer relative to its own energy.

    0 for equal images and about 1 to 2 for unrelated ones.
    """
    terms = [
        ((w.float() - f.float()) ** 2).mean() / (w.float() ** 2).mean().clamp_min(1e-6)
        for w, f in zip(wanted, features, strict=True)
    ]
    return torch.stack(terms).mean()


def detection_distance(
    found: list[tuple[Tensor, Tensor]], predictions: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Divergence (nats per person found) of what a detection head says of two images.

    Both: for each stride the logits of a person [B, 1, h, w] and those of the distances to the
    sides of its box [B, 4 * bins, h, w]. The Kullback-Leibler divergences of both are summed over
    all places, the sides' weighted by how sure the detector was of a person there, and divided by
    the sum of that certainty (at least 1). 0 for equal detections.
    """
    total = torch.zeros(())
    certainty = torch.zeros(())
    for (person, sides), (person_hat, sides_hat) in zip(found, predictions, strict=True):
        p = person.float().sigmoid()
        certainty = certainty + p.sum()
        total = total + (
            functional.binary_cross_entropy_with_logits(person_hat.float(), p, reduction="sum")
            - functional.binary_cross_entropy_with_logits(person.float(), p, reduction="sum")
        )
        shape = (sides.shape[0], _SIDES, -1, *sides.shape[-2:])
        log_q = sides.float().reshape(shape).log_softmax(dim=2)
        log_q_hat = sides_hat.float().reshape(shape).log_softmax(dim=2)
        divergence = (log_q.exp() * (log_q - log_q_hat)).sum(dim=2).mean(dim=1, keepdim=True)
        total = total + (p * divergence).sum()
    return total / certainty.clamp_min(1.0)
