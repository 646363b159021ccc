# SPDX-License-Identifier: Apache-2.0
"""A larger network that starts with what a smaller one has learnt.

Every tensor of the smaller network becomes the first corner of the larger one's; what the larger
one has beside that starts as it does in a new network, except that nothing of it reaches the old
outputs. So the first latents of the larger network are those of the smaller one, and so is its
reconstruction. The added latents carry the next frequencies of a block transform, which the
reconstruction learns to hear: given them at once, the picture that a trained network makes got
worse, not better, since it does not compute a block transform any more. Their gates open and
close as the old ones do on average: what has been learnt to be left out is left out of them too.
Their densities are that of the last of the old latents: a new one's is so wide that their bits,
at first most of all, would drive the whole network to say less.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from roi_codec_ros.codec.presets import Preset


def can_grow(small: Preset, large: Preset) -> bool:
    """Whether a network of one preset fits into a corner of another's, both of our design."""
    sizes = small.options.keys() | large.options.keys()
    return (
        small.architecture == large.architecture == "shuffle"
        and small.latent_channels <= large.latent_channels
        and all(small.options.get(key, 0) <= large.options.get(key, 0) for key in sizes)
    )


@torch.no_grad()
def grown(small: Mapping[str, Tensor], large: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a new ``large`` network with that of the ``small`` one in it.

    Tensors are [out, in, …] or [out]; what ``small`` lacks stays as it is in ``large``.
    """
    state = {name: value.clone() for name, value in large.items()}
    for name, value in small.items():
        target = state[name]
        corner = tuple(slice(0, size) for size in value.shape)
        if value.ndim == 4:
            target[: value.shape[0], value.shape[1] :] = 0.0
        target[corner] = value
        if name.startswith("analysis.gate."):
            target[value.shape[0] :] = target[: value.shape[0]].mean(dim=0)
        elif name.startswith("bottleneck."):
            target[value.shape[0] :] = target[value.shape[0] - 1 : value.shape[0]]
    return state
