# SPDX-License-Identifier: Apache-2.0
"""Masks of the last frames: a head that is missed for a moment stays hidden."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.finder import Regions, Thresholds

BoolArray = NDArray[np.bool_]


class MaskMemory:
    """Remembers which blocks were hidden, never pixels.

    A remembered block is hidden again only where something still speaks for a person or a head: a
    cut or a turning camera therefore smears no masks over what is empty now.
    """

    def __init__(self, memory_s: float) -> None:
        """memory_s: how long a mask is remembered, seconds; 0 for not at all."""
        self.memory_s = memory_s
        self._masks: deque[tuple[float, BoolArray]] = deque()

    def held(self, regions: Regions, thresholds: Thresholds, now_s: float) -> BoolArray:
        """Blocks to hide in this frame for what was found in those before: [rows, columns].

        now_s: the frame's time. A clock that was set back, and a frame of another size, empty the
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
        """Keep what was found in a frame (not what was held from others: that would never end)."""
        if self.memory_s > 0:
            self._masks.append((now_s, found.copy()))

    def forget(self) -> None:
        """Empty the memory, as at the start of another film."""
        self._masks.clear()


def still_there(regions: Regions, thresholds: Thresholds) -> BoolArray:
    """Blocks where something speaks for a person or a head, and those around: [rows, columns]."""
    there = (regions.persons >= thresholds.person) | (regions.heads >= thresholds.trace_of_head)
    return cv2.dilate(there.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
