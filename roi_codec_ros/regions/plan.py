# SPDX-License-Identifier: Apache-2.0
"""From the regions of a frame to the treatment of each block."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.blocks import heads_around, touched_blocks
from roi_codec_ros.regions.finder import Regions, Thresholds

BoolArray = NDArray[np.bool_]

# The top sixth of a person is "where a head should be".
TOP_SHARE = 6
# Minimum shares of a block covered by the head of a found face, to hide it, and by the head of a
# doubtful face, to treat it as doubtful.
HIDDEN_SHARE, DOUBTFUL_SHARE = 0.35, 0.2


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """The treatment of each block of a frame; all [rows, columns].

    Attributes:
        hidden: bool, part of a head: not coded, or painted over.
        doubtful: bool, perhaps part of a head, not hidden: never coded as finely as a person.
        persons: float32, 0 to 1, probability of a person.
    """

    hidden: BoolArray
    doubtful: BoolArray
    persons: NDArray[np.float32]


def hidden_blocks(regions: Regions, thresholds: Thresholds) -> BoolArray:
    """The blocks of the heads that were found in a frame: bool [rows, columns]."""
    rows, columns = regions.heads.shape
    sure = regions.faces.score >= thresholds.face
    heads = heads_around(regions.faces.xyxy[sure])
    return np.asarray(
        (regions.heads >= thresholds.head) | touched_blocks(heads, rows, columns, HIDDEN_SHARE),
        np.bool_,
    )


def plan_blocks(
    regions: Regions,
    thresholds: Thresholds,
    hidden: BoolArray | None = None,
    doubtful: BoolArray | None = None,
) -> BlockPlan:
    """Plan the treatment of a frame's blocks.

    Args:
        hidden: bool [rows, columns], the blocks to hide; None: `hidden_blocks`.
        doubtful: bool [rows, columns], blocks that may be part of a head besides those that the
            regions tell of.
    """
    if hidden is None:
        hidden = hidden_blocks(regions, thresholds)
    found = _doubtful(regions, thresholds, hidden)
    if doubtful is not None:
        found = found | (doubtful & ~hidden)
    return BlockPlan(hidden, found, regions.persons)


def _doubtful(regions: Regions, thresholds: Thresholds, hidden: BoolArray) -> BoolArray:
    """Blocks that are possibly part of a head.

    The edges of a found head (hair, neck and shoulders) are excluded: a person detector relies on
    them, and they do not identify anyone. So is the top of a person whose head was found.
    """
    rows, columns = hidden.shape
    unsure = heads_around(regions.faces.xyxy[regions.faces.score < thresholds.face])
    found = cv2.dilate(hidden.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    doubtful = (
        (regions.heads >= thresholds.doubtful_head)
        | touched_blocks(unsure, rows, columns, DOUBTFUL_SHARE)
        | (tops(regions.persons >= thresholds.person) & ~found)
    )
    return np.asarray(doubtful & ~hidden, np.bool_)


def tops(persons: BoolArray) -> BoolArray:
    """The uppermost sixth, at least one block, of every vertical run of person blocks.

    A head should be there.
    """
    rows = persons.shape[0]
    from_top = _run_position(persons)
    from_bottom = _run_position(persons[::-1])[::-1]
    length = np.where(persons, from_top + from_bottom - 1, 0)
    return np.asarray(
        persons & (from_top <= np.maximum(1, -(-length // TOP_SHARE))) & (rows > 0), np.bool_
    )


def _run_position(mask: BoolArray) -> NDArray[np.int64]:
    """Position of each block in its vertical run, counted from 1; 0 outside runs."""
    row = np.arange(mask.shape[0])[:, None]
    last_outside = np.maximum.accumulate(np.where(mask, -1, row), axis=0)
    return np.where(mask, row - last_outside, 0)
