# SPDX-License-Identifier: Apache-2.0
"""Temporal blocks: those that are sent as differences to what their stream sent last.

The format is defined in docs/bitstream.md: one bit for each block that may be temporal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.entropy import FIRST_CLASS
from roi_codec_ros.common.errors import BitstreamError


def may_be_temporal(blocks: NDArray[np.uint8], levels: Sequence[int]) -> NDArray[np.bool_]:
    """bool [h, w]: blocks of classes finer than the frame's coarsest level.

    blocks: uint8 [h, w], as in `entropy`. levels: the level of each class.
    """
    finer = np.zeros(FIRST_CLASS + len(levels), np.bool_)
    finer[FIRST_CLASS:] = np.array(levels) < max(levels)
    return finer[blocks]


def packed(temporal: NDArray[np.bool_], blocks: NDArray[np.uint8], levels: Sequence[int]) -> bytes:
    """The bits of temporal blocks of a frame as bytes; empty if no block is temporal."""
    if not temporal.any():
        return b""
    return np.packbits(temporal[may_be_temporal(blocks, levels)]).tobytes()


def unpacked(data: bytes, blocks: NDArray[np.uint8], levels: Sequence[int]) -> NDArray[np.bool_]:
    """bool [h, w], the temporal blocks. Raises BitstreamError for bytes that `packed` cannot
    produce.
    """
    temporal = np.zeros(blocks.shape, np.bool_)
    if not data:
        return temporal
    may = may_be_temporal(blocks, levels)
    count = int(may.sum())
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if len(data) != -(-count // 8) or bits[count:].any() or not bits[:count].any():
        raise BitstreamError(
            f"expected a bit for each of {count} blocks that may be temporal, one of them set; "
            f"found {len(data)} bytes, {int(bits.sum())} bits set"
        )
    temporal[may] = bits[:count].astype(np.bool_)
    return temporal
