# SPDX-License-Identifier: Apache-2.0
"""Images of any size into a network's: scaled with their aspect kept, padded to its stride."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.images import Size

PADDING = 114  # the grey that YOLO networks are trained with


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in the network's input.

    image_size, inner_size, outer_size: (height, width) in pixels of the image, of it scaled, and
    with the padding around. top, left: padding in pixels.
    """

    image_size: Size
    inner_size: Size
    outer_size: Size
    top: int
    left: int

    @classmethod
    def of(cls, image_size: Size, longest: int, stride: int) -> Letterbox:
        """The smallest one in which the longer side fills ``longest`` pixels, a multiple of
        ``stride`` (rounded up to one), and the other side is one too."""
        longest = max(1, math.ceil(longest / stride)) * stride
        scale = longest / max(image_size)
        inner = (max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale)))
        outer = (math.ceil(inner[0] / stride) * stride, math.ceil(inner[1] / stride) * stride)
        return cls(
            image_size, inner, outer, (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2
        )

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [*image_size, 3] → uint8 [*outer_size, 3]."""
        if self.inner_size != self.image_size:
            image = np.asarray(
                cv2.resize(image, self.inner_size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8
            )
        boxed = np.full((*self.outer_size, 3), PADDING, np.uint8)
        height, width = self.inner_size
        boxed[self.top : self.top + height, self.left : self.left + width] = image
        return boxed

    def to_image(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes [N, 4] in pixels of the network's input → in pixels of the image."""
        scale = np.array(self.image_size[::-1], np.float32) / np.array(
            self.inner_size[::-1], np.float32
        )
        corner = np.array([self.left, self.top], np.float32)
        return np.asarray((xyxy - np.tile(corner, 2)) * np.tile(scale, 2), np.float32)
