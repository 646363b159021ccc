# SPDX-License-Identifier: Apache-2.0
"""Letterboxing: images scaled with their aspect ratio kept and padded to a network's stride."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.images import Picture, Planes, Size

PADDING = 114  # the grey that YOLO networks are trained with


@dataclass(frozen=True)
class Letterbox:
    """Placement of an image in the network's input.

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
        """The smallest letterbox with a longer side of ``longest`` pixels, with both sides rounded
        up to multiples of ``stride``.
        """
        longest = max(1, math.ceil(longest / stride)) * stride
        scale = longest / max(image_size)
        inner = (max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale)))
        outer = (math.ceil(inner[0] / stride) * stride, math.ceil(inner[1] / stride) * stride)
        return cls(
            image_size, inner, outer, (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2
        )

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [*image_size, 3] → uint8 [*outer_size, 3]."""
        boxed = np.full((*self.outer_size, 3), PADDING, np.uint8)
        height, width = self.inner_size
        boxed[self.top : self.top + height, self.left : self.left + width] = self._scaled(image)
        return boxed

    def fill(self, planes: Planes, picture: Picture) -> None:
        """Write an image, uint8 [*image_size, 3] or planes [3, *image_size], into planes [3,
        *outer_size], 0 to 1. Nothing is scaled or rounded if the sizes match.
        """
        height, width = self.inner_size
        inside = np.s_[:, self.top : self.top + height, self.left : self.left + width]
        inner = planes[inside]
        for edge in (
            np.s_[:, : self.top],
            np.s_[:, self.top + height :],
            np.s_[:, :, : self.left],
            np.s_[:, :, self.left + width :],
        ):
            planes[edge] = PADDING / 255
        if picture.dtype == np.uint8:
            scaled = self._scaled(np.asarray(picture, np.uint8))
            np.multiply(scaled.transpose(2, 0, 1), np.float32(1 / 255), out=inner)
        else:
            for target, plane in zip(inner, picture, strict=True):
                target[...] = self._scaled(plane)

    def _scaled(self, image: NDArray[Any]) -> NDArray[Any]:
        """Resize one or three channels to the inner size."""
        if self.inner_size == self.image_size:
            return image
        size = self.inner_size[::-1]
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))

    def to_image(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert boxes [N, 4] from pixels of the network's input to pixels of the image."""
        scale = np.array(self.image_size[::-1], np.float32) / np.array(
            self.inner_size[::-1], np.float32
        )
        corner = np.array([self.left, self.top], np.float32)
        return np.asarray((xyxy - np.tile(corner, 2)) * np.tile(scale, 2), np.float32)
