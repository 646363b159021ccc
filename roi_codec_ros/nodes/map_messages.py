# SPDX-License-Identifier: Apache-2.0
"""Messages of the tracker in the map: persons, poses, obstacle cloud, coverage."""

from __future__ import annotations

import array
import math
import sys
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import Pose, PoseArray, Quaternion
from nav_msgs.msg import OccupancyGrid
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from roi_codec_ros.msg import Person, PersonArray
from roi_codec_ros.nodes.conversions import byte_array, moved_stamp
from roi_codec_ros.perception.coverage import Cells
from roi_codec_ros.perception.tracking import Tracks

SLOWEST_HEADING_M_S = 0.2  # below it a velocity says nothing about a person's heading


def persons_from_tracks(tracks: Tracks, header: Header) -> PersonArray:
    """Boxes belong to single cameras: they are 0 here, as is the image size."""
    message = PersonArray(header=header)
    for row in range(len(tracks)):
        person = Person(track_id=int(tracks.id[row]), position_valid=True)
        person.position.x, person.position.y = tracks.xy[row].tolist()
        person.position_covariance = tracks.covariance[row].ravel()
        person.velocity.x, person.velocity.y = tracks.velocity[row].tolist()
        person.velocity_covariance = tracks.velocity_covariance[row].ravel()
        person.score = float(np.nan_to_num(tracks.score[row]))
        person.body_height_m = float(np.nan_to_num(tracks.height_m[row]))
        person.age_s = float(tracks.age_s[row])
        person.last_seen = moved_stamp(header.stamp, -float(tracks.unseen_s[row]))
        person.cameras = list(tracks.cameras[row])
        message.persons.append(person)
    return message


def poses_from_persons(persons: PersonArray) -> PoseArray:
    """Poses on the ground; walking persons face their direction, all others the map's x."""
    return PoseArray(
        header=persons.header,
        poses=[
            Pose(position=person.position, orientation=heading(person))
            for person in persons.persons
        ],
    )


def heading(person: Person) -> Quaternion:
    """A rotation about z into the direction of the velocity; none below walking pace."""
    x, y = person.velocity.x, person.velocity.y
    yaw = math.atan2(y, x) if math.hypot(x, y) >= SLOWEST_HEADING_M_S else 0.0
    return Quaternion(x=0.0, y=0.0, z=math.sin(yaw / 2.0), w=math.cos(yaw / 2.0))


try:
    from sensor_msgs_py import point_cloud2
except ImportError:
    point_cloud2 = None

RING_POINTS = 12
RING_HEIGHTS_M = (0.2, 0.8, 1.4)
FLOAT_BYTES = 4
FAR_M = 1000.0  # float32 resolution there is 0.06 mm; at the 5,000,000 m of UTM half a metre


def origin_near(places: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """An origin near cameras at positions [N, 2 or 3], for float32 points: x and y in whole
    metres.

    The map's origin if the middle camera is within FAR_M of it.
    """
    middle = np.median(np.asarray(places, np.float64)[:, :2], axis=0)
    return np.zeros(2) if np.abs(middle).max() <= FAR_M else np.round(middle)


def person_rings(
    xy: ArrayLike, radius_m: float, origin: ArrayLike = (0.0, 0.0)
) -> NDArray[np.float32]:
    """Points float32 [36 N, 3] around N persons at xy [N, 2]: a ring at each of three heights.

    origin: x and y of the frame that the points are in, as `origin_near` finds it.

    Collision zones and obstacle layers require several points for an obstacle.
    """
    places = np.asarray(xy, np.float64).reshape(-1, 1, 1, 2) - np.asarray(origin, np.float64)
    angles = np.arange(RING_POINTS) * (2.0 * np.pi / RING_POINTS)
    circle = radius_m * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.empty((len(places), len(RING_HEIGHTS_M), RING_POINTS, 3), np.float32)
    points[..., :2] = places + circle
    points[..., 2] = np.array(RING_HEIGHTS_M)[:, None]
    return points.reshape(-1, 3)


def cloud_from_points(points: NDArray[np.float32], header: Header) -> PointCloud2:
    """points: float32 [N, 3]. The fields x, y and z are present even without points."""
    if point_cloud2 is not None:
        return point_cloud2.create_cloud_xyz32(header, points)
    return written_cloud(points, header)


def written_cloud(points: NDArray[np.float32], header: Header) -> PointCloud2:
    """As sensor_msgs_py creates it, if that package is not installed."""
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


WATCHED, NOT_COVERED = 0, -1


def coverage_grid(
    known: Sequence[Cells], watched: Sequence[Cells], cell_m: float, header: Header
) -> OccupancyGrid:
    """WATCHED in cells that a camera watches now, NOT_COVERED in all others.

    known: cells [K, 2] of every camera, watched or not: the grid spans all of them, so that it
    does not move when a camera fails.
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
