# SPDX-License-Identifier: Apache-2.0
"""Whether a picture shows anything at all: a lens may be covered, or the light be out."""

from __future__ import annotations

import numpy as np

from roi_codec_ros.common.images import Picture

LEAST_CONTRAST = 12.0  # of 255, between the darkest and the brightest parts
EDGE_PERCENT = 2.0  # of the pixels, at either end, that do not count: a lamp on a camera's back
STEP_PX = 8  # every so many pixels are looked at


def shows_nothing(picture: Picture) -> bool:
    """Whether all of a picture has about one brightness, so that nobody can be seen in it.

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
