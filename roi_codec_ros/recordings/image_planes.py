# SPDX-License-Identifier: Apache-2.0
"""Painting over image messages in the samples that they hold, whatever their encoding.

Nothing is converted: a sample that belongs to no hidden block is the same, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.image_messages import ImageMessage, sample_rows
from roi_codec_ros.recordings.hiding import BoolArray
from roi_codec_ros.regions import BLOCK_PX, paint_plane

Samples = NDArray[Any]
Block = tuple[int, int]

WHOLE: Block = (BLOCK_PX, BLOCK_PX)
HALF: Block = (BLOCK_PX // 2, BLOCK_PX // 2)
HALF_ACROSS: Block = (BLOCK_PX, BLOCK_PX // 2)
# Where the samples of a row are that hold luminance, and those of either colour.
_SHARED_ACROSS = {
    "yuv422": ((1, 2), (0, 4), (2, 4)),
    "uyvy": ((1, 2), (0, 4), (2, 4)),
    "yuv422_yuy2": ((0, 2), (1, 4), (3, 4)),
    "yuyv": ((0, 2), (1, 4), (3, 4)),
}


def hide_in_image(message: ImageMessage, hidden: BoolArray) -> NDArray[np.uint8]:
    """The data of a sensor_msgs/Image whose hidden blocks are painted over; padding becomes 0.

    hidden: bool [⌈H / 16⌉, ⌈W / 16⌉]. Raises ImageMessageError.
    """
    lie = sample_rows(message)
    height, width, step = message.height, message.width, message.step
    given = np.frombuffer(message.data, np.uint8)[: lie.rows * step]
    data = np.zeros((lie.rows, step), np.uint8)
    data[:, : lie.row_bytes] = given.reshape(lie.rows, step)[:, : lie.row_bytes]
    samples: Samples = np.ascontiguousarray(data[:, : lie.row_bytes])
    if lie.sample_bytes == 2:
        samples = samples.view(">u2" if message.is_bigendian else "<u2").astype(np.uint16)
    if lie.channels > 1 and message.encoding not in _SHARED_ACROSS:
        samples = samples.reshape(height, width, lie.channels)
    for plane, block in _planes(samples, message.encoding, height):
        plane[...] = paint_plane(np.ascontiguousarray(plane), hidden, block)
    if lie.sample_bytes == 2:
        samples = samples.astype(">u2" if message.is_bigendian else "<u2")
    data[:, : lie.row_bytes] = samples.reshape(lie.rows, -1).view(np.uint8)
    return data.reshape(-1)


def _planes(samples: Samples, encoding: str, height: int) -> Iterator[tuple[Samples, Block]]:
    """Views of what lies together in a picture, with how much of it is a block."""
    if encoding.startswith("bayer"):
        for row in (0, 1):
            for column in (0, 1):
                yield samples[row::2, column::2], HALF
    elif encoding in _SHARED_ACROSS:
        luminance, *colours = _SHARED_ACROSS[encoding]
        yield samples[:, luminance[0] :: luminance[1]], WHOLE
        for start, every in colours:
            yield samples[:, start::every], HALF_ACROSS
    elif encoding in ("nv12", "nv21"):
        yield samples[:height], WHOLE
        yield samples[height:].reshape(height // 2, -1, 2), HALF
    else:
        yield samples, WHOLE
