# SPDX-License-Identifier: Apache-2.0
"""Which latents a region of the picture reaches: stride and receptive field of an analysis."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from roi_codec_ros.codec.presets import Preset
from roi_codec_ros.codec.receptive_field import receptive_field
from roi_codec_ros.lab.training.losses import Boxes, pixel_ranges


class Reach(NamedTuple):
    """Latent place ``i`` sees the pixels from ``i·stride − before`` to ``(i+1)·stride + after``.

    The same in both directions. Where places differ (an upsampling within), the widest counts.
    """

    stride: int
    before: int
    after: int


def reach_of(preset: Preset) -> Reach:
    """The reach of a preset's analysis: its receptive field, the widest of the phases."""
    field = receptive_field(preset)
    before = max(-start for start, _ in field.ranges)
    after = max(end for _, end in field.ranges) - field.stride
    return Reach(field.stride, before, max(after, 0))


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
