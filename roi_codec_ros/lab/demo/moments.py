# SPDX-License-Identifier: Apache-2.0
"""The parts of each camera frame, collected by time stamp from several topics."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np

from roi_codec_ros.lab.demo.panels import PersonMark

KEPT_SECONDS = 120.0
JPEG_QUALITY = 95
_WAITING = 16  # frames whose persons have not come yet


@dataclass(frozen=True)
class FrameFacts:
    """What is known of a decoded frame besides its pixels; sizes are (height, width)."""

    original_size: tuple[int, int]
    coded_size: tuple[int, int]
    source_position: int
    payload_bytes: int

    @property
    def bits_per_pixel(self) -> float:
        """Payload bits per coded pixel."""
        return 8 * self.payload_bytes / max(self.coded_size[0] * self.coded_size[1], 1)


@dataclass(frozen=True)
class Moment:
    """A complete frame."""

    stamp_ns: int
    facts: FrameFacts
    persons: tuple[PersonMark, ...]
    jpeg: bytes

    def image(self) -> np.ndarray:
        """The anonymized picture, uint8 [H, W, 3] RGB."""
        decoded = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


@dataclass
class _Parts:
    facts: FrameFacts | None = None
    image: np.ndarray | None = None
    persons: tuple[PersonMark, ...] | None = None


class MomentStore:
    """The last `kept_s` seconds of one camera's complete frames, kept small as JPEG.

    The three parts of a frame may come in any order; frames that stay incomplete are dropped.
    """

    def __init__(self, kept_s: float = KEPT_SECONDS) -> None:
        self._kept_ns = round(kept_s * 1e9)
        self._waiting: OrderedDict[int, _Parts] = OrderedDict()
        self._complete: OrderedDict[int, Moment] = OrderedDict()

    def add_facts(self, stamp_ns: int, facts: FrameFacts) -> None:
        """Note what is known of the frame."""
        self._part(stamp_ns).facts = facts
        self._complete_if_whole(stamp_ns)

    def add_image(self, stamp_ns: int, image: np.ndarray) -> None:
        """Note the frame's anonymized picture, uint8 [H, W, 3] RGB; it is not copied."""
        self._part(stamp_ns).image = image
        self._complete_if_whole(stamp_ns)

    def add_persons(self, stamp_ns: int, persons: tuple[PersonMark, ...]) -> None:
        """Record the persons seen in the frame, also if there are none."""
        self._part(stamp_ns).persons = persons
        self._complete_if_whole(stamp_ns)

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._complete.clear()

    def moments(self) -> list[Moment]:
        """The complete frames by time."""
        return sorted(self._complete.values(), key=lambda moment: moment.stamp_ns)

    def _part(self, stamp_ns: int) -> _Parts:
        parts = self._waiting.setdefault(stamp_ns, _Parts())
        while len(self._waiting) > _WAITING:
            self._waiting.popitem(last=False)
        return parts

    def _complete_if_whole(self, stamp_ns: int) -> None:
        parts = self._waiting.get(stamp_ns)
        if parts is None or parts.facts is None or parts.image is None or parts.persons is None:
            return
        del self._waiting[stamp_ns]
        bgr = cv2.cvtColor(parts.image, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        moment = Moment(stamp_ns, parts.facts, parts.persons, jpeg.tobytes())
        self._complete[stamp_ns] = moment
        while next(iter(self._complete)) < stamp_ns - self._kept_ns:
            self._complete.popitem(last=False)


def moment_at(moments: list[Moment], stamp_ns: int) -> Moment | None:
    """The newest moment that is not later than the stamp; `moments` in order of time."""
    earlier = [moment for moment in moments if moment.stamp_ns <= stamp_ns]
    return earlier[-1] if earlier else None


def spread(moments: list[Moment], count: int) -> list[Moment]:
    """`count` moments (or all, if there are fewer) evenly over the time, in order."""
    if len(moments) <= count:
        return list(moments)
    # The middle of each of `count` equal parts: neither the very first nor the very last frame.
    return [moments[int((part + 0.5) * len(moments) / count)] for part in range(count)]
