# SPDX-License-Identifier: Apache-2.0
"""From what regions say of a frame to what becomes of each block."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.blocks import heads_around, touched_blocks
from roi_codec_ros.regions.finder import Regions, Thresholds

BoolArray = NDArray[np.bool_]

# Blocks above a person's feet of which the uppermost one is "where a head should be".
TOP_SHARE = 6
# A block is hidden of which a found face's head covers this share, and doubtful of which the head
# of a doubtful face covers the other.
HIDDEN_SHARE, DOUBTFUL_SHARE = 0.35, 0.2


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """What becomes of each block of a frame; all [rows, columns].

    Attributes:
        hidden: bool, part of a head: nothing of it is coded, or it is painted over.
        doubtful: bool, perhaps part of a head, not hidden: never coded as finely as a person.
        persons: float32, 0 to 1, how sure a person is there.
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
    regions: Regions, thresholds: Thresholds, hidden: BoolArray | None = None
) -> BlockPlan:
    """The plan of a frame.

    Args:
        hidden: bool [rows, columns], what is to be hidden; None: `hidden_blocks`.
    """
    if hidden is None:
        hidden = hidden_blocks(regions, thresholds)
    return BlockPlan(hidden, _doubtful(regions, thresholds, hidden), regions.persons)


def _doubtful(regions: Regions, thresholds: Thresholds, hidden: BoolArray) -> BoolArray:
    """Blocks that are perhaps part of a head.

    The edges of a found head, hair, neck and shoulders, are not: a person detector lives by them,
    and nobody is known by them. Nor is the top of a person where a head was found.
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
    """The uppermost sixth, one block at least, of every vertical run of blocks of persons.

    That is where a head should be.
    """
    rows = persons.shape[0]
    from_top = _run_position(persons)
    from_bottom = _run_position(persons[::-1])[::-1]
    length = np.where(persons, from_top + from_bottom - 1, 0)
    return np.asarray(
        persons & (from_top <= np.maximum(1, -(-length // TOP_SHARE))) & (rows > 0), np.bool_
    )


def _run_position(mask: BoolArray) -> NDArray[np.int64]:
    """1 for the first block of a run down a column, 2 for the next …; 0 outside runs."""
    row = np.arange(mask.shape[0])[:, None]
    last_outside = np.maximum.accumulate(np.where(mask, -1, row), axis=0)
    return np.where(mask, row - last_outside, 0)
