# SPDX-License-Identifier: Apache-2.0
"""Frames of films as the samples that their codec gave: painted over without a conversion."""

from __future__ import annotations

from typing import Any

import numpy as np

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.recordings.hiding import BoolArray
from roi_codec_ros.recordings.jpegs import INSTALL, SHARED, plane_array
from roi_codec_ros.regions import BLOCK_PX, paint_plane

FALLBACK_FORMAT = "yuv420p"


def require_av() -> Any:
    """PyAV. Raises RoiCodecError where it is not installed."""
    return optional("av", needed_for="films", install=INSTALL)


class VideoFrame:
    """A decoded frame; as `pipeline.Frame`. Output: a frame of PyAV without what is hidden."""

    def __init__(self, frame: Any) -> None:
        """frame: of PyAV; its format, if not one of `SHARED`, becomes 4:2:0 of 8 bits."""
        wanted = frame.format.name
        turn = -frame.rotation % 360
        if wanted not in SHARED or (turn in (90, 270) and SHARED[wanted] not in ((1, 1), (2, 2))):
            wanted = FALLBACK_FORMAT
        self._shared = SHARED[wanted]
        self._turns = (360 - turn) // 90 % 4  # quarters, as NumPy counts them
        self._frame = frame if wanted == frame.format.name else _reformatted(frame, wanted)
        self._pts, self._time_base = frame.pts, frame.time_base

    @property
    def size_bytes(self) -> int:
        """Of its samples."""
        return int(self._frame.width * self._frame.height * 3)

    @property
    def time_s(self) -> float | None:
        """When it is shown, if it says so."""
        if self._pts is None or self._time_base is None:
            return None
        return float(self._pts * self._time_base)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height as it is shown."""
        size = (self._frame.width, self._frame.height)
        return size if self._turns % 2 == 0 else (size[1], size[0])

    @property
    def format_name(self) -> str:
        """Of its samples, as FFmpeg calls it."""
        return str(self._frame.format.name)

    def image(self) -> ImageArray:
        """As it is shown, RGB."""
        pixels = np.rot90(self._frame.to_ndarray(format="rgb24"), self._turns)
        return np.ascontiguousarray(pixels)

    def hide(self, hidden: BoolArray) -> Any:
        """As it is shown, without what is hidden."""
        if not hidden.any() and not self._turns:
            return self._frame
        width, height = self.upright_size
        written = require_av().VideoFrame(width, height, self.format_name)
        for place, (given, plane) in enumerate(
            zip(self._frame.planes, written.planes, strict=True)
        ):
            shared = (1, 1) if place == 0 else self._shared
            block = (BLOCK_PX // shared[0], BLOCK_PX // shared[1])
            samples = np.ascontiguousarray(np.rot90(plane_array(given), self._turns))
            rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
            rows[:, : plane.width] = paint_plane(samples, hidden, block)
        written.pts = self._pts
        if self._time_base is not None:
            written.time_base = self._time_base
        for name in ("color_range", "colorspace", "color_primaries", "color_trc"):
            if hasattr(self._frame, name):
                setattr(written, name, getattr(self._frame, name))
        return written

    def shown(self, output: Any) -> ImageArray:
        """The pixels of what is coded."""
        return np.asarray(output.to_ndarray(format="rgb24"), np.uint8)


def _reformatted(frame: Any, wanted: str) -> Any:
    changed = frame.reformat(format=wanted)
    changed.pts = frame.pts
    if frame.time_base is not None:
        changed.time_base = frame.time_base
    return changed
