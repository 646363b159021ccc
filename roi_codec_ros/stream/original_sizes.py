# SPDX-License-Identifier: Apache-2.0
"""Finds the size of the camera image that an anonymized image was made from."""

from __future__ import annotations

import threading
from collections import OrderedDict

from roi_codec_ros.common.images import Size

REMEMBERED = 32


class OriginalSizes:
    """Original sizes by stamp, else by coded size where that leaves no doubt.

    Image and frame data arrive on two topics, in any order, and either may be lost.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._by_stamp: OrderedDict[int, Size] = OrderedDict()
        self._by_coded_size: OrderedDict[Size, Size | None] = OrderedDict()  # None: several
        self._changed = threading.Condition()

    def add(self, stamp_ns: int, coded_size: Size, original_size: Size) -> None:
        """What the decoder says of one frame. Sizes are height and width in pixels; 0 is none."""
        if 0 in original_size:
            return
        with self._changed:
            self._by_stamp[stamp_ns] = original_size
            if len(self._by_stamp) > self._remembered:
                self._by_stamp.popitem(last=False)
            known = self._by_coded_size.pop(coded_size, original_size)
            self._by_coded_size[coded_size] = original_size if known == original_size else None
            if len(self._by_coded_size) > self._remembered:
                self._by_coded_size.popitem(last=False)
            self._changed.notify_all()

    def find(self, stamp_ns: int, coded_size: Size, timeout_s: float = 0.0) -> Size | None:
        """The original size of an image; None if it is unknown or may be one of several."""
        with self._changed:
            self._changed.wait_for(lambda: stamp_ns in self._by_stamp, timeout_s)
            if stamp_ns in self._by_stamp:
                return self._by_stamp[stamp_ns]
            return self._by_coded_size.get(coded_size)
