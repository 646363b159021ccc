# SPDX-License-Identifier: Apache-2.0
"""A narrow synthesis from a wide one: the channels that weigh most, so that it starts from there.

Magnitude pruning of whole channels: Li et al., "Pruning Filters for Efficient ConvNets", 2017.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from roi_codec_ros.codec.networks import build_transforms
from roi_codec_ros.codec.presets import get_preset

SCALES = ("coarse", "middle", "fine")
HEADS = ("head", "soft_head")


def narrowed(weights: Mapping[str, Tensor], preset_name: str) -> dict[str, Tensor]:
    """Weights of the preset's synthesis, taken from those of one that is as wide or wider.

    weights: of a `BlockSynthesis` with at least as many channels and residual blocks. Those of the
    preset's own sizes, and of anything that is too narrow, are returned as they are.
    """
    blank = build_transforms(get_preset(preset_name))[1].state_dict()
    if not _are_wider(weights, blank):
        return dict(weights)
    widths = [blank[f"{scale}.0.first.weight"].shape[0] for scale in SCALES]
    heads = torch.stack([_use(weights[f"{name}.weight"]) for name in HEADS]).sum(dim=0)
    uses = [_use(weights["to_middle.weight"]), _use(weights["to_fine.weight"]), heads]
    # The heads also see three colours, the stem levels and the mask: behind the other channels.
    kept = [
        _largest(use[: weights[f"{scale}.0.first.weight"].shape[0]], width)
        for scale, use, width in zip(SCALES, uses, widths, strict=True)
    ]
    coarse, middle, fine = kept
    latent = blank["stem.weight"].shape[1] - 2
    told = weights["stem.weight"].shape[1] - 2
    seen = torch.cat([torch.arange(latent), torch.tensor([told, told + 1])])
    made = dict(blank)
    made["stem.weight"] = weights["stem.weight"][coarse][:, seen]
    made["stem.bias"] = weights["stem.bias"][coarse]
    for scale, channels in zip(SCALES, kept, strict=True):
        for key in {key.split(".")[1] for key in blank if key.startswith(f"{scale}.")}:
            made |= _residual_block(weights, f"{scale}.{key}", channels)
    for name, inner, outer in (("to_middle", coarse, middle), ("to_fine", middle, fine)):
        rows = (4 * outer[:, None] + torch.arange(4)).flatten()  # as pixel_shuffle orders them
        made[f"{name}.weight"] = weights[f"{name}.weight"][rows][:, inner]
        made[f"{name}.bias"] = weights[f"{name}.bias"][rows]
    wide = weights["fine.0.first.weight"].shape[0]
    seen = torch.cat([fine, torch.arange(wide, wide + 3)])
    for name in HEADS:
        made[f"{name}.weight"] = weights[f"{name}.weight"][:, seen]
        made[f"{name}.bias"] = weights[f"{name}.bias"]
    return made


def _are_wider(weights: Mapping[str, Tensor], blank: Mapping[str, Tensor]) -> bool:
    """Whether weights are of other sizes than the blank ones, and none of them smaller."""
    if not blank.keys() <= weights.keys():
        return False
    sizes = [(weights[key].shape, value.shape) for key, value in blank.items()]
    wide_enough = all(
        len(wide) == len(narrow) and all(w >= n for w, n in zip(wide, narrow, strict=True))
        for wide, narrow in sizes
    )
    return wide_enough and any(wide != narrow for wide, narrow in sizes)


def _residual_block(
    weights: Mapping[str, Tensor], name: str, channels: Tensor
) -> dict[str, Tensor]:
    """One residual block on some channels, with as many inside."""
    first, second = (weights[f"{name}.{part}.weight"] for part in ("first", "second"))
    use = _use(first[:, channels].transpose(0, 1)) * _use(second[channels])
    inner = _largest(use, len(channels))
    return {
        f"{name}.first.weight": first[inner][:, channels],
        f"{name}.first.bias": weights[f"{name}.first.bias"][inner],
        f"{name}.second.weight": second[channels][:, inner],
        f"{name}.second.bias": weights[f"{name}.second.bias"][channels],
    }


def _use(weight: Tensor) -> Tensor:
    """How much a convolution [out, in, h, w] makes of each of its inputs: [in]."""
    return weight.float().square().sum(dim=(0, 2, 3))


def _largest(values: Tensor, count: int) -> Tensor:
    """Places of the largest values, in order."""
    return values.topk(count).indices.sort().values
