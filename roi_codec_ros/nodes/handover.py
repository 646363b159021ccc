# SPDX-License-Identifier: Apache-2.0
"""Passes frames from the decoder to the detector in the same process: no copy, no DDS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from roi_codec_ros.common.images import Size


@dataclass(frozen=True, eq=False)
class AnonymizedFrame:
    """A decoded frame, which nobody may write to.

    header: of its latent. image: uint8 [H, W, 3] RGB. original_size: (height, width) in pixels of
    the camera's image. unknown: bool [rows, columns], where nothing of the picture is known, as a
    grid over it; None while all of it is there.
    """

    header: Header
    image: NDArray[np.uint8]
    original_size: Size
    unknown: NDArray[np.bool_] | None = None


class FrameTaker(Protocol):
    """Receives frames from the decode thread; only the newest of each camera is kept."""

    def wants(self, camera: str) -> bool:
        """Whether frames of that camera are wanted now."""

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a frame would be processed soon; False after the timeout."""

    def put(self, camera: str, frame: AnonymizedFrame) -> None:
        """Hand over a frame."""
