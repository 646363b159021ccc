# SPDX-License-Identifier: Apache-2.0
"""Which pixels a latent can depend on, from the structure of its network alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.presets import Preset

PHASES = 4  # a network with inner strides may repeat only every few latent positions
_NARROW = 8  # channels of the network that is analysed
_FIRST_GRID = 12  # latent positions per side of the first image tried
_LARGEST_GRID = 96


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels a latent can depend on, along either axis.

    stride: px per latent position.
    ranges: for each phase (position modulo their number) the first pixel and the one after the
    last, counted from the position's own first pixel.
    """

    stride: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def width_px(self) -> int:
        """Width of the widest phase, px."""
        return max(end - start for start, end in self.ranges)

    def touching(self, start: float, end: float, positions: int) -> NDArray[np.bool_]:
        """Which of `positions` latents along an axis can depend on pixels of [start, end)."""
        own = np.arange(positions)
        ranges = np.array(self.ranges)[own % len(self.ranges)]
        return (own * self.stride + ranges[:, 0] < end) & (
            own * self.stride + ranges[:, 1] > start
        )


def receptive_field(preset: Preset) -> ReceptiveField:
    """The pixels that the analysis transform's latents can depend on, whatever its weights.

    Computed from the gradient of latents with respect to the image in a network of the same
    structure with positive weights only: nothing cancels, no unit is inactive, and a pixel with a
    gradient of zero has no influence in any network of that structure.

    Rows and columns are handled at once, on the diagonal, since all our layers are square. Raises
    ValueError if the field does not fit into the largest image tried.
    """
    import torch

    from roi_codec_ros.codec.networks import build_transforms

    # The number of channels affects the run time, not the result.
    narrow = {
        key: min(value, _NARROW) if "width" in key else value
        for key, value in preset.options.items()
    }
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        analysis = build_transforms(replace(preset, latent_channels=_NARROW, options=narrow))[0]
    with torch.no_grad():
        for weights in analysis.parameters():
            weights.uniform_(0.5, 1.5, generator=generator)
            weights.div_(max(1, weights[0].numel()))
    grid = _FIRST_GRID
    while grid <= _LARGEST_GRID:
        side = grid * preset.stride
        image = torch.rand(1, 3, side, side, generator=generator)
        image.requires_grad_()
        latents = analysis(image)
        first = grid // 2 // PHASES * PHASES
        ranges = []
        for position in range(first, first + PHASES):
            (gradient,) = torch.autograd.grad(
                latents[0, :, position, position].sum(), image, retain_graph=True
            )
            seen = gradient[0].abs().amax(dim=(0, 1)).nonzero()
            ranges.append((int(seen[0]), int(seen[-1]) + 1))
        if all(start > 0 and end < side for start, end in ranges):
            return ReceptiveField(
                preset.stride,
                tuple(
                    (start - position * preset.stride, end - position * preset.stride)
                    for position, (start, end) in enumerate(ranges, start=first)
                ),
            )
        grid *= 2
    raise ValueError(f"expected a receptive field of less than {side} px, found a larger one")
