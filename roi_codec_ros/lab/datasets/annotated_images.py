# SPDX-License-Identifier: Apache-2.0
"""Images from files, and back to the size in which they are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import read_photograph
from roi_codec_ros.lab.datasets.annotations import Annotation


def read_annotated(annotation: Annotation) -> ImageArray:
    """The annotated picture as it is shown, RGB uint8 [H, W, 3]; its boxes fit on it.

    Raises PhotographError where it can't be read or is not of the annotated size.
    """
    return read_photograph(annotation.image_path, (annotation.width, annotation.height))


def resize(image: ImageArray, width: int, height: int) -> ImageArray:
    """Bicubic, with antialiasing where it shrinks; the image itself where the size is right."""
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def resize_annotation(annotation: Annotation, width: int, height: int) -> Annotation:
    """The same boxes in an image stretched to `width` × `height` px."""
    scale = np.array([width / annotation.width, height / annotation.height] * 2, dtype=np.float32)
    return replace(
        annotation,
        width=width,
        height=height,
        persons=annotation.persons * scale,
        heads=annotation.heads * scale,
        ignored=annotation.ignored * scale,
    )
