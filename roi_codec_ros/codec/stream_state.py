# SPDX-License-Identifier: Apache-2.0
"""What a decoder holds of a stream, so that skipped blocks can be shown.

    payload, in the order of its number ─► update ─► the whole picture, and which of it is known

A temporal block holds the difference to what was sent last. After a gap in the numbers every
block is unknown that the next payload does not send in full; unknown blocks become known again at
their next refresh, within a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.bitstream import MAX_NUMBER, Payload
from roi_codec_ros.codec.entropy import HIDDEN, SKIPPED


@dataclass(frozen=True, eq=False)
class Picture:
    """The symbols of a whole picture; its arrays are read-only.

    Attributes:
        symbols: int16 [C, h, w]; 0 in blocks that are not coded.
        level_of: uint8 [h, w], the level of each block.
        hidden, known: bool [h, w]; in unknown blocks the other arrays are 0.
    """

    symbols: NDArray[np.int16]
    level_of: NDArray[np.uint8]
    hidden: NDArray[np.bool_]
    known: NDArray[np.bool_]


class StreamState:
    """State of one stream; a frame of another stream, model or size resets it."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._number = 0
        self._picture: Picture | None = None

    def update(
        self,
        payload: Payload,
        symbols: NDArray[np.int16],
        blocks: NDArray[np.uint8],
        level_of: NDArray[np.uint8],
        temporal: NDArray[np.bool_],
    ) -> Picture:
        """Update the state and return the picture after this payload.

        Args:
            payload: of a stream, or standalone, which leaves the state unchanged.
            symbols, blocks: as decoded, int16 [C, h, w] and uint8 [h, w].
            level_of: uint8 [h, w], the level of the coded blocks.
            temporal: bool [h, w], blocks whose symbols are differences. A block becomes unknown
                if its reference is unknown or was sent at another level.
        """
        sent = blocks != SKIPPED
        hidden = blocks == HIDDEN
        if payload.stream == 0:
            return Picture(symbols, level_of, hidden, sent)
        size = (payload.coded_height, payload.coded_width)
        of = (payload.stream, payload.model_id, *size)
        before = self._picture
        follows = of == self._of and payload.number == (self._number + 1) & MAX_NUMBER
        if not follows:
            before = None
        if temporal.any():
            symbols, there = _added(symbols, level_of, temporal, before)
            there &= sent
        else:
            there = sent
        picture = Picture(symbols, level_of, hidden, there)
        if before is not None:
            picture = Picture(
                np.where(sent, symbols, before.symbols),
                np.where(sent, level_of, before.level_of),
                np.where(sent, hidden, before.hidden),
                np.where(sent, there, before.known),
            )
        self._of, self._number, self._picture = of, payload.number, picture
        return picture


def _added(
    symbols: NDArray[np.int16],
    level_of: NDArray[np.uint8],
    temporal: NDArray[np.bool_],
    before: Picture | None,
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Symbols of a payload's blocks, and which of them are known: a temporal block is known if
    its reference is.
    """
    good = np.zeros_like(temporal)
    result = symbols.copy()
    if before is not None:
        good = temporal & before.known & ~before.hidden & (before.level_of == level_of)
        result[:, good] += before.symbols[:, good]  # wraps around, as the format defines
    result[:, temporal & ~good] = 0
    return result, good | ~temporal
