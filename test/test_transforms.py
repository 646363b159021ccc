# SPDX-License-Identifier: Apache-2.0
"""tracker_node by simulated time in a map far from its origin, one camera's pose given, one in TF.

What needs tf2_ros is left out where it is not installed.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import NEWEST, RELIABLE, Graph, Periodic
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Bool, Header

from roi_codec_ros.config.bringup import ProcessOptions, server_graph, watchdog_graph
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes.conversions import moved_stamp, persons_from_detections, stamp_ns
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.ground import CameraPose

pytestmark = pytest.mark.graph

TF = importlib.util.find_spec("tf2_ros") is not None
needs_tf = pytest.mark.skipif(not TF, reason="tf2_ros is not installed")
EAST_M, NORTH_M = (500_000.0, 5_000_000.0) if TF else (0.0, 0.0)  # UTM
LENS = CameraModel.from_hfov(640, 480, 80.0)
FIXED, MOVING = "fixed", "moving"
POSES = {
    FIXED: (EAST_M, NORTH_M - 5.0, 2.5, 0.0, 0.35, math.pi / 2),
    MOVING: (EAST_M, NORTH_M + 5.0, 2.5, 0.0, 0.35, -math.pi / 2),
}
PERSON = (EAST_M + 0.61, NORTH_M + 0.43)
RATE_HZ = 10.0
TF_LAG_S = 0.1  # transforms come later than images: they have to be waited for
BEGINS_S, LOOP_S = 1000.0, 20.0
LATCHED = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class Recording(Periodic):
    """Plays /clock, persons and, later than these, transforms of the moving camera."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(RATE_HZ)
        make = graph.node.create_publisher
        self.tf = TF
        self.now_s = BEGINS_S
        self._clock = make(Clock, "/clock", RELIABLE)
        self._infos = {n: make(CameraInfo, f"/{n}/anonymized/camera_info", NEWEST) for n in POSES}
        self._persons = {n: make(PersonArray, f"/{n}/persons", RELIABLE) for n in POSES}
        if TF:
            from tf2_msgs.msg import TFMessage

            self._tf = make(TFMessage, "/tf", RELIABLE)

    def step(self) -> None:
        self.now_s += 1.0 / RATE_HZ
        clock = Clock()
        clock.clock = moved_stamp(clock.clock, self.now_s)
        self._clock.publish(clock)
        if self.tf:
            self._say_pose(moved_stamp(clock.clock, -TF_LAG_S))
        for name in POSES:
            self._show(name, clock.clock)

    def _say_pose(self, stamp) -> None:
        from geometry_msgs.msg import TransformStamped
        from tf2_msgs.msg import TFMessage

        from roi_codec_ros.nodes.transforms import quaternion

        pose = CameraPose.from_xyz_rpy(*POSES[MOVING])
        said = TransformStamped(child_frame_id=f"{MOVING}_optical_frame")
        said.header.frame_id, said.header.stamp = "map", stamp
        place, turn = said.transform.translation, said.transform.rotation
        place.x, place.y, place.z = pose.translation.tolist()
        turn.x, turn.y, turn.z, turn.w = quaternion(pose.rotation).tolist()
        self._tf.publish(TFMessage(transforms=[said]))

    def _show(self, name: str, stamp) -> None:
        header = Header(frame_id=f"{name}_optical_frame", stamp=stamp)
        pose = CameraPose.from_xyz_rpy(*POSES[name])
        ends = [[*PERSON, z] for z in (0.0, 1.7)]
        (foot_u, foot_v), (_, head_v) = LENS.project(pose.to_camera(ends))
        seen = Detections.from_arrays(
            [[foot_u - 20.0, head_v, foot_u + 20.0, foot_v]], [0.9], (LENS.height, LENS.width)
        )
        info = CameraInfo(header=header, width=LENS.width, height=LENS.height)
        info.k = LENS.matrix.ravel()
        info.distortion_model = LENS.distortion_model
        self._infos[name].publish(info)
        self._persons[name].publish(
            persons_from_detections(seen, seen.image_size, header, name, 1.0)
        )


