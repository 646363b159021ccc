# SPDX-License-Identifier: Apache-2.0
"""Regions of a stream: faces are searched for in every frame, heads and persons in every n-th."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.regions.blocks import grid_size
from roi_codec_ros.regions.finder import RegionFinder, Regions

# At lower frame rates every frame is searched in full: in this time a walking head moves by half
# its width.
MOST_AGE_S = 0.08


_BESIDE = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class RegionFollower:
    """Finds regions in the frames of one camera.

    Remembers maps of heads and persons, never pixels. Between two full searches, heads and persons
    are assumed where they were (or one block beside it, `moved_heads`); faces are those of the
    current frame.
    """

    def __init__(self, finder: RegionFinder, persons_every: int = 1) -> None:
        """persons_every: search every n-th frame for persons and for heads seen from behind."""
        self._finder = finder
        self._persons_every = persons_every
        self._maps: Regions | None = None
        self._judged_s = 0.0
        self._reused = 0

    def find(self, image: NDArray[np.uint8], stamp_s: float | None) -> Regions:
        """Regions of a frame, uint8 [H, W, 3], RGB.

        stamp_s: capture time; None: a single image, searched in full. So is the first frame, one
            of another size, and one that is older than the last or much newer. Raises
            RoiCodecError as `RegionFinder.find`.
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
        self._reused, self._maps = 0, None  # kept only if this frame succeeds
        self._maps = self._finder.find(image)
        self._judged_s = stamp_s
        return self._maps

    def moved_heads(self) -> NDArray[np.bool_] | None:
        """Blocks beside head blocks, where a head may have moved to: [rows, columns].

        None after a full search, whose heads are current.
        """
        if self._maps is None or not self._reused:
            return None
        heads = (self._maps.heads >= self._finder.thresholds.head).astype(np.uint8)
        return cv2.dilate(heads, _BESIDE).astype(np.bool_)
