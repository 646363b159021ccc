# SPDX-License-Identifier: Apache-2.0
"""Features of a person detector, which hidden layers learn to foretell.

A map of heads says little of a photograph; what a detector sees in every place says much more, and
networks that have to tell it learn to recognise heads in fewer steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from roi_codec_ros.common.devices import fast_bfloat16, settle, torch_device
from roi_codec_ros.perception.detector_graph import STRIDES
from roi_codec_ros.perception.person_detector import feature_pyramid

# Layers of YOLOv8 that are foretold: of its backbone, strides 4 and 8; of what its detection head
# is given, strides 8 and 16.
_BACKBONE, _NECK = (2, 4), (15, 18)
_PROBE_PX = 2 * STRIDES[-1]


class Seen(NamedTuple):
    """channels, stride: of a layer. early: of an analysis, or of a detector's backbone."""

    channels: int
    stride: int
    early: bool


class Teacher(nn.Module):
    """A frozen YOLOv8: images [B, 3, H, W] in [0, 1] to what it sees.

    Sides are multiples of its largest stride, 32. Each layer's channels have mean 0 and variance 1
    over a batch. ``layers`` describes them.
    Raises RoiCodecError when ``weights`` is no YOLOv8 that ``ultralytics`` can load.
    """

    def __init__(self, weights: str | Path, device: str = "cpu") -> None:
        super().__init__()
        target = torch_device(device)
        self.pyramid: Any = settle(feature_pyramid(weights, (*_BACKBONE, *_NECK)), target)
        self.pyramid.to(memory_format=torch.channels_last)
        self._device_type = target.type
        self._reduces = fast_bfloat16(target)
        seen = self(torch.rand(2, 3, _PROBE_PX, _PROBE_PX, device=target))
        self.layers = [
            Seen(f.shape[1], _PROBE_PX // f.shape[-1], early=index < len(_BACKBONE))
            for index, f in enumerate(seen)
        ]

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """What it sees, float32 [B, C, h, w] of each layer."""
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._reduces):
            features = self.pyramid(x)
        return [functional.batch_norm(f.float(), None, None, training=True) for f in features]


class Readouts(nn.ModuleList):
    """What hidden layers foretell of a teacher's: for each the teacher's finest that is no finer,
    among those that are as early.

    hidden: of the network that learns. taught: the teacher's.
    """

    def __init__(self, hidden: Sequence[Seen], taught: Sequence[Seen]) -> None:
        chosen = [
            min(
                (t for t in taught if t.stride >= layer.stride and t.early == layer.early),
                key=lambda t: t.stride,
            )
            for layer in hidden
        ]
        super().__init__(
            nn.Conv2d(layer.channels, wanted.channels, 1)
            for layer, wanted in zip(hidden, chosen, strict=True)
        )
        self._pairs = [
            (list(taught).index(wanted), wanted.stride // layer.stride)
            for layer, wanted in zip(hidden, chosen, strict=True)
        ]

    def forward(self, hidden: Sequence[Tensor], taught: Sequence[Tensor]) -> Tensor:
        """Mean squared error of what the hidden layers [B, C, h, w] foretell, summed over them."""
        errors = [
            functional.mse_loss(
                readout(functional.avg_pool2d(layer.float(), shrink)), taught[which]
            )
            for readout, layer, (which, shrink) in zip(self, hidden, self._pairs, strict=True)
        ]
        return torch.stack(errors).sum()
