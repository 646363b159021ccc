# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a standing camera's frame need not be sent: the encoder's side of a stream.

What a decoder holds of each block is known here: the symbols that were last sent. A block is
skipped while its coefficients are as those said, within what a new quantisation would put right.
Only coefficients that were sent are remembered, and none of a hidden block ever is.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.bitstream import MAX_NUMBER
from roi_codec_ros.codec.block_transform import BlockTransform
from roi_codec_ros.codec.entropy import HIDDEN, SKIPPED
from roi_codec_ros.codec.ladder import quantised

REFRESH_S = 1.0  # every block is sent anew at least as often
PERSON_S = 0.5  # a block that a person was in is sent for so long
# A block has changed when sending it anew would take more than this off its squared error, in
# squares of the step. A coefficient at the edge between two symbols is worth 0.2; a whole one, 1.
CHANGED = 0.6


@dataclass(frozen=True)
class Place:
    """Where a frame stands: the number of its stream, 0 for none, and its own in there."""

    stream: int = 0
    number: int = 0


ALONE = Place()


class _Sent:
    """What decoders of a stream hold: [C, h, w] and [h, w], of blocks of which it is known.

    coefficients, level: as they were sent. at_s: when. person_s: when a person was last in it.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.place = Place(secrets.randbelow(MAX_NUMBER) + 1, 0)
        self.coefficients = np.zeros(shape, np.float32)
        self.level = np.zeros(shape[1:], np.uint8)
        self.known = np.zeros(shape[1:], np.bool_)
        self.at_s = np.full(shape[1:], -np.inf)
        self.person_s = np.full(shape[1:], -np.inf)


class BlockSkipper:
    """Follows one camera's frames; stamps that go back or pause, and a new size, begin anew."""

    def __init__(self, transform: BlockTransform) -> None:
        self._transform = transform
        self._stamp_s = -np.inf
        self._sent = _Sent((0, 0, 0))

    def skip(
        self,
        blocks: NDArray[np.uint8],
        levels: tuple[int, ...],
        values: NDArray[np.float32],
        persons: NDArray[np.bool_],
        stamp_s: float,
    ) -> tuple[NDArray[np.uint8], Place]:
        """The block map with what need not be sent as SKIPPED, and the frame's place.

        The frame has to be sent then: what follows is compared with it.

        Args:
            blocks: uint8 [h, w], HIDDEN or FIRST_CLASS + class.
            levels: the level of each class.
            values: float32 [C, h, w], as `BlockTransform.values` gives them.
            persons: [h, w], where a person is.
            stamp_s: when the frame was taken.
        """
        pause_s = stamp_s - self._stamp_s
        if not 0 < pause_s < REFRESH_S or self._sent.coefficients.shape != values.shape:
            self._sent = _Sent(values.shape)
        sent, self._stamp_s = self._sent, stamp_s
        level_of = self._transform.level_of(blocks, levels)
        hidden = blocks == HIDDEN
        sent.person_s[persons | hidden] = stamp_s
        send = hidden | ~sent.known | (stamp_s - sent.person_s <= PERSON_S)
        send |= self._changed(values, level_of, ~send)
        send |= self._due(~send, stamp_s, pause_s)
        coded = send & ~hidden
        symbols = self._transform.rounded(values[:, coded])
        sent.coefficients[:, coded] = symbols * self._transform.steps[level_of[coded]].T
        sent.level[coded] = level_of[coded]
        sent.known[send] = coded[send]
        sent.at_s[send] = stamp_s
        place = sent.place
        sent.place = Place(place.stream, (place.number + 1) & MAX_NUMBER)
        return np.where(send, blocks, np.uint8(SKIPPED)), place

    def _changed(
        self,
        values: NDArray[np.float32],
        level_of: NDArray[np.uint8],
        among: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Which of these blocks are no longer as they were sent.

        In the coarser of the two levels, that of now and that of then: a block that was sent a
        little more coarsely is not for that reason sent at once, but when its turn comes.
        """
        changed = np.zeros(among.shape, np.bool_)
        common = np.maximum(level_of, self._sent.level)
        for level in np.unique(common[among]):
            chosen = among & (common == level)
            used = int(self._transform.coded[level])
            steps = self._transform.steps[:, :used]
            now = values[:used, chosen].T * (steps[level_of[chosen]] / steps[level])
            then = self._sent.coefficients[:used, chosen].T / steps[level]
            gain = ((now - then) ** 2 - (now - quantised(now)) ** 2).sum(axis=1)
            changed[chosen] = gain > CHANGED
        return changed

    def _due(self, among: NDArray[np.bool_], stamp_s: float, pause_s: float) -> NDArray[np.bool_]:
        """Which of these blocks have their turn: so many in a frame that all have it in time.

        Those that were sent longest ago, row by row, and all that would be too late next time.
        """
        due = np.zeros(among.shape, np.bool_)
        places = np.flatnonzero(among)
        if not len(places):
            return due
        frames = max(1.0, REFRESH_S / pause_s - 1.0)
        count = int(np.ceil(len(places) / frames))
        oldest_first = places[np.argsort(self._sent.at_s.flat[places], kind="stable")]
        due.flat[oldest_first[:count]] = True
        return due | (among & (stamp_s + pause_s - self._sent.at_s > REFRESH_S))
