# SPDX-License-Identifier: Apache-2.0
"""What a map of blocks says of a head, by a fixed code that knows everything around it.

    picture ─► a standard head in the head's place ─► map that is expected ─┐
    picture ─────────────────────────────────────────► map that was sent ───┴► code length, bits

Nothing of the head is in the map that is expected: it knows the head's box, and the pixels
outside. The map that was sent is coded block by block, row by row: whether it is as expected, by
how many of its neighbours before it (left, and the three above) are not and by whether the
expected map changes there; and if not, as what it was sent. The frequencies were counted once, on
photographs that codecs and regions are trained on, and are part of the code; entropy is bounded by
the mean length under any code that is fixed beforehand.
"""

from __future__ import annotations

import functools
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.entropy import SKIPPED
from roi_codec_ros.common.images import ImageArray

# How often a block is not as expected: [neighbours that are not, 3 for more][no edge, edge].
CHANGED = ((0.0009, 0.0423), (0.1633, 0.3037), (0.3446, 0.4585), (0.8809, 0.7296))
# What it is then: [expected][sent], of hidden, then the classes of steps.
SENT = np.array(
    [
        [0.0, 0.631, 0.027, 0.337, 0.005],
        [0.046, 0.0, 0.305, 0.648, 0.001],
        [0.001, 0.962, 0.0, 0.036, 0.001],
        [0.003, 0.553, 0.442, 0.0, 0.002],
        [0.02, 0.48, 0.349, 0.151, 0.0],
    ]
)
HEAD_SIZE = (64, 48)  # height and width that the standard head is drawn at

BlockArray = NDArray[np.uint8]


def map_change_bits(blocks: BlockArray, expected: BlockArray) -> float:
    """Bits of a map of blocks [h, w] for one who knows the ``expected`` one.

    Raises ValueError for skipped blocks, which a picture that stands alone has none of, and for
    values that the code does not know.
    """
    values = np.array([blocks, expected], np.int64) - SKIPPED - 1
    if values.min() < 0 or values.max() >= len(SENT):
        raise ValueError(f"expected blocks of 1 to {len(SENT)}, found others")
    sent, wanted = values
    changed = sent != wanted
    before = np.pad(changed, ((1, 0), (1, 1))).astype(np.int64)
    around = before[1:, :-2] + before[:-1, :-2] + before[:-1, 1:-1] + before[:-1, 2:]
    likely = np.array(CHANGED)[np.minimum(around, 3), _at_edge(wanted).astype(np.int64)]
    flags = -np.log2(np.where(changed, likely, 1.0 - likely)).sum()
    into = -np.log2(SENT[wanted[changed], sent[changed]]).sum()
    return float(flags + into)


def with_standard_head(image: ImageArray, head: NDArray[np.float32]) -> ImageArray:
    """A copy of an image with a drawn head, the same for everybody, in a box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = (float(value) for value in head)
    left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
    result = image.copy()
    place = result[top : max(0, math.ceil(y1)), left : max(0, math.ceil(x1))]
    if place.size:
        size = (place.shape[1], place.shape[0])
        place[:] = cv2.resize(standard_head(), size, interpolation=cv2.INTER_AREA)
    return result


@functools.lru_cache(maxsize=1)
def standard_head() -> ImageArray:
    """RGB uint8 [64, 48, 3]: hair, a face, brows, eyes, nose and mouth before grey."""
    height, width = HEAD_SIZE
    middle = width // 2
    head = np.full((height, width, 3), (120, 110, 100), np.uint8)

    def oval(x: int, y: int, across: int, down: int, colour: tuple[int, int, int]) -> None:
        cv2.ellipse(head, (x, y), (across, down), 0, 0, 360, colour, -1)

    oval(middle, 36, 19, 26, (200, 160, 135))
    cv2.ellipse(head, (middle, 18), (20, 16), 0, 180, 360, (60, 45, 40), -1)
    for x in (middle - 8, middle + 8):
        oval(x, 32, 4, 2, (50, 40, 40))
        oval(x, 27, 5, 1, (70, 50, 45))
    oval(middle, 42, 3, 2, (165, 120, 105))
    oval(middle, 50, 7, 2, (150, 80, 80))
    return np.asarray(cv2.GaussianBlur(head, (0, 0), 1.2), np.uint8)


def _at_edge(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a block differs from one of the four beside it."""
    padded = np.pad(values, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.asarray(np.logical_or.reduce([side != values for side in beside]), np.bool_)
