# SPDX-License-Identifier: Apache-2.0
"""tracker_node as a process: two cameras that face each other across a hall, over DDS.

No pixels are needed: boxes are where the lenses would put people who stand at known places.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseArray
from graph_harness import NEWEST, RELIABLE, Graph, Periodic
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Bool, Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from roi_codec_ros.config.bringup import server_graph, watchdog_graph
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes.conversions import persons_from_detections, stamp_ns
from roi_codec_ros.nodes.map_messages import RING_HEIGHTS_M, RING_POINTS
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.ground import CameraPose

pytestmark = pytest.mark.graph

ROOT = Path(__file__).resolve().parents[1]
SNIPPETS = yaml.safe_load((ROOT / "config" / "nav2_persons.yaml").read_text(encoding="utf-8"))
LENS = CameraModel.from_hfov(640, 480, 80.0)
POSES = {  # metres and radians; south and north look at each other
    "south": (0.0, -5.0, 2.5, 0.0, 0.35, math.pi / 2),
    "north": (0.0, 5.0, 2.5, 0.0, 0.35, -math.pi / 2),
}
LOOSE = "loose"  # a camera that nobody knows the place of
PEOPLE = ((0.6, 0.4), (-1.6, -0.6), (1.7, 1.2))
HEIGHT_M = 1.7
SCORE = 0.9
RATE_HZ = 12.0
STALE_S = 1.0
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def boxes(people, pose) -> Detections:
    """Where the lens puts people: their feet in the middle of a box's lower edge."""
    places = np.reshape(people, (-1, 2))
    feet, heads = (
        LENS.project(pose.to_camera(np.column_stack([places, np.full(len(places), z)])))
        for z in (0.0, HEIGHT_M)
    )
    half = 0.2 * (feet[:, 1] - heads[:, 1])
    xyxy = np.column_stack([feet[:, 0] - half, heads[:, 1], feet[:, 0] + half, feet[:, 1]])
    return Detections.from_arrays(xyxy, np.full(len(places), SCORE), (LENS.height, LENS.width))


