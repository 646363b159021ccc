# SPDX-License-Identifier: Apache-2.0
"""Masks of recent frames, so that a head that is missed for a moment stays hidden."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.finder import Regions, Thresholds

BoolArray = NDArray[np.bool_]


class MaskMemory:
    """Remembers which blocks were hidden, never pixels.

    A remembered block is hidden again only where a person or a head is still likely, so that a
    scene cut or a moving camera leaves no masks on empty areas.
    """

    def __init__(self, memory_s: float) -> None:
        """memory_s: how long a mask is remembered, in seconds; 0: no memory."""
        self.memory_s = memory_s
        self._masks: deque[tuple[float, BoolArray]] = deque()

    def held(self, regions: Regions, thresholds: Thresholds, now_s: float) -> BoolArray:
        """Blocks to hide in this frame because of earlier ones: [rows, columns].

        now_s: the frame's capture time. A stamp that goes back or another frame size empties the
        memory.
        """
        shape = regions.heads.shape
        while self._masks and not (
            0.0 <= now_s - self._masks[0][0] <= self.memory_s and self._masks[0][1].shape == shape
        ):
            self._masks.popleft()
        if not self._masks:
            return np.zeros(shape, np.bool_)
        remembered = np.logical_or.reduce([mask for _, mask in self._masks])
        return np.asarray(remembered & still_there(regions, thresholds), np.bool_)

    def remember(self, found: BoolArray, now_s: float) -> None:
        """Remember what was found in a frame (not what was only held, which never expires)."""
        if self.memory_s > 0:
            self._masks.append((now_s, found.copy()))


def still_there(regions: Regions, thresholds: Thresholds) -> BoolArray:
    """Blocks where a person or a head is likely, and those around: [rows, columns]."""
    there = (regions.persons >= thresholds.person) | (regions.heads >= thresholds.trace_of_head)
    return cv2.dilate(there.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
