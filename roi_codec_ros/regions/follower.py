# SPDX-License-Identifier: Apache-2.0
"""Regions of a film: faces are looked for in every frame, the rest in every so manieth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.blocks import grid_size
from roi_codec_ros.regions.finder import RegionFinder, Regions

# Of a camera with fewer frames a second all are judged whole: in that time a walking head moves by
# half of its width.
MOST_AGE_S = 0.08


_BESIDE = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class RegionFollower:
    """Follows one camera. Remembers maps of heads and persons, never pixels.

    Between two frames that are judged whole, heads and persons are where they were (or beside it,
    `moved_heads`), and faces where they are now.
    """

    def __init__(self, finder: RegionFinder, persons_every: int = 1) -> None:
        """persons_every: look for persons, and heads seen from behind, in one frame of so many."""
        self._finder = finder
        self._persons_every = persons_every
        self._maps: Regions | None = None
        self._judged_s = 0.0
        self._reused = 0

    def find(self, image: NDArray[np.uint8], stamp_s: float | None) -> Regions:
        """Regions of a frame, uint8 [H, W, 3], RGB.

        stamp_s: when it was taken; None: it belongs to no film, and is judged whole. So is the
        first frame, one of another size, and one that was taken before the last or much later.
        Raises RoiCodecError as `RegionFinder.find`.
        """
        if stamp_s is None:
            self._reused, self._maps = 0, None
            return self._finder.find(image)
        size = grid_size(image.shape[0], image.shape[1])
        if (
            self._maps is not None
            and self._reused + 1 < self._persons_every
            and 0.0 < stamp_s - self._judged_s <= MOST_AGE_S
            and self._maps.heads.shape == size
        ):
            faces = self._finder.find_faces(image).faces
            self._reused += 1
            return Regions(self._maps.heads, self._maps.persons, faces)
        self._reused, self._maps = 0, None  # unless this frame can be judged
        self._maps = self._finder.find(image)
        self._judged_s = stamp_s
        return self._maps

    def moved_heads(self) -> NDArray[np.bool_] | None:
        """Blocks beside those of heads, where these may be by now: [rows, columns].

        None after a frame that was judged whole, in which they are where they are.
        """
        if self._maps is None or not self._reused:
            return None
        heads = (self._maps.heads >= self._finder.thresholds.head).astype(np.uint8)
        return cv2.dilate(heads, _BESIDE).astype(np.bool_)
