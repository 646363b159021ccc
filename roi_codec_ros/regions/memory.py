# SPDX-License-Identifier: Apache-2.0
"""Masks of recent frames, so that a head that is missed for a moment stays hidden."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.finder import Regions, Thresholds

BoolArray = NDArray[np.bool_]

# Heads that touch each other count as found again, in their blocks or a block further, if so many
# of their blocks are found: all but a share (of two heads side by side, half is one missed head),
# and but so many blocks (in a crowd, one head is a small share).
MOST_SHARE_LOST, MOST_BLOCKS_LOST = 0.4, 2.0
_BESIDE = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class MaskMemory:
    """Remembers which blocks were hidden, never pixels.

    Blocks of a head that is not found again stay hidden, and those beside them, where it may have
        moved to, are doubtful; but only where a person or a head is still likely, so that a scene
        cut or a moving camera leaves no masks on empty areas. A head that is found again, at most
        one block further, leaves none behind it.
    """

    def __init__(self, memory_s: float) -> None:
        """memory_s: how long a mask is remembered, in seconds; 0: no memory."""
        self.memory_s = memory_s
        self._now_s = -np.inf
        self._found_s = np.zeros((0, 0))  # when a hidden block was last found, -inf for others
        # Of how many found blocks a hidden one stands for: of a missed head all that were found
        # in the end, spread over those that are held.
        self._stands_for = np.zeros((0, 0))

    def masks(
        self, found: BoolArray, regions: Regions, thresholds: Thresholds, now_s: float
    ) -> tuple[BoolArray, BoolArray]:
        """Blocks to hide in this frame, found ones and some of earlier frames; and doubtful ones.

        found: bool [rows, columns], the blocks of heads in this frame. now_s: its capture time. A
            stamp that goes back or another frame size empties the memory.
        """
        if self.memory_s <= 0:
            return found, np.zeros_like(found)
        if found.shape != self._found_s.shape or now_s < self._now_s:
            self._found_s = np.full(found.shape, -np.inf)
            self._stands_for = np.zeros(found.shape)
        self._now_s = now_s
        remembered = now_s - self._found_s <= self.memory_s
        count, labels = cv2.connectedComponents((found | remembered).astype(np.uint8))

        def summed(values: NDArray[np.float64] | BoolArray) -> NDArray[np.float64]:
            """The sum over each connected area."""
            sums = np.bincount(labels.ravel(), values.ravel(), count)
            return np.asarray(sums, np.float64)

        expected = summed(np.where(remembered, self._stands_for, 0.0))
        lost = expected - summed(found)
        missed = lost > np.minimum(MOST_SHARE_LOST * expected, MOST_BLOCKS_LOST)
        there = still_there(regions, thresholds)
        held = remembered & ~found & missed[labels] & there
        hidden = np.asarray(found | held, np.bool_)
        each = np.where(missed, expected / np.maximum(summed(hidden), 1.0), 1.0)
        self._stands_for = np.where(hidden, each[labels], 0.0)
        self._found_s = np.where(found, now_s, np.where(held, self._found_s, -np.inf))
        beside = cv2.dilate(held.astype(np.uint8), _BESIDE).astype(np.bool_)
        return hidden, np.asarray(beside & there & ~hidden, np.bool_)


def still_there(regions: Regions, thresholds: Thresholds) -> BoolArray:
    """Blocks where a person or a head is likely, and those around: [rows, columns]."""
    there = (regions.persons >= thresholds.person) | (regions.heads >= thresholds.trace_of_head)
    return cv2.dilate(there.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
