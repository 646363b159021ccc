# SPDX-License-Identifier: Apache-2.0
"""What the tracker says of people in the map: clouds, tracks, poses, markers, coverage, poses."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Transform
from sensor_msgs.msg import PointField
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from roi_codec_ros.nodes import transforms
from roi_codec_ros.nodes.map_messages import (
    NOT_COVERED,
    RING_HEIGHTS_M,
    RING_POINTS,
    WATCHED,
    cloud_from_points,
    coverage_grid,
    origin_near,
    person_rings,
    persons_from_tracks,
    poses_from_persons,
    written_cloud,
)
from roi_codec_ros.nodes.markers import map_markers
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose
from roi_codec_ros.perception.tracking import Tracker, TrackerSettings
from roi_codec_ros.perception.views import GroundView

HEADER = Header(frame_id="map", stamp=Time(sec=7, nanosec=5))
CAMERA = CameraModel.from_hfov(640, 480, 80.0)
POSE = CameraPose.from_xyz_rpy(1.0, -5.0, 2.5, 0.0, 0.35, math.pi / 2)


def xyz(cloud) -> np.ndarray:
    """Points of a cloud by its own description of its fields."""
    kind = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": ["<f4"] * len(cloud.fields),
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    table = np.frombuffer(bytes(cloud.data), kind)
    return np.stack([table[name] for name in "xyz"], axis=1)


@pytest.fixture
def tracks():
    """Two persons at 3 s: one walks along y at 1 m/s, the other stands."""
    tracker = Tracker(TrackerSettings(birth_hits=2, birth_s=0.0))
    for step in range(31):
        places = [[1.0, step / 10], [4.0, -2.0]]
        tracker.update("front" if step % 2 else "back", step / 10, places, [np.eye(2) * 0.01] * 2)
    return tracker.tracks(3.0)


# Clouds


def test_a_person_is_a_ring_of_points_at_several_heights():
    points = person_rings([[2.0, -1.0], [5.0, 5.0]], 0.3)

    assert points.shape == (2 * RING_POINTS * len(RING_HEIGHTS_M), 3)
    first = points[: len(points) // 2]
    away = np.hypot(first[:, 0] - 2.0, first[:, 1] + 1.0)
    assert away == pytest.approx(np.full(len(first), 0.3), abs=1e-5)
    heights, counts = np.unique(first[:, 2], return_counts=True)
    assert heights == pytest.approx(RING_HEIGHTS_M)
    assert set(counts) == {RING_POINTS}
    assert len(np.unique(first, axis=0)) == len(first)


@pytest.mark.parametrize("make", [cloud_from_points, written_cloud])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_cloud_has_its_fields_whether_anybody_is_there_or_not(make, count):
    points = person_rings(np.arange(2 * count).reshape(-1, 2), 0.3)

    cloud = make(points, HEADER)

    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("x", 0, PointField.FLOAT32, 1),
        ("y", 4, PointField.FLOAT32, 1),
        ("z", 8, PointField.FLOAT32, 1),
    ]
    assert (cloud.height, cloud.width, cloud.point_step) == (1, len(points), 12)
    assert cloud.row_step == len(cloud.data) == 12 * len(points)
    assert not cloud.is_bigendian
    assert cloud.header == HEADER
    assert xyz(cloud) == pytest.approx(points)


def test_the_cloud_is_that_of_sensor_msgs_py():
    reference = pytest.importorskip("sensor_msgs_py.point_cloud2")
    for count in (0, 2):
        points = person_rings(np.arange(2 * count).reshape(-1, 2), 0.3)
        assert written_cloud(points, HEADER) == reference.create_cloud_xyz32(HEADER, points)


# Tracks and poses


def test_tracks_say_who_is_where_and_how_sure_that_is(tracks):
    message = persons_from_tracks(tracks, HEADER)

    assert (message.header, message.camera, message.image_width) == (HEADER, "", 0)
    walker, stander = sorted(message.persons, key=lambda person: person.position.x)
    assert {walker.track_id, stander.track_id} == {1, 2}
    assert walker.position_valid
    assert (walker.position.x, walker.position.y) == pytest.approx((1.0, 3.0), abs=0.1)
    assert (walker.velocity.x, walker.velocity.y) == pytest.approx((0.0, 1.0), abs=0.2)
    assert walker.cameras == ["back", "front"]
    covariance = np.reshape(walker.position_covariance, (2, 2))
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_who_walks_looks_ahead(tracks):
    persons = persons_from_tracks(tracks, HEADER)
    poses = poses_from_persons(persons)

    assert poses.header == HEADER
    walker, stander = sorted(poses.poses, key=lambda pose: pose.position.x)
    quarter = math.sqrt(0.5)
    assert (walker.orientation.z, walker.orientation.w) == pytest.approx(
        (quarter, quarter), abs=0.1
    )
    assert (stander.orientation.z, stander.orientation.w) == (0.0, 1.0)


def test_vision_msgs_boxes_stand_on_the_ground(tracks):
    pytest.importorskip("vision_msgs.msg")
    from roi_codec_ros.nodes.vision import detection_array_3d

    boxes = detection_array_3d(persons_from_tracks(tracks, HEADER), 1.8, 0.6).detections

    assert [box.bbox.center.position.z for box in boxes] == [0.9, 0.9]


# Markers


def test_markers_in_the_map_stand_upright_and_expire(tracks):
    persons = persons_from_tracks(tracks, HEADER)
    view = GroundView(CAMERA, POSE, 10.0)

    markers = map_markers(
        persons, [("front", view, True), ("back", view, False)], 1.8, 0.5
    ).markers

    assert {m.header.frame_id for m in markers} == {"map"}
    assert {(m.lifetime.sec, m.lifetime.nanosec) for m in markers} == {(0, 500_000_000)}
    assert len({(m.ns, m.id) for m in markers}) == len(markers)
    bodies = [m for m in markers if m.ns == "persons"]
    assert {m.id for m in bodies} == {1, 2}
    assert {m.pose.position.z for m in bodies} == {0.9}
    assert {m.pose.orientation.w for m in bodies} == {1.0}
    assert {m.text for m in markers if m.ns == "persons/text"} == {"1", "2"}


def test_only_who_moves_has_an_arrow(tracks):
    persons = persons_from_tracks(tracks, HEADER)

    arrows = [m for m in map_markers(persons, [], 1.8, 0.5).markers if m.type == Marker.ARROW]

    (arrow,) = arrows
    tail, head = arrow.points
    assert (head.x - tail.x, head.y - tail.y) == pytest.approx((0.0, 1.0), abs=0.2)


def test_a_view_cone_begins_at_the_camera_and_opens_ahead_of_it():
    view = GroundView(CAMERA, POSE, 10.0)
    persons = persons_from_tracks(Tracker().tracks(0.0), HEADER)

    cones = {
        m.id: m
        for m in map_markers(persons, [("a", view, True), ("b", view, False)], 1.8, 0.5).markers
        if m.type == Marker.LINE_LIST
    }

    points = np.array([[p.x, p.y, p.z] for p in cones[0].points])
    assert points[0] == pytest.approx([1.0, -5.0, 2.5])
    assert (points[1::2, 1] > -5.0).all()  # it looks along y
    assert cones[0].color != cones[1].color


# Coverage


def grid_at(grid, x, y):
    column = math.floor((x - grid.info.origin.position.x) / grid.info.resolution)
    row = math.floor((y - grid.info.origin.position.y) / grid.info.resolution)
    return grid.data[row * grid.info.width + column]


def test_coverage_tells_what_is_watched_now():
    ahead = GroundView(CAMERA, POSE, 9.0)
    back = GroundView(CAMERA, CameraPose.from_xyz_rpy(1, 5, 2.5, 0, 0.35, -math.pi / 2), 9.0)

    both = coverage_grid([ahead.cells, back.cells], [ahead.cells, back.cells], 0.25, HEADER)
    one = coverage_grid([ahead.cells, back.cells], [ahead.cells], 0.25, HEADER)

    assert (both.info.width, both.info.height) == (one.info.width, one.info.height)
    assert both.info.origin == one.info.origin
    assert grid_at(both, 1.0, 0.0) == grid_at(one, 1.0, 0.0) == WATCHED
    # Below the image of the first camera only the second one looks.
    assert grid_at(both, 1.0, -3.6) == WATCHED
    assert grid_at(one, 1.0, -3.6) == NOT_COVERED
    assert set(one.data) == {WATCHED, NOT_COVERED}
    assert list(one.data).count(WATCHED) < list(both.data).count(WATCHED)


def test_coverage_of_no_camera_is_an_empty_grid():
    grid = coverage_grid([], [], 0.25, HEADER)

    assert (grid.info.width, grid.info.height, len(grid.data)) == (0, 0, 0)


# TF

QUATERNION = (-math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5))  # of an optical frame that looks along y


def transform():
    message = Transform()
    message.translation.x, message.translation.y, message.translation.z = 1.0, 2.0, 3.0
    q = message.rotation
    q.x, q.y, q.z, q.w = QUATERNION
    return message


def test_a_pose_from_tf_is_that_of_the_parameters():
    found = transforms.pose_from_transform(transform())
    given = CameraPose.from_xyz_rpy(1.0, 2.0, 3.0, 0.0, 0.0, math.pi / 2)

    assert found.rotation == pytest.approx(given.rotation)
    assert found.translation == pytest.approx(given.translation)


@pytest.mark.parametrize("angles", [(0, 0, 0), (3, 0.1, -3), (-1.5, 1.5, 3.1), (math.pi, 0, 0)])
def test_a_pose_into_tf_and_back_is_the_same(angles):
    pose = CameraPose.from_xyz_rpy(1.0, 2.0, 3.0, *angles)

    x, y, z, w = transforms.quaternion(pose.rotation)

    assert w >= 0
    assert CameraPose.from_transform([1, 2, 3], [x, y, z, w]).rotation == pytest.approx(
        pose.rotation, abs=1e-12
    )


# Far from the map's origin


def test_a_map_near_its_origin_keeps_its_frame_whatever_one_camera_says():
    assert origin_near([(900.0, 0.0, 3.0), (-900.0, 0.0, 3.0), (1e7, 0.0, 3.0)]).tolist() == [0, 0]


@pytest.mark.parametrize("place", [(500_000.37, 5_000_000.61), (-123_456.78, 3_999_999.99)])
def test_rings_in_a_frame_near_the_cameras_lose_no_centimetre(place):
    origin = origin_near([(*place, 3.0)])

    points = person_rings([place], 0.3, origin).astype(np.float64)

    away_m = np.hypot(*(points[:, :2] + origin - place).T)
    assert away_m == pytest.approx(np.full(len(points), 0.3), abs=1e-5)
