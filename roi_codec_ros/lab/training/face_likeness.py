# SPDX-License-Identifier: Apache-2.0
"""How much hidden blocks look like faces to YuNet: what a decoder draws there should not.

A person detector is content with anything that looks like a head. A drawing that a face detector
takes for a face shows nobody, but counts as one that was missed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SCALES = (1, 2)  # the frame as it is, as most people run YuNet, and at half its size, as we do
CERTAIN = 1 - 1e-4


class FaceLikeness(nn.Module):
    """YuNet (Wu et al., 2023), frozen, without boxes and landmarks."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        """weights: arrays by name, ``face.…``, as `regions.graph.yunet_weights` reads them."""
        super().__init__()
        for name, value in weights.items():
            if name.startswith("face."):
                array = torch.from_numpy(np.array(value, np.float32))
                self.register_buffer(_buffer(name), array, persistent=False)

    def forward(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Nats by which YuNet believes in faces in hidden blocks, a mean over images.

        images: [B, 3, H, W], RGB, about 0 to 1. hidden: [B, 1, H/16, W/16],
        1 where a block is hidden, else 0.
        """
        bgr = 255.0 * images.clamp(0, 1).flip(1)
        total = torch.zeros((), device=images.device)
        for scale in SCALES:
            for score in self.scores(functional.avg_pool2d(bgr, scale)):
                rows, columns = score.shape[-2:]
                share = functional.adaptive_avg_pool2d(hidden, (rows, columns))
                within = (share > 0.5).float()
                total = total - ((1 - CERTAIN * score).log() * within).sum()
        return total / len(images)

    def scores(self, bgr: Tensor) -> list[Tensor]:
        """Probabilities of faces at strides 8, 16 and 32, each [B, 1, h, w]; pixels 0 to 255."""
        x = functional.relu(self._layer(bgr, "face.stem", stride=2, padding=1))
        x = functional.max_pool2d(self._unit(x, "face.stem_unit"), 2)
        scales = []
        for stage in range(1, 6):
            for part in range(2):
                x = self._unit(x, f"face.stages.{stage}.{part}")
            if stage >= 3:
                scales.append(x)
            if 2 <= stage <= 4:
                x = functional.max_pool2d(x, 2)
        seen: list[Tensor] = []
        for level in (2, 1, 0):
            given = scales[level]
            if seen:
                given = given + functional.interpolate(seen[0], given.shape[-2:])
            seen.insert(0, self._unit(given, f"face.laterals.{level}"))
        found = []
        for level, lateral in enumerate(seen):
            x = self._unit(lateral, f"face.shared.{level}")
            kind, thing = (
                self._unit(x, f"face.{name}.{level}", active=False).sigmoid()
                for name in ("class", "object")
            )
            found.append((kind * thing).sqrt())
        return found

    def _unit(self, x: Tensor, name: str, active: bool = True) -> Tensor:
        """A 1×1 convolution and a depthwise 3×3 one."""
        x = self._layer(x, f"{name}.point")
        x = self._layer(x, f"{name}.depth", padding=1, groups=x.shape[1])
        return functional.relu(x) if active else x

    def _layer(
        self, x: Tensor, name: str, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Tensor:
        weight, bias = (self.get_buffer(_buffer(f"{name}.{part}")) for part in ("weight", "bias"))
        return functional.conv2d(x, weight, bias, stride, padding, groups=groups)


def _buffer(name: str) -> str:
    return name.replace(".", "_")
