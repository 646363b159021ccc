# SPDX-License-Identifier: Apache-2.0
"""Detects images without contrast, from a covered lens or without light."""

from __future__ import annotations

import numpy as np

from roi_codec_ros.common.images import Picture

LEAST_CONTRAST = 12.0  # of 255, between the darkest and the brightest parts
EDGE_PERCENT = 2.0  # of the pixels are ignored at either end, such as status LEDs
STEP_PX = 8  # pixel stride of the sampling


def shows_nothing(picture: Picture) -> bool:
    """Whether an image has about one brightness everywhere, so that persons cannot be detected in
    it.

    picture: uint8 [H, W, 3], or float32 planes [3, H, W] of 0 to 1.
    """
    if picture.dtype == np.uint8:
        brightness = picture[::STEP_PX, ::STEP_PX, 1].astype(np.float32)
    else:
        brightness = 255.0 * picture[1, ::STEP_PX, ::STEP_PX]
    if not brightness.size:
        return True
    low, high = np.percentile(brightness, [EDGE_PERCENT, 100.0 - EDGE_PERCENT])
    return bool(high - low < LEAST_CONTRAST)
