# SPDX-License-Identifier: Apache-2.0
"""Images from files, and back to the size in which they are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation

ImageArray = NDArray[np.uint8]


def read_annotated(annotation: Annotation) -> ImageArray:
    """The annotated image as RGB uint8 [H, W, 3].

    A camera's rotation tag is not applied, since the boxes are of the stored pixels.
    Raises RoiCodecError where it can't be read or is not of the annotated size.
    """
    try:
        with Image.open(annotation.image_path) as file:
            image = np.array(file.convert("RGB"))
    # ImportError: ultralytics patches Image.open to try the optional HEIF reader on broken files.
    except (OSError, ValueError, SyntaxError, ImportError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(annotation.image_path), annotation.image_path.name)
        raise RoiCodecError(f"expected an image, found: {reason}") from error
    height, width = image.shape[:2]
    if (width, height) != (annotation.width, annotation.height):
        raise RoiCodecError(
            f"expected {annotation.width}×{annotation.height} px as annotated, "
            f"found {width}×{height}"
        )
    return image


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
