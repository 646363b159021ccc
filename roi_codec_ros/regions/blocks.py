# SPDX-License-Identifier: Apache-2.0
"""The block grid of regions, and the overlap of boxes with its blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_PX = 16  # side of a block in pixels of the frame

# Margin of a head around a detector's face box, which ends at brows and chin, in shares of the
# box: sideways, up, down.
BEYOND_FACE = (0.15, 0.40, 0.12)

FloatArray = NDArray[np.float32]


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the blocks that cover a frame; border blocks may extend beyond it."""
    return -(-height // BLOCK_PX), -(-width // BLOCK_PX)


def heads_around(
    faces: FloatArray, beyond: tuple[float, float, float] = BEYOND_FACE
) -> FloatArray:
    """Head boxes around face boxes, both float32 [N, 4] (x0, y0, x1, y1), pixels.

    beyond: the margins, as BEYOND_FACE.
    """
    width, height = faces[:, 2] - faces[:, 0], faces[:, 3] - faces[:, 1]
    side, above, below = beyond
    return np.stack(
        [
            faces[:, 0] - side * width,
            faces[:, 1] - above * height,
            faces[:, 2] + side * width,
            faces[:, 3] + below * height,
        ],
        axis=1,
    ).astype(np.float32)


def covered_share(box: FloatArray, rows: int, columns: int) -> FloatArray:
    """Share of each block's area covered by a box (x0, y0, x1, y1; pixels): [rows, columns]."""
    return _covered_shares(np.asarray(box, np.float32)[None], rows, columns)[0]


def touched_blocks(
    boxes: FloatArray, rows: int, columns: int, least_share: float = 0.0
) -> NDArray[np.bool_]:
    """Blocks of which more than ``least_share`` lies in any of the boxes [N, 4], in pixels."""
    touched = np.zeros((rows, columns), np.bool_)
    for start in range(0, len(boxes), _BOXES_AT_ONCE):
        shares = _covered_shares(boxes[start : start + _BOXES_AT_ONCE], rows, columns)
        touched |= (shares > least_share).any(axis=0)
    return touched


_BOXES_AT_ONCE = 64  # limits memory for crowds in large frames


def _covered_shares(boxes: FloatArray, rows: int, columns: int) -> FloatArray:
    """`covered_share` for boxes [N, 4]: [N, rows, columns]."""
    x0, y0, x1, y1 = (boxes[:, :4] / BLOCK_PX).T
    across = _overlaps(x0, x1, columns)
    down = _overlaps(y0, y1, rows)
    return np.asarray(down[:, :, None] * across[:, None, :], np.float32)


def _overlaps(low: FloatArray, high: FloatArray, count: int) -> FloatArray:
    """Share of each of ``count`` blocks in a row that lies between ``low`` and ``high`` [N]."""
    starts = np.arange(count, dtype=np.float32)
    ends = np.minimum(starts + 1, high[:, None])
    return np.maximum(ends - np.maximum(starts, low[:, None]), 0)
