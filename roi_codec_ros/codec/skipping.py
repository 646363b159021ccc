# SPDX-License-Identifier: Apache-2.0
"""What of a standing camera's frame need be sent: the encoder's side of a stream.

What a decoder holds of each block is known here: the symbols that were last sent. A block is
skipped while its coefficients are as those said, within what a new quantisation would put right;
of one that is sent the difference to them is, where that takes fewer bits. Only symbols that were
sent are remembered, and none of a hidden block ever is.
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
from roi_codec_ros.codec.prediction import may_be_predicted

REFRESH_S = 1.0  # every block is sent whole at least as often
PERSON_S = 0.5  # a block that a person was in is sent for so long
# A block has changed when sending it anew would take more than this off its squared error, in
# squares of the step. A coefficient at the edge between two symbols is worth 0.2; a whole one, 1.
CHANGED = 0.6
COARSE_CHANGED = 4.0  # of blocks at the frame's coarsest level, which carry no detail anyway
# By the size of a symbol; tables of their models tell exactly, and nearly the same.
_BITS = (2.0 * np.log2(1.0 + np.arange(64)) + 1.5 * (np.arange(64) > 0)).astype(np.float32)


@dataclass(frozen=True)
class Place:
    """Where a frame stands: the number of its stream, 0 for none, and its own in there."""

    stream: int = 0
    number: int = 0


ALONE = Place()


@dataclass(frozen=True, eq=False)
class FrameSymbols:
    """What of a frame is sent.

    symbols: int16 [C, h, w]; of a predicted block what is added to what was sent before. blocks:
    uint8 [h, w], the map. predicted: bool [h, w]; None: no block is.
    """

    symbols: NDArray[np.int16]
    blocks: NDArray[np.uint8]
    place: Place = ALONE
    predicted: NDArray[np.bool_] | None = None


class _Sent:
    """What decoders of a stream hold: [h, w, C] and [h, w], of blocks of which it is known.

    symbols, level: as they were sent. whole_s: when a block was last sent by itself, without what
    was before. person_s: when a person was last in it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.place = Place(secrets.randbelow(MAX_NUMBER) + 1, 0)
        self.symbols = np.zeros(shape, np.int16)
        self.level = np.zeros(shape[:2], np.uint8)
        self.known = np.zeros(shape[:2], np.bool_)
        self.whole_s = np.full(shape[:2], -np.inf)
        self.person_s = np.full(shape[:2], -np.inf)


class BlockSkipper:
    """Follows one camera's frames; stamps that go back or pause, and a new size, begin anew.

    predict: blocks that are sent may be predicted.
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
        """What has to be sent, and then counts as sent: what follows is compared with it.

        Args:
            blocks: uint8 [h, w], HIDDEN or FIRST_CLASS + class.
            levels: the level of each class.
            values: float32 [C, h, w], as `BlockTransform.values` gives them.
            persons: [h, w], where a person is.
            stamp_s: when the frame was taken.
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
        predicted = np.zeros(send.shape, np.bool_)
        differences = np.zeros((0, now.shape[2]), np.int16)
        if self._predict:
            predicted |= send & sent.known & ~hidden & (level_of == sent.level)
            predicted &= may_be_predicted(blocks, levels)
            differences = rounded(now[predicted] - sent.symbols[predicted])
            fewer = _bits(differences) < _bits(rounded(now[predicted]))
            predicted[predicted] = fewer
            differences = differences[fewer]
        due = self._due(predicted | ~send, stamp_s, pause_s)
        send |= due
        differences = differences[~due[predicted]]
        predicted &= ~due
        coded = send & ~hidden
        whole = coded & ~predicted
        symbols = np.zeros(now.shape, np.int16)
        symbols[whole] = sent.symbols[whole] = rounded(now[whole])
        symbols[predicted] = differences
        sent.symbols[predicted] += differences
        sent.level[coded] = level_of[coded]
        sent.known[send] = coded[send]
        sent.whole_s[whole | hidden] = stamp_s
        place = sent.place
        sent.place = Place(place.stream, (place.number + 1) & MAX_NUMBER)
        shown = np.where(send, blocks, np.uint8(SKIPPED))
        return FrameSymbols(symbols.transpose(2, 0, 1), shown, place, predicted)

    def _changed(
        self,
        values: NDArray[np.float32],
        level_of: NDArray[np.uint8],
        among: NDArray[np.bool_],
        limit: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        """Which of these blocks are no longer as they were sent, by more than their limit.

        values: float32 [h, w, C].

        In the coarser of the two levels, that of now and that of then: a block that was sent a
        little more coarsely is not for that reason sent at once, but when its turn comes.
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
        """Which of these blocks are sent whole: so many in a frame that all have their turn.

        Those that were sent longest ago, row by row, and all that would be too late next time.
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
    """About how many bits blocks take: of symbols [N, C], float32 [N]."""
    sizes = np.minimum(np.abs(symbols.astype(np.int32)), len(_BITS) - 1)
    return np.asarray(_BITS[sizes].sum(axis=1))
