# SPDX-License-Identifier: Apache-2.0
"""What is hidden in the frames of a recording, which has a past and a future.

A head that is found in one frame hides what was missed of it in the frames before and after.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.regions import BLOCK_PX, Regions, Thresholds, hidden_blocks, still_there
from roi_codec_ros.regions.blocks import grid_size

T = TypeVar("T")
BoolArray = NDArray[np.bool_]

HIDE_MEMORY_S = 0.5


class Look(Enum):
    """What is looked for in a frame; the rest is that of the frames before and after."""

    ALL = "faces, heads from behind and persons"
    FACES = "faces"
    NOTHING = "nothing"


class Finder(Protocol):
    """See `regions.RegionFinder`."""

    thresholds: Thresholds

    def find(self, image: ImageArray) -> Regions:
        """All regions of a frame, uint8 [H, W, 3] RGB. Raises RoiCodecError."""
        ...

    def find_faces(self, image: ImageArray) -> Regions:
        """Its faces at least. Raises RoiCodecError."""
        ...


@dataclass(frozen=True, eq=False)
class Judged:
    """Search result of a frame; all [⌈H / 16⌉, ⌈W / 16⌉].

    Attributes:
        found: bool, blocks of heads.
        there: bool, blocks where a person or a head is likely.
        score: float32, how sure the blocks of heads are.
        look: what was looked for in this frame.
    """

    found: BoolArray
    there: BoolArray
    score: NDArray[np.float32]
    look: Look = Look.ALL


@dataclass(frozen=True, eq=False)
class HiddenFrame(Generic[T]):
    """A frame and what is hidden in it: its own heads, and those of frames before and after."""

    frame: T
    judged: Judged
    hidden: BoolArray


@dataclass(frozen=True)
class Head:
    """A run of hidden blocks. box: x0, y0, x1, y1 in pixels. score: 0 where it was only held."""

    box: tuple[int, int, int, int]
    score: float


def judge(image: ImageArray, finder: Finder, look: Look = Look.ALL) -> Judged:
    """Where the heads of a frame are, uint8 [H, W, 3] RGB.

    Raises RoiCodecError where the frame cannot be judged.
    """
    if look is Look.NOTHING:
        size = grid_size(*image.shape[:2])
        nothing = np.zeros(size, np.bool_)
        return Judged(nothing, np.ones(size, np.bool_), np.zeros(size, np.float32), look)
    regions = finder.find(image) if look is Look.ALL else finder.find_faces(image)
    thresholds = finder.thresholds
    hidden = hidden_blocks(regions, thresholds)
    score = np.where(hidden, regions.heads, 0).astype(np.float32)
    for box, sure in zip(regions.faces.xyxy, regions.faces.score, strict=True):
        x0, y0, x1, y1 = (int(max(value, 0)) // BLOCK_PX for value in box)
        part = score[y0 : y1 + 1, x0 : x1 + 1]
        np.maximum(part, sure, out=part)
    return Judged(hidden, still_there(regions, thresholds), score, look)


def heads_of(hidden: BoolArray, judged: Judged) -> list[Head]:
    """The heads that are hidden in a frame."""
    count, labels, figures, _ = cv2.connectedComponentsWithStats(
        hidden.astype(np.uint8), connectivity=8
    )
    best = np.zeros(count, np.float32)
    np.maximum.at(best, np.asarray(labels, np.intp), np.where(judged.found, judged.score, 0))
    heads = []
    for (x, y, width, height, _), score in zip(figures[1:].tolist(), best[1:], strict=True):
        corners = (x, y, x + width, y + height)
        x0, y0, x1, y1 = (BLOCK_PX * corner for corner in corners)
        heads.append(Head((x0, y0, x1, y1), float(score)))
    return heads


class BothWays(Generic[T]):
    """Frames of one camera in the order of their times; each comes out when its future is known.

    Holds the frames of ``memory_s``, and never pixels of its own: what a frame is, its caller
    knows.
    """

    def __init__(self, memory_s: float = HIDE_MEMORY_S) -> None:
        """memory_s: how long a head hides what is missed before and after it, seconds."""
        self._memory_s = memory_s
        self._past: deque[tuple[float, BoolArray]] = deque()
        self._waiting: deque[tuple[T, float, Judged]] = deque()
        self._last: dict[Look, Judged] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, frame: T, time_s: float, judged: Judged) -> list[HiddenFrame[T]]:
        """Take the next frame; those whose future is known now.

        A clock that was set back, and a frame of another size, begin another film.
        """
        ready: list[HiddenFrame[T]] = []
        if self._waiting:
            _, last_s, last = self._waiting[-1]
            if time_s < last_s or last.found.shape != judged.found.shape:
                ready = self.flush()
        if self._past and (
            time_s < self._past[-1][0] or self._past[-1][1].shape != judged.found.shape
        ):
            self._past.clear()
            self._last.clear()
        self._waiting.append((frame, time_s, judged))
        return ready + self.advance(time_s)

    def advance(self, now_s: float) -> list[HiddenFrame[T]]:
        """The frames whose future is known when nothing before ``now_s`` is still to come."""
        ready = []
        while self._waiting and (
            self._memory_s <= 0 or now_s - self._waiting[0][1] > self._memory_s
        ):
            if self._waiting[0][2].look is not Look.ALL and self._next(Look.ALL) is None:
                break
            ready.append(self.release())
        return ready

    def release(self) -> HiddenFrame[T]:
        """The oldest frame, by as much of its future as is known."""
        frame, time_s, judged = self._waiting.popleft()
        while self._past and time_s - self._past[0][0] > self._memory_s:
            self._past.popleft()
        hidden, there = judged.found.copy(), judged.there
        if judged.look is not Look.ALL:
            around = self._around(judged)
            beside = _hidden_beside(judged, around)
            hidden, there = (
                hidden | beside,
                np.logical_or.reduce([there, *(j.there for j in around)]),
            )
        self._last[judged.look] = judged
        if self._memory_s > 0:
            others = [found for _, found in self._past]
            others += [
                later.found
                for _, later_s, later in self._waiting
                if later_s - time_s <= self._memory_s
            ]
            for found in others:
                hidden |= found & there
            self._past.append((time_s, judged.found))
        return HiddenFrame(frame, judged, hidden)

    def flush(self) -> list[HiddenFrame[T]]:
        """All that is left, as at the end; what comes next is another film."""
        ready = [self.release() for _ in range(len(self._waiting))]
        self._past.clear()
        self._last.clear()
        return ready

    def _around(self, judged: Judged) -> list[Judged]:
        """The frames before and after one in which more was looked for."""
        more = (Look.ALL,) if judged.look is Look.FACES else (Look.ALL, Look.FACES)
        found = [j for look in more for j in (self._last.get(look), self._next(look))]
        return [j for j in found if j is not None and j.found.shape == judged.found.shape]

    def _next(self, look: Look) -> Judged | None:
        return next((later for _, _, later in self._waiting if later.look is look), None)


def _hidden_beside(judged: Judged, around: Sequence[Judged]) -> BoolArray:
    """What frames before and after hide in one in which less was looked for."""
    if not any(j.look is Look.ALL for j in around):
        return np.ones_like(judged.found)
    mask = np.logical_or.reduce([j.found for j in around])
    # Where faces are known, only what is found from behind may have moved meanwhile.
    return _grown(mask) if judged.look is Look.NOTHING else _closed(mask)


def _grown(mask: BoolArray) -> BoolArray:
    """With the blocks around: a head moves between two frames."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)


def _closed(mask: BoolArray) -> BoolArray:
    """With gaps of one block filled: what moved far was between the two places."""
    whole = np.pad(mask.astype(np.uint8), 1, mode="edge")
    closed = cv2.morphologyEx(whole, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return closed[1:-1, 1:-1].astype(np.bool_)
