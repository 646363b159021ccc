# SPDX-License-Identifier: Apache-2.0
"""Which part of the floor cameras watch, as a nav_msgs/OccupancyGrid."""

from __future__ import annotations

import array
from collections.abc import Sequence

import numpy as np
from nav_msgs.msg import OccupancyGrid
from std_msgs.msg import Header

from roi_codec_ros.perception.coverage import Cells

WATCHED, NOT_COVERED = 0, -1


def coverage_grid(
    known: Sequence[Cells], watched: Sequence[Cells], cell_m: float, header: Header
) -> OccupancyGrid:
    """WATCHED in the cells that some camera watches now, NOT_COVERED in all others.

    known: cells [K, 2] of every camera, watched or not: the grid reaches around them, so that it
    stays in its place when a camera goes dark.
    """
    grid = OccupancyGrid(header=header)
    grid.info.resolution = cell_m
    grid.info.map_load_time = header.stamp
    every = np.concatenate([np.zeros((0, 2), np.int64), *known])
    if not len(every):
        return grid
    corner = every.min(axis=0)
    width, height = (every.max(axis=0) - corner + 1).tolist()
    values = np.full((height, width), NOT_COVERED, np.int8)
    for cells in watched:
        values[cells[:, 1] - corner[1], cells[:, 0] - corner[0]] = WATCHED
    grid.info.width, grid.info.height = width, height
    grid.info.origin.position.x = float(corner[0] * cell_m)
    grid.info.origin.position.y = float(corner[1] * cell_m)
    grid.info.origin.orientation.w = 1.0
    data = array.array("b")
    data.frombytes(values.tobytes())
    grid.data = data
    return grid
