# SPDX-License-Identifier: Apache-2.0
"""The container of person detections used by detector, drawing and nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray, Size


def _no_boxes() -> NDArray[np.float32]:
    return np.zeros((0, 4), np.float32)


def _no_scores() -> NDArray[np.float32]:
    return np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of the persons seen in one image.

    xyxy: float32 [N, 4], x0, y0, x1, y1 in pixels of an image of `image_size`, x0 ≤ x1, y0 ≤ y1.
    score: float32 [N] in [0, 1].
    image_size: height and width in pixels of the image that the boxes lie in.
    """

    image_size: Size
    xyxy: NDArray[np.float32] = field(default_factory=_no_boxes)
    score: NDArray[np.float32] = field(default_factory=_no_scores)

    def __post_init__(self) -> None:
        if self.xyxy.ndim != 2 or self.xyxy.shape[1] != 4:
            raise RoiCodecError(f"expected boxes of shape [N, 4], found {list(self.xyxy.shape)}")
        if self.score.shape != (len(self.xyxy),):
            raise RoiCodecError(
                f"expected {len(self.xyxy)} scores, found shape {list(self.score.shape)}"
            )
        if min(self.image_size) < 1:
            raise RoiCodecError(f"expected an image of at least 1×1, found {self.image_size}")

    @classmethod
    def from_arrays(
        cls, xyxy: ArrayLike, score: ArrayLike, image_size: Sequence[int]
    ) -> Detections:
        """Build from array-likes, including empty lists without a shape."""
        height, width = image_size
        return cls(
            (int(height), int(width)),
            np.asarray(xyxy, np.float32).reshape(-1, 4),
            np.asarray(score, np.float32).reshape(-1),
        )

    def __len__(self) -> int:
        return len(self.xyxy)

    @property
    def width(self) -> NDArray[np.float32]:
        """float32 [N], pixels."""
        return self.xyxy[:, 2] - self.xyxy[:, 0]

    @property
    def height(self) -> NDArray[np.float32]:
        """float32 [N], pixels."""
        return self.xyxy[:, 3] - self.xyxy[:, 1]

    def scale_to(self, image_size: Size) -> Detections:
        """The same boxes in pixels of the image at another size; x and y scale independently."""
        height, width = image_size
        factor = np.array(
            [width / self.image_size[1], height / self.image_size[0]] * 2, dtype=np.float32
        )
        return Detections((height, width), self.xyxy * factor, self.score)

    def clip(self) -> Detections:
        """The boxes clipped to the image; those entirely outside are dropped."""
        height, width = self.image_size
        limits = np.array([width, height, width, height], np.float32)
        clipped = np.clip(self.xyxy, 0, limits)
        inside = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
        return Detections(self.image_size, clipped[inside], self.score[inside])

    def above(self, score: float) -> Detections:
        """Those with at least this score."""
        keep = self.score >= score
        return Detections(self.image_size, self.xyxy[keep], self.score[keep])


class DetectsPersons(Protocol):
    """Finds persons in single images."""

    def detect(self, image: ImageArray, *, confidence: float = ...) -> Detections:
        """Persons with at least this confidence in RGB uint8 [H, W, 3], boxes in its pixels."""
