# SPDX-License-Identifier: Apache-2.0
"""Boxes drawn into an image, for people to look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.perception.detections import Detections

BOX_COLOUR = (64, 224, 96)


def draw_detections(image: NDArray[np.uint8], detections: Detections) -> NDArray[np.uint8]:
    """A copy of the image (uint8 [H, W, 3] RGB) with a box and a score for each person."""
    import cv2

    height, width = image.shape[:2]
    if detections.image_size != (height, width):
        detections = detections.scale_to((height, width))
    drawn = np.ascontiguousarray(image).copy()
    line = max(1, round(min(height, width) / 240))
    for (x0, y0, x1, y1), score in zip(
        np.rint(detections.xyxy).astype(int).tolist(), detections.score.tolist(), strict=True
    ):
        cv2.rectangle(drawn, (x0, y0), (x1, y1), BOX_COLOUR, line)
        text_at = (x0 + 2, max(y0 - 4, 10))
        cv2.putText(
            drawn,
            f"{score:.2f}",
            text_at,
            cv2.FONT_HERSHEY_SIMPLEX,
            0.4,
            BOX_COLOUR,
            1,
            cv2.LINE_AA,
        )
    return drawn
