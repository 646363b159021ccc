# SPDX-License-Identifier: Apache-2.0
"""From a decoder to whoever looks at its frames in the same process: no copy, no DDS."""

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
    the camera's image.
    """

    header: Header
    image: NDArray[np.uint8]
    original_size: Size


class FrameTaker(Protocol):
    """Takes frames from the decode thread; only the newest of each camera waits."""

    def wants(self, camera: str) -> bool:
        """Whether frames of that camera are looked at now."""

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a frame would be looked at next or soon; False after the timeout."""

    def put(self, camera: str, frame: AnonymizedFrame) -> None:
        """Leave a frame to be looked at."""
