# SPDX-License-Identifier: Apache-2.0
"""Images: their types, planes of networks as images, and images as files."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.files import stamped

ImageArray: TypeAlias = NDArray[np.uint8]  # [H, W, 3], RGB
Planes: TypeAlias = NDArray[np.float32]  # [3, H, W], RGB, 0 to 1: as networks have pictures
Picture: TypeAlias = ImageArray | Planes
Size: TypeAlias = tuple[int, int]  # height, width in pixels


def picture_size(picture: Picture) -> Size:
    """Height and width of an image or of planes."""
    height, width = picture.shape[:2] if picture.dtype == np.uint8 else picture.shape[1:]
    return int(height), int(width)


def as_image(picture: Picture) -> ImageArray:
    """A picture as uint8 [H, W, 3]; planes are rounded, half to even."""
    if picture.dtype == np.uint8:
        return np.asarray(picture, np.uint8)
    merged = cv2.merge([np.ascontiguousarray(plane) for plane in picture])
    return np.asarray(cv2.convertScaleAbs(merged, alpha=255.0), np.uint8)


def picture_bytes(image: np.ndarray, suffix: str) -> bytes:
    """uint8 [H, W, 3], RGB, as a file of that suffix (``.png``) holds it. Raises UsageError."""
    try:
        written, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        written = False
    if not written:
        raise UsageError(f"expected a suffix such as .png or .jpg, found {suffix!r}")
    return stamped(data.tobytes())
