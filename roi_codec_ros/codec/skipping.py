# SPDX-License-Identifier: Apache-2.0
"""Skipping of unchanged blocks for static cameras: the encoder's side of a stream.

The encoder knows what a decoder holds of each block: the symbols that were sent last. A block is
skipped while its coefficients match them closely enough that sending it again would not help; a
changed block is sent as a difference to them where that takes fewer bits. Only symbols that were
sent are remembered, and none of hidden blocks.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.bitstream import MAX_NUMBER
from roi_codec_ros.codec.block_transform import BlockTransform
from roi_codec_ros.codec.entropy import HIDDEN, SKIPPED
from roi_codec_ros.codec.ladder import quantised, rounded
from roi_codec_ros.codec.temporal import may_be_temporal

REFRESH_S = 1.0  # maximum interval between full refreshes of a block
PERSON_S = 0.5  # a block with a person is sent for this long afterwards
# A block has changed if sending it again would reduce its squared error by more than this, in
# squares of the step. A coefficient on the edge between two symbols counts 0.2; a full step, 1.
CHANGED = 0.6
COARSE_CHANGED = 6.0  # the same for blocks at the frame's coarsest level, which have little detail
# By magnitude of the symbol: a close estimate of what the models' tables cost.
_BITS = (2.0 * np.log2(1.0 + np.arange(64)) + 1.5 * (np.arange(64) > 0)).astype(np.float32)


@dataclass(frozen=True)
class Place:
    """Position of a frame: id of its stream, 0 for none, and its number in the stream."""

    stream: int = 0
    number: int = 0


ALONE = Place()


@dataclass(frozen=True, eq=False)
class FrameSymbols:
    """The symbols of a frame that are sent.

    symbols: int16 [C, h, w]; for temporal blocks the difference to what was sent before. blocks:
        uint8 [h, w], the block map. temporal: bool [h, w]; None: no block.
    """

    symbols: NDArray[np.int16]
    blocks: NDArray[np.uint8]
    place: Place = ALONE
    temporal: NDArray[np.bool_] | None = None


class _Sent:
    """What decoders of a stream hold, [h, w, C] and [h, w], for the known blocks.

    symbols, level: as sent. whole_s: when a block was last sent in full, not as a difference.
        person_s: when it last contained a person.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.place = Place(secrets.randbelow(MAX_NUMBER) + 1, 0)
        self.symbols = np.zeros(shape, np.int16)
        self.level = np.zeros(shape[:2], np.uint8)
        self.known = np.zeros(shape[:2], np.bool_)
        self.whole_s = np.full(shape[:2], -np.inf)
        self.person_s = np.full(shape[:2], -np.inf)


