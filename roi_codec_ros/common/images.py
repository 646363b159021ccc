# SPDX-License-Identifier: Apache-2.0
"""How images and their sizes are written in type hints."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

ImageArray: TypeAlias = NDArray[np.uint8]  # [H, W, 3], RGB
Size: TypeAlias = tuple[int, int]  # height, width in pixels