class Hall(Periodic):
    """Stands in for encoders and detector: publishes what the lit cameras see."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(RATE_HZ)
        self.people: tuple[tuple[float, float], ...] = PEOPLE
        self.lit: set[str] = set(POSES)
        self.stamps: list[int] = []
        self._node = graph.node
        self._poses = {name: CameraPose.from_xyz_rpy(*pose) for name, pose in POSES.items()}
        names = [*POSES, LOOSE]
        make = graph.node.create_publisher
        self._infos = {
            name: make(CameraInfo, f"/{name}/anonymized/camera_info", NEWEST) for name in names
        }
        self._persons = {name: make(PersonArray, f"/{name}/persons", RELIABLE) for name in names}
        self.start()

    def step(self) -> None:
        for name in sorted(self.lit):
            self._show(name)

    def _show(self, name: str) -> None:
        header = Header(frame_id=f"{name}_optical_frame")
        header.stamp = self._node.get_clock().now().to_msg()
        self.stamps.append(stamp_ns(header))
        pose = self._poses.get(name, self._poses["south"])
        info = CameraInfo(header=header, width=LENS.width, height=LENS.height)
        info.k = LENS.matrix.ravel()
        info.distortion_model = LENS.distortion_model
        self._infos[name].publish(info)
        seen = boxes(self.people, pose)
        self._persons[name].publish(
            persons_from_detections(seen, seen.image_size, header, name, 1.0)
        )


def tracker_spec(**overrides):
    poses = [f"{name}: {' '.join(map(str, pose))}" for name, pose in POSES.items()]
    given = {"camera_poses": poses, "stale_after_s": STALE_S, "max_range_m": 9.0, **overrides}
    return server_graph([*POSES, LOOSE], **given)[2]


@pytest.fixture(scope="module")
def tracker(graph):
    return graph.start(tracker_spec())


@pytest.fixture(scope="module")
def lasting_hall(graph) -> Iterator[Hall]:
    hall = Hall(graph)
    yield hall
    hall.close()


@pytest.fixture
def hall(graph, tracker, lasting_hall) -> Hall:
    """Both cameras lit, everybody there, and the tracker at work."""
    lasting_hall.people, lasting_hall.lit = PEOPLE, set(POSES)
    tracks = graph.listen(PersonArray, "/persons/tracks", RELIABLE)
    graph.wait_for("everybody", lambda: tracks.last and len(tracks.last.persons) == len(PEOPLE))
    graph.wait_for("OK", lambda: level(graph) == "OK")
    graph.forget(tracks)
    return lasting_hall


def level(graph, name="tracker: map"):
    status = graph.status(name, newer_than_s=time.monotonic() - 2.5)
    return status["level"] if status else None


def value_at(grid, x, y):
    column = math.floor((x - grid.info.origin.position.x) / grid.info.resolution)
    row = math.floor((y - grid.info.origin.position.y) / grid.info.resolution)
    return grid.data[row * grid.info.width + column]


def test_each_person_is_one_track_near_the_truth(graph, hall):
    tracks = graph.listen(PersonArray, "/persons/tracks", RELIABLE)
    poses = graph.listen(PoseArray, "/persons/poses", RELIABLE)
    graph.wait_for("a second of tracks", lambda: tracks.count >= RATE_HZ and poses.last)

    for message in tracks.messages:
        assert (message.header.frame_id, message.camera) == ("map", "")
        assert len(message.persons) == len(PEOPLE)
        assert len({person.track_id for person in message.persons}) == len(PEOPLE)
        for place in PEOPLE:
            nearest = min(math.dist(place, (p.position.x, p.position.y)) for p in message.persons)
            assert nearest < 0.3
    last = tracks.last
    assert all(person.cameras == ["north", "south"] for person in last.persons)
    assert all(person.track_id > 0 and person.position_valid for person in last.persons)
    assert poses.last.header.frame_id == "map"
    assert len(poses.last.poses) == len(PEOPLE)
    now_ns = stamp_ns(last.header)
    for person in last.persons:
        variance = person.velocity_covariance
        assert variance[0] > 0
        assert variance[3] > 0
        assert person.score == pytest.approx(SCORE)
        assert person.body_height_m == pytest.approx(1.7, abs=0.3)
        assert person.age_s > 0.3
        seen_ns = person.last_seen.sec * 10**9 + person.last_seen.nanosec
        assert now_ns - 10**9 < seen_ns <= now_ns
    graph.forget(tracks)
    graph.forget(poses)


def test_the_cloud_rings_everybody_under_the_newest_stamp(graph, hall):
    clouds = graph.listen(PointCloud2, "/persons/cloud", RELIABLE)
    graph.wait_for("clouds", lambda: clouds.count >= 10)

    stamps = [stamp_ns(cloud.header) for cloud in clouds.messages]
    assert stamps == sorted(set(stamps))
    assert set(stamps) <= set(hall.stamps)
    cloud = clouds.last
    assert cloud.header.frame_id == "map"
    assert cloud.width == len(PEOPLE) * RING_POINTS * len(RING_HEIGHTS_M)
    points = np.frombuffer(bytes(cloud.data), np.float32).reshape(-1, 3)
    away = np.linalg.norm(points[:, None, :2] - np.array(PEOPLE), axis=2).min(axis=1)
    assert away == pytest.approx(np.full(len(points), 0.3), abs=0.3)
    graph.forget(clouds)


def test_markers_show_people_and_cameras(graph, hall):
    markers = graph.listen(MarkerArray, "/persons/markers", RELIABLE)

    shown = graph.wait_for("markers", lambda: markers.last).markers

    assert {marker.header.frame_id for marker in shown} == {"map"}
    assert len([marker for marker in shown if marker.ns == "persons"]) == len(PEOPLE)
    assert {m.text for m in shown if m.ns == "cameras/text"} == set(POSES)
    graph.forget(markers)


def test_nobody_is_an_empty_fresh_cloud(graph, hall):
    clouds = graph.listen(PointCloud2, "/persons/cloud", RELIABLE)
    hall.people = ()
    left_ns = hall.stamps[-1]

    cloud = graph.wait_for(
        "empty cloud", lambda: clouds.last and not clouds.last.width and clouds.last
    )
    before = clouds.count
    graph.wait_for("more of them", lambda: clouds.count >= before + 5)

    assert [field.name for field in cloud.fields] == ["x", "y", "z"]
    assert cloud.point_step == 12
    assert stamp_ns(cloud.header) > left_ns
    assert not any(cloud.width for cloud in clouds.messages[-5:])
    graph.forget(clouds)


def test_the_snippets_for_nav2_fit_what_is_published(graph, hall):
    kinds = dict(graph.node.get_topic_names_and_types())
    monitor = SNIPPETS["collision_monitor"]["ros__parameters"]
    layer = SNIPPETS["local_costmap"]["local_costmap"]["ros__parameters"]["persons_layer"]
    ages_s = []

    def note_age(cloud):
        now_ns = graph.node.get_clock().now().nanoseconds
        ages_s.append((now_ns - stamp_ns(cloud.header)) / 1e9)

    topic = monitor["persons"]["topic"]
    subscription = graph.node.create_subscription(PointCloud2, topic, note_age, RELIABLE)
    graph.wait_for("two seconds of clouds", lambda: len(ages_s) >= 2 * RATE_HZ)
    graph.node.destroy_subscription(subscription)

    assert monitor["persons"]["type"] == "pointcloud"
    assert layer["persons"]["data_type"] == "PointCloud2"
    assert layer["persons"]["topic"] == topic
    assert kinds[topic] == ["sensor_msgs/msg/PointCloud2"]
    assert max(ages_s) < monitor["persons"]["source_timeout"] == monitor["source_timeout"]


def test_a_camera_that_goes_dark_leaves_the_coverage_and_is_named(graph, hall):
    grids = graph.listen(OccupancyGrid, "/persons/coverage", LATCHED)
    clouds = graph.listen(PointCloud2, "/persons/cloud", RELIABLE)
    near_south, near_north = (0.0, -3.6), (0.0, 3.6)  # each below the image of the nearer camera

    def watched():
        grid = grids.last
        return grid and (value_at(grid, *near_south), value_at(grid, *near_north))

    graph.wait_for("both watched", lambda: watched() == (0, 0))
    full = grids.last
    hall.lit = {"south"}
    graph.wait_for("a smaller coverage", lambda: watched() == (-1, 0))
    graph.wait_for("WARN", lambda: level(graph) == "WARN")
    before = clouds.count
    graph.wait_for("clouds of the other camera", lambda: clouds.count >= before + 5)

    assert list(grids.last.data).count(0) < list(full.data).count(0)
    assert grids.last.info.origin == full.info.origin
    assert grids.last.header.frame_id == "map"
    status = graph.status("tracker: map")
    assert "north: nothing from the detector" in status["message"]
    assert status["watching"] == "south"
    assert level(graph, "tracker: north") == "STALE"
    assert clouds.last.width == len(PEOPLE) * RING_POINTS * len(RING_HEIGHTS_M)
    graph.forget(grids)
    graph.forget(clouds)


def test_blind_is_silence_and_a_reason_and_light_ends_it(graph, hall):
    cloud, tracks, poses = (
        graph.listen(kind, f"/persons/{name}", RELIABLE)
        for kind, name in ((PointCloud2, "cloud"), (PersonArray, "tracks"), (PoseArray, "poses"))
    )
    graph.wait_for("a cloud", lambda: cloud.last)
    hall.lit = set()
    status = graph.wait_for(
        "ERROR", lambda: level(graph) == "ERROR" and graph.status("tracker: map")
    )
    before = [inbox.count for inbox in (cloud, tracks, poses)]
    late = graph.listen(OccupancyGrid, "/persons/coverage", LATCHED)
    grid = graph.wait_for("coverage for a late subscriber", lambda: late.last)
    graph.wait_for("its last word", lambda: 0 not in late.last.data)
    newer_than_s = time.monotonic() + 1.0  # two more rounds of diagnostics
    graph.wait_for("time to pass", lambda: graph.status("tracker: map", newer_than_s))

    assert [inbox.count for inbox in (cloud, tracks, poses)] == before
    assert len(grid.data) > 0
    assert all(name in status["message"] for name in POSES)

    hall.lit = set(POSES)
    graph.wait_for("clouds again", lambda: cloud.count > before[0])
    for inbox in (cloud, tracks, poses, late):
        graph.forget(inbox)


def test_health_says_which_cameras_are_blind_also_to_who_comes_late(graph, hall):
    hall.lit = {"north"}

    def blind():
        inbox = graph.listen(DiagnosticArray, "/persons/health", LATCHED, keep=1)
        graph.wait_for("health", lambda: inbox.last)
        found = {status.name.removeprefix("tracker: "): status for status in inbox.last.status}
        graph.forget(inbox)
        return found if found["south"].level == DiagnosticStatus.ERROR else None

    found = graph.wait_for("south to be blind", blind)

    assert found["north"].level == DiagnosticStatus.OK
    assert found["south"].message.startswith("blind: ")
    assert {pair.key: pair.value for pair in found["south"].values} == {"watching": "false"}
    hall.lit = set(POSES)


def test_tracks_that_are_reset_begin_anew_under_other_numbers(graph, hall):
    tracks = graph.listen(PersonArray, "/persons/tracks", RELIABLE)
    graph.wait_for("tracks", lambda: tracks.last and tracks.last.persons)
    before = {person.track_id for person in tracks.last.persons}

    answer = graph.call(Trigger, "/tracker/reset_tracks", Trigger.Request())

    assert answer.success
    graph.wait_for(
        "everybody under other numbers",
        lambda: (
            {p.track_id for p in tracks.last.persons} - before
            and len({p.track_id for p in tracks.last.persons} - before) == len(PEOPLE)
        ),
    )
    assert min(p.track_id for p in tracks.last.persons) > max(before)
    graph.forget(tracks)


def test_a_whole_number_is_taken_for_a_double_while_the_node_runs(graph, hall):
    if os.environ.get("ROS_DISTRO") == "humble":
        pytest.skip("ROS 2 Humble refuses it before the node is asked")

    (taken,) = graph.set_parameters("/tracker", person_height_m=2)
    (refused,) = graph.set_parameters("/tracker", person_height_m=9)
    graph.set_parameters("/tracker", person_height_m=1.7)

    assert taken.successful, taken.reason
    assert not refused.successful


def test_a_camera_without_a_pose_stays_in_its_optical_frame(graph, hall):
    tracks = graph.listen(PersonArray, "/persons/tracks", RELIABLE)
    unplaced = graph.listen(PersonArray, "/persons/unplaced", RELIABLE)
    hall.lit = {*POSES, LOOSE}

    def own():
        return next((message for message in unplaced.messages if message.camera == LOOSE), None)

    message = graph.wait_for("tracks of the camera without a pose", own)
    graph.wait_for("WARN", lambda: level(graph, f"tracker: {LOOSE}") == "WARN")

    assert message.header.frame_id == f"{LOOSE}_optical_frame"
    assert all(person.position.z > 0 and person.track_id == 0 for person in message.persons)
    assert {(m.header.frame_id, m.camera) for m in tracks.messages} == {("map", "")}
    assert all(LOOSE not in person.cameras for m in tracks.messages for person in m.persons)
    assert "not in the map" in graph.status(f"tracker: {LOOSE}")["message"]
    graph.forget(tracks)
    graph.forget(unplaced)


def test_cameras_come_and_go_while_the_tracker_runs(graph, hall):
    health = graph.listen(DiagnosticArray, "/persons/health", LATCHED, keep=1)
    tracks = graph.listen(PersonArray, "/persons/tracks", RELIABLE)
    graph.wait_for("tracks", lambda: tracks.last)
    numbers = {person.track_id for person in tracks.last.persons}

    def cameras():
        return health.last and [status.hardware_id for status in health.last.status]

    (taken,) = graph.set_parameters("/tracker", cameras=["south"])
    assert taken.successful, taken.reason
    graph.wait_for("one camera", lambda: cameras() == ["south"])
    graph.wait_for("its tracks alone", lambda: seen_by(tracks.last) == {"south"})
    assert {person.track_id for person in tracks.last.persons} <= numbers  # nobody is lost

    (refused,) = graph.set_parameters("/tracker", cameras=["south", "south"])
    assert "expected different camera names" in refused.reason

    graph.set_parameters("/tracker", cameras=["south", "north", LOOSE])
    graph.wait_for("all cameras", lambda: cameras() == ["south", "north", LOOSE])
    graph.wait_for("tracks of both", lambda: seen_by(tracks.last) == {"south", "north"})
    assert graph.wait_for("OK", lambda: level(graph) == "OK")
    graph.forget(health)
    graph.forget(tracks)


def seen_by(message: PersonArray) -> set[str]:
    return {camera for person in message.persons for camera in person.cameras}


def test_the_watchdog_stops_a_robot_while_a_lens_is_covered(graph, hall):
    (spec,) = watchdog_graph(required_cameras=["south"], base_frame="robot")
    process = graph.start(spec)
    stop = graph.listen(Bool, "/person_watchdog/stop", RELIABLE)
    obstacles = graph.listen(PointCloud2, "/person_watchdog/obstacles", RELIABLE)
    graph.wait_for("the robot to be let go", lambda: stop.last and not stop.last.data)
    graph.wait_for("no obstacle", lambda: obstacles.last and obstacles.last.width == 0)

    hall.lit = {"north"}  # the cloud goes on, of what north sees
    graph.wait_for("a stop", lambda: stop.last.data)
    ring = graph.wait_for("a ring", lambda: obstacles.last.width and obstacles.last)
    status = graph.wait_for(
        "ERROR",
        lambda: (s := graph.status("person_watchdog: watchdog"))["level"] == "ERROR" and s,
    )
    assert ring.header.frame_id == "robot"
    assert ring.width == 3 * RING_POINTS
    assert "stop: south: blind: " in status["message"]

    hall.lit = set()
    status = graph.wait_for(
        "the cloud to be missed",
        lambda: (
            "persons/cloud" in (s := graph.status("person_watchdog: watchdog"))["message"] and s
        ),
    )
    assert stop.last.data
    hall.lit = set(POSES)
    graph.wait_for("the robot to be let go again", lambda: not stop.last.data)
    graph.forget(stop)
    graph.forget(obstacles)
    assert process.stop(signal.SIGINT)[0] == 0


def test_a_camera_whose_lens_is_not_known_is_blind_and_says_so(graph, hall):
    spec = server_graph(["west"], camera_poses=["west: 0 0 2 0 0.3 0"])[2]
    process = graph.start(replace(spec, name="second"))
    publisher = graph.node.create_publisher(PersonArray, "/west/persons", RELIABLE)
    header = Header(frame_id="west_optical_frame")
    seen = boxes(PEOPLE, CameraPose.from_xyz_rpy(*POSES["south"]))

    def refused():
        header.stamp = graph.node.get_clock().now().to_msg()
        publisher.publish(persons_from_detections(seen, seen.image_size, header, "west", 1.0))
        status = graph.status("second: map")
        return status if status and "camera_info" in status["message"] else None

    status = graph.wait_for("the reason", refused)

    assert status["level"] == "ERROR"
    assert status["frames"] == "0"
    assert graph.status("second: west")["message"].endswith(
        "nothing on west/anonymized/camera_info yet"
    )
    graph.node.destroy_publisher(publisher)
    assert process.stop(signal.SIGTERM)[0] == 0


def test_poses_that_can_not_be_are_refused_in_one_line(graph):
    refused = {
        "camera_poses: expected six numbers": graph.start(
            tracker_spec(camera_poses=["south: 1 2 3"])
        ),
        "camera_poses: expected cameras among": graph.start(
            tracker_spec(camera_poses=["west: 0 0 2 0 0 0"])
        ),
    }

    for sentence, process in refused.items():
        graph.wait_for("its end", lambda process=process: process.process.poll() is not None)
        assert process.process.returncode == 2
        assert sentence in process.log
        assert "Traceback" not in process.log


def test_it_ends_cleanly(graph, hall, tracker):
    """Last: it takes the tracker down."""
    assert tracker.stop(signal.SIGTERM)[0] == 0
    assert "Traceback" not in tracker.log