class BlockSkipper:
    """Tracks one camera's stream; a stamp that goes back, a pause or a new size starts a new one.

    predict: changed blocks may be sent as differences.
    """

    def __init__(self, transform: BlockTransform, *, predict: bool = False) -> None:
        self._transform = transform
        self._predict = predict
        self._stamp_s = -np.inf
        self._sent = _Sent((0, 0, 0))

    def send(
        self,
        blocks: NDArray[np.uint8],
        levels: tuple[int, ...],
        values: NDArray[np.float32],
        persons: NDArray[np.bool_],
        stamp_s: float,
    ) -> FrameSymbols:
        """Choose what to send; later frames are compared with it.

        Args:
            blocks: uint8 [h, w], HIDDEN or FIRST_CLASS + class.
            levels: the level of each class.
            values: float32 [C, h, w], as `BlockTransform.values` gives them.
            persons: [h, w], blocks with persons.
            stamp_s: capture time.
        """
        now = values.transpose(1, 2, 0)
        pause_s = stamp_s - self._stamp_s
        if not 0 < pause_s < REFRESH_S or self._sent.symbols.shape != now.shape:
            self._sent = _Sent(now.shape)
        sent, self._stamp_s = self._sent, stamp_s
        level_of = self._transform.level_of(blocks, levels)
        hidden = blocks == HIDDEN
        sent.person_s[persons | hidden] = stamp_s
        send = hidden | ~sent.known | (stamp_s - sent.person_s <= PERSON_S)
        limit = np.where(level_of == max(levels), COARSE_CHANGED, CHANGED)
        send |= self._changed(now, level_of, ~send, limit)
        temporal = np.zeros(send.shape, np.bool_)
        differences = np.zeros((0, now.shape[2]), np.int16)
        if self._predict:
            temporal |= send & sent.known & ~hidden & (level_of == sent.level)
            temporal &= may_be_temporal(blocks, levels)
            differences = rounded(now[temporal] - sent.symbols[temporal])
            fewer = _bits(differences) < _bits(rounded(now[temporal]))
            temporal[temporal] = fewer
            differences = differences[fewer]
        due = self._due(temporal | ~send, stamp_s, pause_s)
        send |= due
        differences = differences[~due[temporal]]
        temporal &= ~due
        coded = send & ~hidden
        whole = coded & ~temporal
        symbols = np.zeros(now.shape, np.int16)
        symbols[whole] = sent.symbols[whole] = rounded(now[whole])
        symbols[temporal] = differences
        sent.symbols[temporal] += differences
        sent.level[coded] = level_of[coded]
        sent.known[send] = coded[send]
        sent.whole_s[whole | hidden] = stamp_s
        place = sent.place
        sent.place = Place(place.stream, (place.number + 1) & MAX_NUMBER)
        shown = np.where(send, blocks, np.uint8(SKIPPED))
        return FrameSymbols(symbols.transpose(2, 0, 1), shown, place, temporal)

    def _changed(
        self,
        values: NDArray[np.float32],
        level_of: NDArray[np.uint8],
        among: NDArray[np.bool_],
        limit: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        """Which of these blocks differ from what was sent by more than their limit.

        values: float32 [h, w, C].

        Compared in the coarser of the current and the sent level: a block that was sent slightly
        more coarsely is not sent again at once, but at its next refresh.
        """
        changed = np.zeros(among.shape, np.bool_)
        common = np.maximum(level_of, self._sent.level)
        for level in np.unique(common[among]):
            chosen = among & (common == level)
            used = int(self._transform.coded[level])
            steps = self._transform.steps[:, :used]
            now = values[chosen, :used] * (steps[level_of[chosen]] / steps[level])
            then = self._sent.symbols[chosen, :used] * (
                self._transform.steps[self._sent.level[chosen], :used] / steps[level]
            )
            gain = ((now - then) ** 2 - (now - quantised(now)) ** 2).sum(axis=1)
            changed[chosen] = gain > limit[chosen]
        return changed

    def _due(self, among: NDArray[np.bool_], stamp_s: float, pause_s: float) -> NDArray[np.bool_]:
        """Which of these blocks are refreshed: enough per frame that every block is due in time.

        Chosen are those sent longest ago, row by row, and all that would be late in the next
        frame.
        """
        due = np.zeros(among.shape, np.bool_)
        places = np.flatnonzero(among)
        if not len(places):
            return due
        frames = max(1.0, REFRESH_S / pause_s - 1.0)
        count = int(np.ceil(len(places) / frames))
        oldest_first = places[np.argsort(self._sent.whole_s.flat[places], kind="stable")]
        due.flat[oldest_first[:count]] = True
        return due | (among & (stamp_s + pause_s - self._sent.whole_s > REFRESH_S))


def _bits(symbols: NDArray[np.int16]) -> NDArray[np.float32]:
    """Estimated bits of blocks with symbols [N, C]: float32 [N]."""
    sizes = np.minimum(np.abs(symbols.astype(np.int32)), len(_BITS) - 1)
    return np.asarray(_BITS[sizes].sum(axis=1))
