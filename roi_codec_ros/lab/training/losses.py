# SPDX-License-Identifier: Apache-2.0
"""The paper's loss, equations (1) to (6), and a head objective that leaves nothing to invert.

Images are float tensors [B, 3, H, W] in [0, 1]. Boxes come as one float tensor [N_i, 4] an image,
``x1 y1 x2 y2`` in pixels of that image; a pixel belongs to a box when its centre lies inside.
Boxes are clipped to the image; one that covers no pixel then counts as absent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

Boxes = Sequence[Tensor]
_LOG_ODDS_OF_WHITE = 2.5  # where a pixel is white for sure
_INSIDE = 2.0


def rate_bpp(likelihoods: Tensor, pixels_per_image: int) -> Tensor:
    """Equation (1): the latent's Shannon cross entropy in bits per pixel, mean over the batch.

    ``likelihoods``: [B, C, h, w], each in (0, 1].
    """
    return -likelihoods.log2().sum() / (likelihoods.shape[0] * pixels_per_image)


def background_loss(x: Tensor, x_hat: Tensor, weight: Tensor | None = None) -> Tensor:
    """Equation (2): the mean squared error over whole images; ``weight`` [B, 1, H, W] masks."""
    error = (x - x_hat) ** 2
    return error.mean() if weight is None else (error * weight).mean()


def region_loss(
    x: Tensor, x_hat: Tensor, boxes: Boxes, k: int, weight: Tensor | None = None
) -> Tensor:
    """Equation (3): ``k + (−1)^k · MSE`` of each box, mean over an image's boxes, then images.

    ``k = 0`` rewards a close reconstruction of the regions, ``k = 1`` a distant one. Images
    without boxes take no part in the mean; a batch without any gives 0 (with a gradient of 0).
    """
    if k not in (0, 1):
        raise ValueError(f"expected k to be 0 or 1, found {k}")
    error = ((x - x_hat) ** 2).mean(dim=1)
    height, width = error.shape[1:]
    shares = region_weights(boxes, height, width, device=error.device)
    if weight is not None:
        error = error * weight[:, 0]
    mse = (error * shares).sum()
    return 1.0 - mse if k == 1 and bool(shares.any()) else mse


def region_weights(
    boxes: Boxes, height: int, width: int, device: torch.device | None = None
) -> Tensor:
    """What each pixel counts in the expectation of equation (3): float [B, H, W], sum 1 or 0.

    Every box of an image counts the same, whatever its size, and so does every image that has any;
    a pixel in several boxes counts in each of them.
    """
    down, across = _rows_and_columns(boxes, height, width, device)
    areas = down.sum(dim=2) * across.sum(dim=2)  # [B, N], of pixels
    counts = (areas > 0).sum(dim=1, keepdim=True).clamp_min(1)
    each = torch.where(areas > 0, 1.0 / (areas.clamp_min(1) * counts), 0.0)
    shares = (down * each[..., None]).transpose(1, 2) @ across
    return shares / (areas > 0).any(dim=1).sum().clamp_min(1)


def visible_person_loss(
    x: Tensor, x_hat: Tensor, boxes: Boxes, weight: Tensor | None = None
) -> Tensor:
    """Equation (4): visible persons are kept."""
    return region_loss(x, x_hat, boxes, k=0, weight=weight)


def head_loss(x: Tensor, x_hat: Tensor, boxes: Boxes) -> Tensor:
    """Equation (5): heads are pushed away from themselves (towards their negative).

    The reconstruction is clipped to [0, 1], the range that the paper takes for granted: without it
    the loss has no lower bound.
    """
    return region_loss(x, x_hat.clamp(0.0, 1.0), boxes, k=1)


def map_loss(x_hat: Tensor, boxes: Boxes, weight: Tensor | None = None) -> Tensor:
    """Mean cross entropy, in nats, of a map of the boxes: white inside, black outside.

    The mean of a pixel's colours tells its log odds, `_LOG_ODDS_OF_WHITE` at 1, their negative at
    0. Pixels inside count `_INSIDE` times. ``weight`` [B, 1, H, W] masks.
    """
    inside = region_mask(boxes, x_hat.shape[-2], x_hat.shape[-1]).to(x_hat.device)
    odds = _LOG_ODDS_OF_WHITE * (2.0 * x_hat.mean(dim=1, keepdim=True) - 1.0)
    price = 1.0 + (_INSIDE - 1.0) * inside
    price = price if weight is None else price * weight
    return functional.binary_cross_entropy_with_logits(odds, inside, weight=price)


def fill_regions(x: Tensor, boxes: Boxes, margin: float = 0.1, cells: int = 1) -> Tensor:
    """``x`` with each box, grown by ``margin`` of its size on every side, left without detail.

    What stands there becomes a thumbnail of ``cells`` × ``cells`` mean colours, stretched smoothly
    over the box again: one cell paints a plain colour, three keep the shading of hair and skin,
    and no more than 27 numbers. An ellipse is painted, so that the corners of a head box
    keep the background and shoulders around the head. Boxes are painted in their order, from the
    pixels of ``x``. Raises ValueError for less than one cell.
    """
    if cells < 1:
        raise ValueError(f"expected at least one cell, found {cells}")
    filled = x.clone()
    height, width = x.shape[-2:]
    for image, target, image_boxes in zip(x, filled, boxes, strict=True):
        for x1, y1, x2, y2 in image_boxes.tolist():
            centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
            radius_x = (x2 - x1) * (0.5 + margin)
            radius_y = (y2 - y1) * (0.5 + margin)
            outer = torch.tensor(
                [
                    [
                        centre_x - radius_x,
                        centre_y - radius_y,
                        centre_x + radius_x,
                        centre_y + radius_y,
                    ]
                ]
            )
            inner = list(pixel_ranges(torch.tensor([[x1, y1, x2, y2]]), height, width))
            if not inner:
                continue
            for rows, columns in pixel_ranges(outer, height, width):
                dy = (torch.arange(rows.start, rows.stop) + 0.5 - centre_y) / radius_y
                dx = (torch.arange(columns.start, columns.stop) + 0.5 - centre_x) / radius_x
                inside = dy[:, None] ** 2 + dx[None, :] ** 2 <= 1.0
                patch = target[:, rows, columns]
                smooth = _thumbnail(image[:, inner[0][0], inner[0][1]], cells, patch.shape[-2:])
                patch[:, inside] = smooth[:, inside]
    return filled


def _thumbnail(pixels: Tensor, cells: int, size: Sequence[int]) -> Tensor:
    """``pixels`` [3, h, w] as ``cells`` × ``cells`` means, stretched to [3, *size]."""
    means = functional.adaptive_avg_pool2d(pixels[None], cells)
    return functional.interpolate(means, size=tuple(size), mode="bilinear")[0]


def region_mask(boxes: Boxes, height: int, width: int) -> Tensor:
    """Float mask [B, 1, H, W]: 1 inside any of an image's boxes, else 0."""
    down, across = _rows_and_columns(boxes, height, width)
    return (down.transpose(1, 2) @ across > 0)[:, None].float()


