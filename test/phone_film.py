# SPDX-License-Identifier: Apache-2.0
"""Small films as phones write them: frames as the sensor has them, and how far to turn them."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 64, 48
# Of the header of an MP4's track: what a player does with its frames, by degrees clockwise.
MATRICES = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def write_phone_film(
    path: Path, rotation_deg: int = 0, frames: int = 5, rate_hz: float = 12.5
) -> Path:
    """An MP4 of 64 × 48 px with a red upper left corner, brighter from frame to frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate_hz, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(frames):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        frame[:16, :16] = (0, 0, 120 + 120 * number // frames)
        writer.write(frame)
    writer.release()
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 8 + 32 + 4  # version 0: as far as the matrix
    a, b, c, d = (value << 16 for value in MATRICES[rotation_deg])
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
