# SPDX-License-Identifier: Apache-2.0
"""What a decoder holds of a stream, so that blocks that were not sent again can be shown.

    payload, in the order of its number ─► update ─► the whole picture, and which of it is known

A predicted block brings what changed since it was last sent. A gap in the numbers makes everything
unknown that the payload after it does not bring whole; what is unknown comes back as it is sent
whole, within a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.bitstream import MAX_NUMBER, Payload
from roi_codec_ros.codec.entropy import HIDDEN, SKIPPED


@dataclass(frozen=True, eq=False)
class Picture:
    """A whole picture's symbols; nobody may write to its arrays.

    Attributes:
        symbols: int16 [C, h, w]; 0 where nothing is coded.
        level_of: uint8 [h, w], the level that each block was coded at.
        hidden, known: bool [h, w]; of a block that is not known the rest is 0.
    """

    symbols: NDArray[np.int16]
    level_of: NDArray[np.uint8]
    hidden: NDArray[np.bool_]
    known: NDArray[np.bool_]


class StreamState:
    """Of one stream at a time: another one, another model or size begins anew."""

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
        predicted: NDArray[np.bool_],
    ) -> Picture:
        """What is to be seen after this payload.

        Args:
            payload: of a stream, or one that stands alone, which changes nothing here.
            symbols, blocks: as it was decoded, int16 [C, h, w] and uint8 [h, w].
            level_of: uint8 [h, w], the level of its coded blocks.
            predicted: bool [h, w], whose symbols are to be added to those of before. One that
                was sent otherwise or at another level before is not known.
        """
        sent = blocks != SKIPPED
        hidden = blocks == HIDDEN
        if payload.stream == 0:
            return Picture(symbols, level_of, hidden, sent)
        of = (payload.stream, payload.model_id, symbols.shape)
        before = self._picture
        follows = of == self._of and payload.number == (self._number + 1) & MAX_NUMBER
        if not follows:
            before = None
        if predicted.any():
            symbols, there = _added(symbols, level_of, predicted, before)
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

    def forget(self) -> None:
        """Hold nothing, as before the first payload."""
        self._picture = None


def _added(
    symbols: NDArray[np.int16],
    level_of: NDArray[np.uint8],
    predicted: NDArray[np.bool_],
    before: Picture | None,
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Symbols of a payload's blocks, and which of its blocks are known: one that is predicted is
    if its reference is."""
    good = np.zeros_like(predicted)
    result = symbols.copy()
    if before is not None:
        good = predicted & before.known & ~before.hidden & (before.level_of == level_of)
        result[:, good] += before.symbols[:, good]  # wraps around, as the format says
    result[:, predicted & ~good] = 0
    return result, good | ~predicted
