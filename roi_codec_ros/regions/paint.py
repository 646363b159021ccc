# SPDX-License-Identifier: Apache-2.0
"""Painting over blocks with what surrounds them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.blocks import BLOCK_PX, grid_size


def paint_over(image: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy of a frame whose hidden blocks are filled smoothly from those around them.

    What is painted is a function of pixels outside the hidden blocks alone; where all are hidden
    the frame becomes grey.

    Args:
        image: uint8 [H, W, C].
        hidden: bool [⌈H / 16⌉, ⌈W / 16⌉].
    """
    height, width = image.shape[:2]
    rows, columns = grid_size(height, width)
    if not hidden.any():
        return image.copy()
    known = (~hidden).astype(np.float32)
    means = _block_means(image, rows, columns) * known[..., None]
    filled = _pull_push(means, known)
    smooth = _interpolated(filled, height, width)
    mask = hidden.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1)[:height, :width]
    painted = image.copy()
    painted[mask] = np.rint(smooth[mask]).clip(0, 255).astype(np.uint8)
    return painted


def _block_means(image: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float32]:
    """Mean colour of each block: float32 [rows, columns, C]."""
    height, width = image.shape[:2]
    whole = cv2.copyMakeBorder(
        image,
        0,
        rows * BLOCK_PX - height,
        0,
        columns * BLOCK_PX - width,
        cv2.BORDER_REPLICATE,
    ).reshape(rows, BLOCK_PX, columns, BLOCK_PX, -1)
    return whole.mean(axis=(1, 3), dtype=np.float32)


def _pull_push(values: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unknown entries from ever coarser means of the known ones (pull-push, Gortler et al. 1996).

    values: [h, w, C], 0 where ``known`` [h, w] is 0.
    """
    height, width = known.shape
    if known.all():
        return values
    if height == width == 1:
        return values if known[0, 0] else np.full_like(values, 127.5)
    pad = ((0, height % 2), (0, width % 2))
    fine_known = np.pad(known, pad)
    fine = np.pad(values * known[..., None], (*pad, (0, 0)))

    def halved(array: NDArray[np.float32]) -> NDArray[np.float32]:
        h, w = array.shape[:2]
        return array.reshape(h // 2, 2, w // 2, 2, -1).sum(axis=(1, 3))

    weight = halved(fine_known[..., None])
    coarse = halved(fine) / np.maximum(weight, 1e-6)
    filled = _pull_push(coarse, (weight[..., 0] > 0).astype(np.float32))
    doubled = cv2.resize(
        filled, (fine.shape[1], fine.shape[0]), interpolation=cv2.INTER_LINEAR
    ).reshape(fine.shape)[:height, :width]
    share = known[..., None]
    return np.asarray(values * share + doubled * (1 - share), np.float32)


def _interpolated(blocks: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    rows, columns = blocks.shape[:2]
    size = (columns * BLOCK_PX, rows * BLOCK_PX)
    smooth = cv2.resize(blocks, size, interpolation=cv2.INTER_LINEAR)
    return smooth.reshape(size[1], size[0], -1)[:height, :width]
