# SPDX-License-Identifier: Apache-2.0
"""The fair rival of a codec that hides heads: a standard codec on pictures without them.

Heads are hidden by their annotation, which no camera has: such a baseline misses none, hides
nothing else, and pays nothing for finding them.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.methods import AroundAnother, Method

PREFIX = "hidden-"
THUMBNAIL_PX = 2


class HeadsHidden(AroundAnother):
    """A codec that is given every picture with its annotated heads hidden."""

    prefix = PREFIX

    def __init__(self, codec: Method) -> None:
        super().__init__(codec)
        self._codec = codec

    def prepared(self, image: ImageArray, annotation: Annotation) -> ImageArray:
        """The picture that is coded in the place of ``image``."""
        return hide_heads(image, annotation.heads)

    def encode(self, image: ImageArray) -> bytes:
        """As the codec does."""
        return self._codec.encode(image)

    def decode(self, data: bytes) -> ImageArray:
        """As the codec does."""
        return self._codec.decode(data)


def hide_heads(image: ImageArray, heads: np.ndarray) -> ImageArray:
    """A copy of ``image`` whose heads became 2×2 thumbnails of themselves, drawn smoothly.

    image: uint8 [H, W, 3]; heads: [N, 4] as x0, y0, x1, y1 in its pixels. Of what was tried, a
    detector of persons finds most in such pictures, and no face is left in them.
    """
    hidden = image.copy()
    for x0, y0, x1, y1 in heads:
        inside = np.s_[
            max(0, math.floor(y0)) : math.ceil(y1), max(0, math.floor(x0)) : math.ceil(x1)
        ]
        head = image[inside]
        if head.size:
            size = (THUMBNAIL_PX, THUMBNAIL_PX)
            thumbnail = cv2.resize(head, size, interpolation=cv2.INTER_AREA)
            hidden[inside] = cv2.resize(thumbnail, (head.shape[1], head.shape[0]))
    return hidden
