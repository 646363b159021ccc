# SPDX-License-Identifier: Apache-2.0
"""Which latents a region of the picture reaches: stride and receptive field of an analysis."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from roi_codec_ros.training.losses import Boxes, pixel_ranges


class Reach(NamedTuple):
    """Latent place ``i`` sees the pixels from ``i·stride − before`` to ``(i+1)·stride + after``.

    The same in both directions. Where places differ (an upsampling within), the widest counts.
    """

    stride: int
    before: int
    after: int


def receptive_field(analysis: nn.Module, stride: int) -> Reach:
    """The receptive field of an analysis [1, 3, H, W] → [1, C, H / stride, W / stride], measured.

    A copy with positive convolutions and no biases has a positive derivative exactly where a place
    sees a pixel, since nothing cancels; derivatives of two neighbouring places are looked at.
    """
    probe = copy.deepcopy(analysis).cpu().double()
    with torch.no_grad():
        for module in probe.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1.0 / module.weight[0].numel())
                if module.bias is not None:
                    module.bias.zero_()
    places = 2 * math.ceil(128 / stride) + 4
    before = after = 0
    for place in (places // 2, places // 2 + 1):
        x = torch.full((1, 3, 2 * stride, places * stride), 0.5, dtype=torch.float64)
        x.requires_grad_()
        probe(x)[0, :, 0, place].sum().backward()
        assert x.grad is not None
        seen = x.grad[0].abs().sum(dim=(0, 1)).nonzero()[:, 0]
        before = max(before, place * stride - int(seen.min()))
        after = max(after, int(seen.max()) + 1 - (place + 1) * stride)
    return Reach(stride, before, max(after, 0))


def touched_places(boxes: Boxes, height: int, width: int, reach: Reach) -> Tensor:
    """Mask [B, ⌈H / stride⌉, ⌈W / stride⌉]: 1 where a place sees a pixel of any of its boxes."""
    rows, columns = -(-height // reach.stride), -(-width // reach.stride)
    mask = torch.zeros(len(boxes), rows, columns)
    for image_mask, image_boxes in zip(mask, boxes, strict=True):
        for vertical, horizontal in pixel_ranges(image_boxes, height, width):
            image_mask[_places(vertical, reach), _places(horizontal, reach)] = 1.0
    return mask


def _places(pixels: slice, reach: Reach) -> slice:
    first = (pixels.start - reach.after) // reach.stride
    last = (pixels.stop - 1 + reach.before) // reach.stride
    return slice(max(first, 0), max(last, 0) + 1)
