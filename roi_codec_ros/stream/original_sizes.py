# SPDX-License-Identifier: Apache-2.0
"""Matches anonymized images with their frame data: the camera's image size and unknown parts."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.images import Size

REMEMBERED = 32


class OriginalSizes:
    """Original sizes by stamp, else by coded size if that is unambiguous.

    Image and frame data arrive on two topics, in any order, and either may be lost. If the frame
    data are lost, the unknown part of the previous frame is assumed.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._by_stamp: OrderedDict[int, Size] = OrderedDict()
        self._by_coded_size: OrderedDict[Size, Size | None] = OrderedDict()  # None: ambiguous
        self._unknown: dict[int, NDArray[np.bool_]] = {}  # by stamp, for images with unknown parts
        self._last_ns = 0
        self._changed = threading.Condition()

    def add(
        self,
        stamp_ns: int,
        coded_size: Size,
        original_size: Size,
        unknown: NDArray[np.bool_] | None = None,
    ) -> None:
        """Record the decoder's data of one frame. Sizes are height and width in pixels; 0 is none.

        unknown: bool [rows, columns], unknown parts of the image; None: it is whole.
        """
        if 0 in original_size:
            return
        with self._changed:
            self._by_stamp[stamp_ns] = original_size
            self._unknown.pop(stamp_ns, None)
            if unknown is not None:
                self._unknown[stamp_ns] = unknown
            self._last_ns = stamp_ns
            if len(self._by_stamp) > self._remembered:
                oldest, _ = self._by_stamp.popitem(last=False)
                self._unknown.pop(oldest, None)
            known = self._by_coded_size.pop(coded_size, original_size)
            self._by_coded_size[coded_size] = original_size if known == original_size else None
            if len(self._by_coded_size) > self._remembered:
                self._by_coded_size.popitem(last=False)
            self._changed.notify_all()

    def unknown(self, stamp_ns: int) -> NDArray[np.bool_] | None:
        """Unknown parts of the image of the last `find`; None: it is whole."""
        with self._changed:
            return self._unknown.get(stamp_ns if stamp_ns in self._by_stamp else self._last_ns)

    def find(self, stamp_ns: int, coded_size: Size, timeout_s: float = 0.0) -> Size | None:
        """The original size of an image; None if it is unknown or ambiguous."""
        with self._changed:
            self._changed.wait_for(lambda: stamp_ns in self._by_stamp, timeout_s)
            if stamp_ns in self._by_stamp:
                return self._by_stamp[stamp_ns]
            return self._by_coded_size.get(coded_size)
