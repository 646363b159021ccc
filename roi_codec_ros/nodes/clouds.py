# SPDX-License-Identifier: Apache-2.0
"""Persons as obstacle sensors show them: a PointCloud2 with rings of points around each."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from roi_codec_ros.nodes.conversions import byte_array

try:
    from sensor_msgs_py import point_cloud2
except ImportError:
    point_cloud2 = None

RING_POINTS = 12
RING_HEIGHTS_M = (0.2, 0.8, 1.4)
FLOAT_BYTES = 4


def person_rings(xy: ArrayLike, radius_m: float) -> NDArray[np.float32]:
    """Points float32 [36 N, 3] around N persons at xy [N, 2]: a ring at each of three heights.

    Zones and obstacle layers ask for several points before they believe in an obstacle.
    """
    places = np.asarray(xy, np.float64).reshape(-1, 1, 1, 2)
    angles = np.arange(RING_POINTS) * (2.0 * np.pi / RING_POINTS)
    circle = radius_m * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.empty((len(places), len(RING_HEIGHTS_M), RING_POINTS, 3), np.float32)
    points[..., :2] = places + circle
    points[..., 2] = np.array(RING_HEIGHTS_M)[:, None]
    return points.reshape(-1, 3)


def cloud_from_points(points: NDArray[np.float32], header: Header) -> PointCloud2:
    """points: float32 [N, 3]. The fields x, y and z are there even when no point is."""
    if point_cloud2 is not None:
        return point_cloud2.create_cloud_xyz32(header, points)
    return written_cloud(points, header)


def written_cloud(points: NDArray[np.float32], header: Header) -> PointCloud2:
    """What sensor_msgs_py makes, where that package is not installed."""
    step = 3 * FLOAT_BYTES
    cloud = PointCloud2(header=header, height=1, width=len(points), is_dense=False)
    cloud.is_bigendian = sys.byteorder != "little"
    cloud.fields = [
        PointField(name=name, offset=FLOAT_BYTES * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    cloud.point_step, cloud.row_step = step, step * len(points)
    cloud.data = byte_array(np.ascontiguousarray(points, np.float32).tobytes())
    return cloud