@pytest.fixture(scope="module")
def recording(graph) -> Iterator[Recording]:
    pose = f"{FIXED}: {' '.join(map(repr, POSES[FIXED]))}"
    tracker = server_graph(list(POSES), camera_poses=[pose], tf_timeout_s=1.0)[2]
    by_clock = ProcessOptions(use_sim_time="true")
    graph.start(tracker, options=by_clock)
    graph.start(watchdog_graph()[0], options=by_clock)
    recording = Recording(graph)
    recording.start()
    yield recording
    recording.close()


@pytest.fixture
def tracks(graph, recording):
    """The tracks from now on, while all that can be seen is in them."""
    recording.tf = TF
    inbox = graph.listen(PersonArray, "/persons/tracks", RELIABLE, keep=1000)
    graph.wait_for("a track of all cameras", lambda: inbox.last and of_all_cameras(inbox.last))
    yield inbox
    graph.forget(inbox)


def of_all_cameras(message: PersonArray) -> bool:
    cameras = sorted(POSES) if TF else [FIXED]
    return [list(person.cameras) for person in message.persons] == [cameras]


def status(graph, camera: str) -> dict[str, str]:
    return graph.status(f"tracker: {camera}", time.monotonic() - 2.0) or {"message": ""}


def test_persons_are_where_they_are_to_the_centimetre(graph, tracks):
    (person,) = tracks.last.persons

    assert math.dist((person.position.x, person.position.y), PERSON) < 0.01


def test_the_cloud_loses_nothing_to_its_floats(graph, tracks):
    clouds = graph.listen(PointCloud2, "/persons/cloud", RELIABLE)
    cloud = graph.wait_for("a cloud", lambda: clouds.last)
    points = np.frombuffer(bytes(cloud.data), np.float32).reshape(-1, 3).astype(np.float64)
    origin = (0.0, 0.0)
    if TF:
        assert cloud.header.frame_id == "map_persons"
        origin = static(graph, "map_persons").translation
        origin = (origin.x, origin.y)

    away_m = np.hypot(*(points[:, :2] + origin - PERSON).T)
    assert away_m == pytest.approx(np.full(len(points), 0.3), abs=0.01)
    graph.forget(clouds)


def static(graph, frame_id: str):
    """A transform of /tf_static, for a late subscriber."""
    from tf2_msgs.msg import TFMessage

    inbox = graph.listen(TFMessage, "/tf_static", LATCHED)
    found = graph.wait_for(
        f"a static transform of {frame_id}",
        lambda: [t for m in inbox.messages for t in m.transforms if t.child_frame_id == frame_id],
    )
    graph.forget(inbox)
    assert found[-1].header.frame_id == "map"
    return found[-1].transform


@needs_tf
def test_a_pose_that_is_given_is_in_tf(graph, tracks):
    from roi_codec_ros.nodes.transforms import pose_from_transform

    found = pose_from_transform(static(graph, f"{FIXED}_optical_frame"))
    given = CameraPose.from_xyz_rpy(*POSES[FIXED])

    assert found.translation == pytest.approx(given.translation, abs=1e-6)
    assert found.rotation == pytest.approx(given.rotation, abs=1e-9)


@needs_tf
def test_a_camera_whose_transforms_stay_away_is_named_and_comes_back(graph, tracks, recording):
    recording.tf = False
    named = graph.wait_for(
        "extrapolation",
        lambda: "TF's newest to be" in (s := status(graph, MOVING))["message"] and s,
    )
    assert "expected a transform of moving_optical_frame in map" in named["message"]
    assert int(named["left_out.extrapolation"]) > 0

    recording.tf = True
    before = tracks.count
    graph.wait_for("both again", lambda: tracks.count > before and of_all_cameras(tracks.last))


def test_a_recording_that_begins_again_is_followed_by_every_node(graph, tracks, recording):
    stop = graph.listen(Bool, "/person_watchdog/stop", RELIABLE)
    graph.wait_for("the robot to be let go", lambda: stop.last and not stop.last.data)
    recording.now_s -= LOOP_S  # more than TF remembers: it would take nothing of that time
    again_ns = int(recording.now_s * 1e9)

    graph.wait_for(
        "tracks of that time",
        lambda: (
            stamp_ns(tracks.last.header) < again_ns + LOOP_S * 9e8 and of_all_cameras(tracks.last)
        ),
    )
    graph.wait_for("the robot to be let go", lambda: not stop.last.data)
    graph.forget(stop)
