# SPDX-License-Identifier: Apache-2.0
"""Presets: the architectures that ship, as plain data (no torch needed to read them)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from roi_codec_ros.common.errors import UsageError


@dataclass(frozen=True)
class Preset:
    """One architecture with its sizes.

    Attributes:
        name: what users type, e.g. ``fast``.
        architecture: key in the registry of ``codec.networks``.
        latent_channels: channels of the latent that is coded.
        stride: pixels of the coded image per latent position, in each direction.
        coded_size: ``(height, width)`` every image is squashed to before coding, or None where the
            network takes any size.
        options: the architecture's other sizes, handed to it by name.
        description: one line for ``roi-codec models``.
    """

    name: str
    architecture: str
    latent_channels: int
    stride: int
    coded_size: tuple[int, int] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def _paper(width: int, hidden_layers: int) -> Preset:
    """The paper's network: N channels, M hidden layers, hence M + 2 convolutions of stride 2."""
    return Preset(
        name=f"paper-{width}-{hidden_layers}",
        architecture="paper",
        latent_channels=width,
        stride=2 ** (hidden_layers + 2),
        coded_size=(512, 512),
        options={"hidden_layers": hidden_layers},
        description=f"the paper's network, N={width}, M={hidden_layers}, squashed to 512×512",
    )


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="fast",
            architecture="shuffle",
            latent_channels=64,
            stride=16,
            options={
                "stem_width": 48,
                "width": 96,
                "context_blocks": 2,
                "gated": 1,
                "decoder_width": 192,
                "decoder_blocks": 3,
                "detail_width": 64,
                "detail_blocks": 2,
            },
            description="for a camera's CPU: the default",
        ),
        Preset(
            name="quality",
            architecture="shuffle",
            latent_channels=64,
            stride=16,
            options={
                "stem_width": 96,
                "width": 144,
                "context_blocks": 2,
                "gated": 1,
                "decoder_width": 224,
                "decoder_blocks": 3,
                "detail_width": 96,
                "detail_blocks": 3,
            },
            description="for a camera with a GPU: more of the picture for the same bits",
        ),
        Preset(
            name="nano",
            architecture="shuffle",
            latent_channels=48,
            stride=16,
            options={
                "stem_width": 24,
                "width": 48,
                "context_blocks": 1,
                "gated": 1,
                "decoder_width": 160,
                "decoder_blocks": 2,
                "detail_width": 48,
                "detail_blocks": 2,
            },
            description="for the smallest computers",
        ),
        _paper(256, 2),
        _paper(256, 1),
        _paper(128, 2),
    )
}


def get_preset(name: str) -> Preset:
    """The preset called ``name``. Raises UsageError that lists the known names."""
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(f"expected a preset among {', '.join(PRESETS)}; found {name!r}") from None
