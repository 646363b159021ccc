# SPDX-License-Identifier: Apache-2.0
"""From what is read of a recording to what is written, in one order, with several workers.

Frames are judged and hidden by worker threads (networks, OpenCV and Pillow leave Python's lock
alone while they work); what else a recording holds passes between them unchanged. What is held is
bounded by its bytes: where a camera's look-ahead would need more, it is cut short, and that is
counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.recordings.hiding import (
    HIDE_MEMORY_S,
    BoolArray,
    BothWays,
    Finder,
    HiddenFrame,
    Judged,
    Look,
    judge,
)

MOST_HELD_BYTES = 256 << 20
FinderFactory = Callable[[], Finder]


class Frame(Protocol):
    """A frame of a recording, as its bytes or samples."""

    @property
    def size_bytes(self) -> int:
        """Memory that it holds."""

    def image(self) -> ImageArray:
        """Its pixels, uint8 [H, W, 3] RGB, 16 of which make a block. Raises RoiCodecError."""

    def hide(self, hidden: BoolArray) -> Any:
        """What is written instead of it; nothing of the hidden blocks is in there.

        hidden: bool [⌈H / 16⌉, ⌈W / 16⌉]. Raises RoiCodecError.
        """

    def shown(self, output: Any) -> ImageArray:
        """The pixels of what is written, uint8 [H, W, 3] RGB: what others will see."""


Inspect = Callable[["Passage"], Any]
Progress = Callable[[float, float, str], None]  # how much is done, of how much, of what


@dataclass(eq=False)
class Passage:
    """Something on its way through.

    Attributes:
        tag: whatever the caller knows it by.
        output: what to write; None for a frame that must not be written, for `reason`.
        judged, hidden: of a frame.
        inspection: what an inspector made of what is written.
    """

    tag: Any
    output: Any = None
    judged: Judged | None = None
    hidden: BoolArray | None = None
    reason: str = ""
    inspection: Any = None
    size_bytes: int = 0
    frame: Frame | None = None
    camera: Hashable = None
    time_s: float = 0.0
    work: Future[Any] | None = None
    done: bool = False


@dataclass(eq=False)
class _Stream:
    """The frames of one camera."""

    both_ways: BothWays[Passage]
    unjudged: deque[Passage] = field(default_factory=deque)
    count: int = 0
    in_full_s: float | None = None

    def look(self, time_s: float, every: int, heads_every_s: float) -> Look:
        """What to look for in the next frame."""
        self.count += 1
        if (self.count - 1) % every:
            return Look.NOTHING
        if self.in_full_s is not None and 0 <= time_s - self.in_full_s < heads_every_s:
            return Look.FACES
        self.in_full_s = time_s
        return Look.ALL


@dataclass(frozen=True)
class Settings:
    """How a recording is worked through.

    Attributes:
        finder: makes a worker its own; finders are not shared between threads.
        jobs: workers.
        memory_s: how long a head hides what is missed before and after it, seconds.
        judge_every: every so manyth frame of a camera is judged; the heads of those between are
            those of the frames before and after. Takes a memory.
        heads_every_s: in frames that are closer to the last one that was judged in full, only
            faces are looked for; their heads from behind are those of the frames before and
            after, seconds. Takes a memory; 0: all are judged in full.
        inspect: looks at each frame's output, in a worker.
        progress: is told again and again how much is done, of how much (0: unknown), of what.
    """

    finder: FinderFactory
    jobs: int = 1
    memory_s: float = HIDE_MEMORY_S
    judge_every: int = 1
    heads_every_s: float = 0.0
    inspect: Inspect | None = None
    progress: Progress = lambda done, total, unit: None


class Pipeline:
    """Hides frames of one or several cameras; a context manager."""

    def __init__(self, settings: Settings, sink: Callable[[Passage], None]) -> None:
        """sink: takes every passage, in the order of `put`."""
        self._jobs = settings.jobs
        self._finder = settings.finder
        self._own = threading.local()
        self._sink = sink
        self._inspect = settings.inspect
        self._memory_s = settings.memory_s
        remembers = settings.memory_s > 0
        self._every = settings.judge_every if remembers else 1
        self._heads_every_s = settings.heads_every_s if remembers else 0.0
        self._pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="hiding")
        self._cameras: dict[Hashable, _Stream] = {}
        self._order: deque[Passage] = deque()
        self._held_bytes = 0
        self.cut_short = 0

    def put(self, tag: Any, output: Any, time_s: float, size_bytes: int, reason: str = "") -> None:
        """Something that is written as it is. time_s: nothing earlier comes after it.

        reason: why nothing is written of it.
        """
        passage = Passage(tag, output, reason=reason, size_bytes=size_bytes, time_s=time_s)
        passage.done = True
        self._take(passage)

    def put_frame(self, tag: Any, frame: Frame, time_s: float, camera: Hashable = None) -> None:
        """A frame of a camera, whose frames come in the order of their times."""
        passage = Passage(tag, frame=frame, camera=camera, time_s=time_s)
        passage.size_bytes = frame.size_bytes
        if camera not in self._cameras:
            self._cameras[camera] = _Stream(BothWays(self._memory_s))
        of = self._cameras[camera]
        look = of.look(time_s, self._every, self._heads_every_s)
        passage.work = self._pool.submit(self._judge, frame, look)
        of.unjudged.append(passage)
        self._take(passage)

    def finish(self) -> None:
        """Let out everything that is still held."""
        for camera in self._cameras.values():
            while camera.unjudged:
                self._judged(camera, wait=True)
            for ready in camera.both_ways.flush():
                self._hide(ready)
        while self._order:
            self._let_out_first()

    def _take(self, passage: Passage) -> None:
        self._order.append(passage)
        self._held_bytes += passage.size_bytes
        for camera in self._cameras.values():
            self._judged(camera, wait=False)
            if not camera.unjudged:
                for ready in camera.both_ways.advance(passage.time_s):
                    self._hide(ready)
        while sum(len(camera.unjudged) for camera in self._cameras.values()) > 3 * self._jobs:
            longest = max(self._cameras.values(), key=lambda camera: len(camera.unjudged))
            self._judged(longest, wait=True)
        while self._order and self._is_ready(self._order[0]):
            self._let_out_first()
        while self._held_bytes > MOST_HELD_BYTES and self._order:
            self._let_out_first()

    @staticmethod
    def _is_ready(passage: Passage) -> bool:
        return passage.done and (passage.work is None or passage.work.done())

    def _let_out_first(self) -> None:
        """Write the oldest passage, whatever has to be waited for or cut short for that."""
        first = self._order[0]
        while not first.done:
            camera = self._cameras[first.camera]
            if first in camera.unjudged:
                self._judged(camera, wait=True)
            else:
                self.cut_short += 1
                self._hide(camera.both_ways.release())
        if first.work is not None:
            try:
                first.output = first.work.result()
            except RoiCodecError as error:
                first.output, first.reason = None, str(error)
        self._order.popleft()
        self._held_bytes -= first.size_bytes
        self._sink(first)

    def _judged(self, camera: _Stream, *, wait: bool) -> None:
        """Take in what workers have judged; at least one frame, with ``wait``."""
        while camera.unjudged:
            passage = camera.unjudged[0]
            assert passage.work is not None
            if not wait and not passage.work.done():
                return
            wait = False
            camera.unjudged.popleft()
            try:
                passage.judged = passage.work.result()
            except RoiCodecError as error:
                passage.reason, passage.done, passage.work = str(error), True, None
                continue
            assert passage.judged is not None
            for ready in camera.both_ways.add(passage, passage.time_s, passage.judged):
                self._hide(ready)

    def _hide(self, ready: HiddenFrame[Passage]) -> None:
        passage = ready.frame
        assert passage.frame is not None
        passage.hidden, passage.done = ready.hidden, True
        passage.work = self._pool.submit(self._written, passage)

    def _written(self, passage: Passage) -> Any:
        assert passage.frame is not None and passage.hidden is not None
        passage.output = passage.frame.hide(passage.hidden)
        if self._inspect is not None:
            passage.inspection = self._inspect(passage)
        return passage.output

    def _judge(self, frame: Frame, look: Look) -> Judged:
        if not hasattr(self._own, "finder"):
            self._own.finder = self._finder()
        return judge(frame.image(), self._own.finder, look)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
