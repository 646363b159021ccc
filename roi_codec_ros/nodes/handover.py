# SPDX-License-Identifier: Apache-2.0
"""Passes frames from the decoder to the detector in the same process: no copy, no DDS."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from roi_codec_ros.common.images import ImageArray, Picture, Size, as_image


@dataclass(frozen=True, eq=False)
class AnonymizedFrame:
    """A decoded frame, read-only.

    header: of its latent. picture: from the decoder, or the image of a message. original_size:
    (height, width) in pixels of the camera's image. unknown: bool [rows, columns], a grid over the
    image with its unknown parts; None: none.
    """

    header: Header
    picture: Picture
    original_size: Size
    unknown: NDArray[np.bool_] | None = None

    @cached_property
    def image(self) -> ImageArray:
        """uint8 [H, W, 3] RGB, converted on first access."""
        return as_image(self.picture)


class FrameTaker(Protocol):
    """Receives frames from the decode thread; only the newest of each camera is kept."""

    def wants(self, camera: str) -> bool:
        """Whether frames of that camera are needed now."""

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until a frame would be processed soon; False after the timeout."""

    def expected_ms(self) -> float:
        """Expected processing time of a frame, from recent ones."""

    def put(self, camera: str, frame: AnonymizedFrame) -> None:
        """Hand over a frame."""
