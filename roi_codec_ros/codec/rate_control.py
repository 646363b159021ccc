# SPDX-License-Identifier: Apache-2.0
"""Holds a stream at a bit rate by the quality that its frames are coded with."""

from __future__ import annotations

import math

# What a level of quality does to the bits of a frame: four levels halve the steps. Only a start:
# what is wrong with it shows as debt, and debt is paid back.
OCTAVES_PER_LEVEL = 0.2
PAY_BACK_S = 1.0  # what was sent too much or too little is made up for in about so long
MEMORY_S = 0.4  # of how many bits frames take
SURPRISE = 1.0  # octaves; frames so much dearer or cheaper than before are of another scene
MOST_DEBT_S = 1.5  # of the target's bits, either way: a still scene saves up no burst
LONGEST_FRAME_S = 1.0  # a pause is no credit
STAY = 0.6  # levels; the quality does not follow every breath of the scene
RANGE = (0.4, 1.6)  # of the target's bits for a frame, whatever the debt


class RateControl:
    """The quality of each next frame.

        bits of the frames so far ─► what frames take at quality 0 ─┐
        bits too much or too few so far ─► bits for the next frame ─┴─► its quality

    Qualities are whole levels, as the steps are.
    """

    def __init__(self, target_kbit_s: float, quality: float, low: float, high: float) -> None:
        """target_kbit_s: to hold. quality: of the first frame. low, high: what it may be."""
        self._target_bit_s = 1e3 * target_kbit_s
        self._quality = quality
        self._low, self._high = low, high
        self._stamp_s: float | None = None
        self._frame_s = 0.0
        self._debt_bits = 0.0
        self._octaves: float | None = None  # log2 of the bits of a frame at quality 0

    def quality(self, stamp_s: float) -> float:
        """The quality of the frame taken at ``stamp_s``, before it is coded."""
        pause_s = 0.0 if self._stamp_s is None else stamp_s - self._stamp_s
        self._frame_s = min(max(pause_s, 0.0), LONGEST_FRAME_S)
        self._stamp_s = stamp_s
        if self._octaves is not None and self._frame_s > 0:
            budget = self._target_bit_s * self._frame_s
            share = 1.0 - self._debt_bits / (self._target_bit_s * PAY_BACK_S)
            bits = budget * min(max(share, RANGE[0]), RANGE[1])
            wanted = (math.log2(bits) - self._octaves) / OCTAVES_PER_LEVEL
            if abs(wanted - self._quality) > STAY:
                self._quality = min(max(float(round(wanted)), self._low), self._high)
        return self._quality

    def coded(self, bits: float) -> None:
        """That frame took so many bits."""
        octaves = math.log2(max(bits, 1.0)) - OCTAVES_PER_LEVEL * self._quality
        if self._octaves is None or abs(octaves - self._octaves) > SURPRISE:
            self._octaves = octaves
        else:
            share = -math.expm1(-self._frame_s / MEMORY_S)
            self._octaves += share * (octaves - self._octaves)
        most = self._target_bit_s * MOST_DEBT_S
        debt = self._debt_bits + bits - self._target_bit_s * self._frame_s
        self._debt_bits = min(max(debt, -most), most)
