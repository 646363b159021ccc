# SPDX-License-Identifier: Apache-2.0
"""Rate control: adjusts the quality of a stream's frames to hold a bit rate."""

from __future__ import annotations

import math

# Assumed effect of one quality level on the bits of a frame (four levels halve the steps). Errors
# of this estimate show up as debt, which is corrected.
OCTAVES_PER_LEVEL = 0.2
PAY_BACK_S = 1.0  # time constant for correcting excess or missing bits
MEMORY_S = 0.4  # time constant of the average of bits per frame
SURPRISE = 1.0  # octaves; a larger change in bits per frame counts as a scene change
MOST_DEBT_S = 1.5  # of the target's bits, either way: a still scene accumulates no burst
LONGEST_FRAME_S = 1.0  # longer pauses give no credit
STAY = 0.6  # levels of hysteresis: small variations do not change the quality
RANGE = (0.4, 1.6)  # of the target's bits per frame, whatever the debt


class RateControl:
    """Chooses the quality of each next frame.

        bits of the frames so far ─► what frames take at quality 0 ─┐
        bits too much or too few so far ─► bits for the next frame ─┴─► its quality

    Qualities are whole levels, as the steps are.
    """

    def __init__(self, target_kbit_s: float, quality: float, low: float, high: float) -> None:
        """target_kbit_s: target. quality: of the first frame. low, high: its limits."""
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
        """Record the bits that the frame took."""
        octaves = math.log2(max(bits, 1.0)) - OCTAVES_PER_LEVEL * self._quality
        if self._octaves is None or abs(octaves - self._octaves) > SURPRISE:
            self._octaves = octaves
        else:
            share = -math.expm1(-self._frame_s / MEMORY_S)
            self._octaves += share * (octaves - self._octaves)
        most = self._target_bit_s * MOST_DEBT_S
        debt = self._debt_bits + bits - self._target_bit_s * self._frame_s
        self._debt_bits = min(max(debt, -most), most)
