# SPDX-License-Identifier: Apache-2.0
"""Several of the paper's networks as one that is wider: a start for its training.

Each keeps channels of its own in every layer and in the latent, and what they reconstruct is
added up. Channels that none of them takes are spare: they see the layer before, and nothing sees
them yet. Training joins them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from roi_codec_ros.codec.presets import PAPER, Preset
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.training.trainable import TrainableCodec

Part = tuple[Preset, Mapping[str, Tensor]]


@torch.no_grad()
def side_by_side(parts: Sequence[Part], preset: Preset) -> dict[str, Tensor]:
    """The state of a `TrainableCodec` of ``preset`` that adds up what the parts reconstruct.

    parts: the preset and the state of each. Raises RoiCodecError unless all of them are networks
    of the paper with as many layers, and fit in it together.
    """
    for part, _ in parts:
        if part.architecture != PAPER or part.options != preset.options:
            raise RoiCodecError(
                f"expected networks of the paper with as many layers as {preset.name} has, "
                f"found {part.name}"
            )
    widths = [part.latent_channels for part, _ in parts]
    if sum(widths) > preset.latent_channels:
        raise RoiCodecError(
            f"expected networks of {preset.latent_channels} channels together for {preset.name}, "
            f"found {' + '.join(map(str, widths))}"
        )
    wide = TrainableCodec(preset.name).state_dict()
    for key, value in wide.items():
        if not key.startswith("bottleneck."):
            value.copy_(_unconnected(key, value, sum(widths)))
    first = 0
    for width, (_, weights) in zip(widths, parts, strict=True):
        for key, value in wide.items():
            own = weights[key]
            if value.shape != own.shape:
                pairs = zip(value.shape, own.shape, strict=True)
                places = [slice(first, first + width) if n != m else slice(None) for n, m in pairs]
                value[tuple(places)] = own
            elif key.endswith(".bias"):
                value += own  # of the image's colours
        first += width
    return wide


def _unconnected(key: str, value: Tensor, used: int) -> Tensor:
    """A layer's weights where only spare channels, those from ``used`` on, see anything."""
    if value.ndim < 4:  # biases, and normalizations, which do not mix channels at their start
        mixed = key.endswith(".gamma")
        return torch.diag(value.diagonal()) if mixed else value * (not key.endswith(".bias"))
    weight = torch.zeros_like(value)
    in_of_synthesis = key.startswith("synthesis.")  # stored as [in, out, 5, 5]
    spare = weight[:, used:] if in_of_synthesis else weight[used:]
    if spare.numel():
        torch.nn.init.normal_(spare, std=0.02)
    return weight
