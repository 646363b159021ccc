# SPDX-License-Identifier: Apache-2.0
"""What a decoder holds of a stream, so that blocks that were not sent again can be shown.

    payload, in the order of its number ─► update ─► the whole picture, and which of it is known

A gap in the numbers makes everything unknown that the payload after it does not bring itself; what
is unknown comes back as it is sent anew, within a second.
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
    ) -> Picture:
        """What is to be seen after this payload.

        Args:
            payload: of a stream, or one that stands alone, which changes nothing here.
            symbols, blocks: as it was decoded, int16 [C, h, w] and uint8 [h, w].
            level_of: uint8 [h, w], the level of its coded blocks.
        """
        sent = blocks != SKIPPED
        hidden = blocks == HIDDEN
        if payload.stream == 0:
            return Picture(symbols, level_of, hidden, sent)
        of = (payload.stream, payload.model_id, symbols.shape)
        picture, before = Picture(symbols, level_of, hidden, sent), self._picture
        follows = of == self._of and payload.number == (self._number + 1) & MAX_NUMBER
        if before is not None and follows:
            picture = Picture(
                np.where(sent, symbols, before.symbols),
                np.where(sent, level_of, before.level_of),
                np.where(sent, hidden, before.hidden),
                sent | before.known,
            )
        self._of, self._number, self._picture = of, payload.number, picture
        return picture

    def forget(self) -> None:
        """Hold nothing, as before the first payload."""
        self._picture = None
