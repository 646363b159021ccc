# SPDX-License-Identifier: Apache-2.0
"""Presets: the shipped architectures as plain data (readable without torch)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from roi_codec_ros.common.errors import UsageError

BLOCKS = "blocks"  # the block-based architecture
PAPER = "paper"  # the paper's


@dataclass(frozen=True)
class Preset:
    """One architecture with its sizes.

    Attributes:
        name: as given by users, e.g. ``fast``.
        architecture: key in the registry of ``codec.networks``.
        latent_channels: channels of the coded latent.
        stride: pixels of the coded image per latent position, in each direction.
        coded_size: ``(height, width)`` that every image is squashed to before coding; None: any
            size.
        options: the architecture's other sizes, passed by keyword.
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
        architecture=PAPER,
        latent_channels=width,
        stride=2 ** (hidden_layers + 2),
        coded_size=(512, 512),
        options={"hidden_layers": hidden_layers},
        description=f"the paper's network, N={width}, M={hidden_layers}, squashed to 512×512",
    )


def _blocks(
    name: str,
    *,
    channels: int,
    coarse: tuple[int, int],
    middle: tuple[int, int],
    fine: tuple[int, int],
    description: str,
) -> Preset:
    """A block transform of 16×16 pixels, with widths and residual blocks of the synthesis per
    scale.
    """
    sizes = {"coarse": coarse, "middle": middle, "fine": fine}
    return Preset(
        name=name,
        architecture=BLOCKS,
        latent_channels=channels,
        stride=16,
        options={
            f"{scale}_{part}": value
            for scale, pair in sizes.items()
            for part, value in zip(("width", "blocks"), pair, strict=True)
        },
        description=description,
    )


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _blocks(
            "fast",
            channels=128,
            coarse=(96, 1),
            middle=(48, 1),
            fine=(24, 1),
            description="heads hidden, persons sharp, the background soft: the default",
        ),
        _blocks(
            "nano",
            channels=96,
            coarse=(96, 1),
            middle=(48, 1),
            fine=(24, 1),
            description="the same with a smaller decoder, at fewer bits",
        ),
        _paper(256, 2),
        _paper(256, 1),
        _paper(128, 2),
    )
}


def get_preset(name: str) -> Preset:
    """The preset called ``name``: one of `PRESETS`, or ``paper-N-M``, the paper's of other sizes.

    Raises UsageError that lists the known names.
    """
    if name in PRESETS:
        return PRESETS[name]
    sizes = re.fullmatch(r"paper-([1-9]\d{0,3})-([0-4])", name)
    if sizes is None:
        raise UsageError(
            f"expected a preset among {', '.join(PRESETS)}, or paper-N-M; found {name!r}"
        )
    return _paper(*map(int, sizes.groups()))