def _rows_and_columns(
    boxes: Boxes, height: int, width: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """1 for the rows [B, N, H] and columns [B, N, W] of each box, as of `pixel_ranges`, else 0.

    N is the most boxes that an image has; what others lack is empty.
    """
    sides = torch.zeros(len(boxes), max(map(len, boxes), default=0), 4)
    for image_sides, image_boxes in zip(sides, boxes, strict=True):
        image_sides[: len(image_boxes)] = image_boxes
    x1, y1, x2, y2 = sides.to(device)[..., None, :].unbind(dim=-1)
    rows, columns = (torch.arange(size, device=device) + 0.5 for size in (height, width))
    down, across = (rows >= y1) & (rows < y2), (columns >= x1) & (columns < x2)
    return down.float(), across.float()


def pixel_ranges(boxes: Tensor, height: int, width: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the pixels whose centres lie in each box; boxes without any left out."""
    ranges = []
    for x1, y1, x2, y2 in boxes.tolist():
        left, right = (min(max(math.ceil(v - 0.5), 0), width) for v in (x1, x2))
        top, bottom = (min(max(math.ceil(v - 0.5), 0), height) for v in (y1, y2))
        if right > left and bottom > top:
            ranges.append((slice(top, bottom), slice(left, right)))
    return ranges
