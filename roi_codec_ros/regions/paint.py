# SPDX-License-Identifier: Apache-2.0
"""Painting over blocks with their surroundings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.blocks import BLOCK_PX

Block = tuple[int, int]  # height and width of a block in samples of a plane


def paint_over(image: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A copy of a frame with hidden blocks filled smoothly from their surroundings.

    The fill depends only on pixels outside the hidden blocks; if all are hidden, the frame becomes
    grey.

    Args:
        image: uint8 [H, W, C].
        hidden: bool [⌈H / 16⌉, ⌈W / 16⌉].
    """
    return np.asarray(paint_plane(image, hidden, (BLOCK_PX, BLOCK_PX)), np.uint8)


def paint_plane(plane: NDArray[Any], hidden: NDArray[np.bool_], block: Block) -> NDArray[Any]:
    """`paint_over` for any plane of samples, with blocks of ``block`` rows and columns.

    Subsampled chroma planes have smaller blocks, as has each of the four colours of a Bayer
    pattern.

    Args:
        plane: unsigned integers of 8 or 16 bits, [h, w] or [h, w, C].
        hidden: bool [rows, columns] of blocks that cover the plane.
    """
    if not hidden.any():
        return plane.copy()
    deep = plane.reshape(*plane.shape[:2], -1)
    known = (~hidden).astype(np.float32)
    means = _block_means(deep, hidden.shape, block) * known[..., None]
    filled = fill_unknown(means, known, np.iinfo(plane.dtype).max / 2)
    painted = deep.copy()
    for rows, columns in _patches(hidden):
        down = slice(rows[0] * block[0], (rows[-1] + 1) * block[0])
        across = slice(columns[0] * block[1], (columns[-1] + 1) * block[1])
        part = painted[down, across]
        smooth = _interpolated(filled, rows, columns, block)[: part.shape[0], : part.shape[1]]
        mask = hidden[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        mask = mask.repeat(block[0], axis=0).repeat(block[1], axis=1)
        mask = mask[: part.shape[0], : part.shape[1], None]
        colours = np.rint(smooth).astype(plane.dtype)  # between means of samples: in their range
        np.copyto(part, colours, where=mask)
    return painted.reshape(plane.shape)


def _patches(hidden: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows and columns of blocks around hidden areas, one patch per connected area."""
    count, _, figures, _ = cv2.connectedComponentsWithStats(hidden.astype(np.uint8))
    for x, y, width, height, _ in figures[1:count].tolist():
        yield np.arange(y, y + height), np.arange(x, x + width)


def _block_means(plane: NDArray[Any], grid: tuple[int, ...], block: Block) -> NDArray[np.float32]:
    """Mean of the samples of each block: float32 [rows, columns, C]."""
    height, width, channels = plane.shape
    rows, columns = grid
    whole = cv2.copyMakeBorder(
        plane,
        0,
        rows * block[0] - height,
        0,
        columns * block[1] - width,
        cv2.BORDER_REPLICATE,
    )
    means = cv2.resize(whole.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32).reshape(rows, columns, channels)


def fill_unknown(
    values: NDArray[np.float32], known: NDArray[np.float32], middle: float
) -> NDArray[np.float32]:
    """Fill unknown entries from increasingly coarse means of known ones (pull-push, Gortler et al.
    1996).

    values: [h, w, C], 0 where ``known`` [h, w] is 0. middle: the fill value if none is known.
    """
    height, width = known.shape
    if known.all():
        return values
    if height == width == 1:
        return values if known[0, 0] else np.full_like(values, middle)
    share = known[..., None]
    fine_share, fine = _even(share), _even(values * share)

    def halved(array: NDArray[np.float32]) -> NDArray[np.float32]:
        h, w = array.shape[:2]
        return array.reshape(h // 2, 2, w // 2, 2, -1).sum(axis=(1, 3))

    weight = halved(fine_share)
    coarse = halved(fine) / np.maximum(weight, 1e-6)
    filled = fill_unknown(coarse, (weight[..., 0] > 0).astype(np.float32), middle)
    doubled = cv2.resize(
        filled, (fine.shape[1], fine.shape[0]), interpolation=cv2.INTER_LINEAR
    ).reshape(fine.shape)[:height, :width]
    return np.asarray(values * share + doubled * (1 - share), np.float32)


def _even(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """With a row and a column of zeros behind it, where there is an odd number of them."""
    height, width, channels = array.shape
    if not (height % 2 or width % 2):
        return array
    whole = np.zeros((height + height % 2, width + width % 2, channels), np.float32)
    whole[:height, :width] = array
    return whole


def _interpolated(
    blocks: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp], block: Block
) -> NDArray[np.float32]:
    """Upsample the blocks of ``rows`` and ``columns`` to samples; bilinear."""
    top, left = max(0, int(rows[0]) - 1), max(0, int(columns[0]) - 1)
    part = blocks[top : rows[-1] + 2, left : columns[-1] + 2]
    size = (part.shape[1] * block[1], part.shape[0] * block[0])
    smooth = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)
    deep = smooth.reshape(size[1], size[0], -1)
    inner = deep[(int(rows[0]) - top) * block[0] :, (int(columns[0]) - left) * block[1] :]
    return np.asarray(inner, np.float32)
