# SPDX-License-Identifier: Apache-2.0
"""Common base of person detectors: images of any size in, boxes in their pixels out."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.images import Picture, picture_size
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.letterbox import Letterbox

STRIDE = 32  # of the coarsest features of a YOLOv8: sides are multiples of it

# float32 [N, 4] in pixels of the network's input, and scores float32 [N], best first
Found = tuple[NDArray[np.float32], NDArray[np.float32]]


class PersonFinder(ABC):
    """Detects persons in images.

    weights: the file that it was loaded from. name: its backend. image_size: default longer side
        of the network's input in pixels.
    """

    name: str

    def __init__(self, weights: str | os.PathLike[str], image_size: int) -> None:
        self.weights = Path(weights)
        self.image_size = image_size

    def detect(
        self,
        picture: Picture,
        *,
        confidence: float = 0.25,
        iou: float = 0.7,
        image_size: int | None = None,
    ) -> Detections:
        """Persons in one image, best first, in its pixels.

        picture: uint8 [H, W, 3] RGB, or planes float32 [3, H, W], of any size; it is letterboxed,
        so the aspect is kept.
        """
        (found,) = self.detect_batch(
            [picture], confidence=confidence, iou=iou, image_size=image_size
        )
        return found

    def detect_batch(
        self,
        pictures: Sequence[Picture],
        *,
        confidence: float = 0.25,
        iou: float = 0.7,
        image_size: int | None = None,
    ) -> list[Detections]:
        """`detect` for several images; those of one letterboxed size share a network call."""
        longest = image_size or self.image_size
        boxes = [Letterbox.of(picture_size(p), longest, STRIDE) for p in pictures]
        found: dict[int, Detections] = {}
        for size in dict.fromkeys(box.outer_size for box in boxes):
            indices = [index for index, box in enumerate(boxes) if box.outer_size == size]
            given = [(pictures[index], boxes[index]) for index in indices]
            for index, (xyxy, score) in zip(
                indices, self._search(given, confidence, iou), strict=True
            ):
                box = boxes[index]
                seen = Detections.from_arrays(box.to_image(xyxy), score, box.image_size)
                found[index] = seen.clip()
        return [found[index] for index in range(len(pictures))]

    @abstractmethod
    def _search(
        self, given: Sequence[tuple[Picture, Letterbox]], confidence: float, iou: float
    ) -> list[Found]:
        """Persons in images of one letterboxed size."""
