# SPDX-License-Identifier: Apache-2.0
"""tracker_node as a process: cameras that cannot say where people are say nothing, over DDS.

No pixels are needed. Every camera's lens is published once, before the tracker is there, and kept
for it, as drivers do that have nothing new to say.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import RELIABLE, Graph, Periodic
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import OccupancyGrid
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, PointCloud2

from roi_codec_ros.config.bringup import server_graph
from roi_codec_ros.msg import Person, PersonArray
from roi_codec_ros.nodes.conversions import stamp_ns

pytestmark = pytest.mark.graph

RATE_HZ = 4.0
POSES = {  # x forward, y left, z up; metres and radians
    "a": "0 0 3 0 0.4 0",
    "b": "0 2 3 0 0.4 0",
    "c": "0 4 3 0 0.4 0",
    "below": "0 0 -3 0 0.4 0",
    "above": "0 0 3 0 -0.5 0",
    "millimetres": "0 0 3000 0 0.4 0",
    "body": "0 0 3 0 -1.57 0",  # TF's body frame in place of the optical one: it looks up
    "optical": "0 0 3 -1.57 0 -1.57",  # the optical frame's angles in place of the body's
    "tilted": "0 0 3 0 -0.2 0",  # sees floor below, and people above the horizon
    "decimetres": "0 0 0.3 0 0.4 0",  # a decimal point too far: everybody is placed, too near
    "mistyped": "10000000 0 3 0 0.4 0",
}
SEE_NO_FLOOR = {"below", "above", "millimetres", "body"}
WRONG = {*SEE_NO_FLOOR, "optical", "tilted", "decimetres"}
MIDDLE = (300.0, 200.0, 40.0, 120.0)  # x, y, width, height of a person in the image's middle
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def now_s() -> float:
    return time.time_ns() / 1e9


class Detectors(Periodic):
    """Stands in for encoders and detector: the lit cameras each show people at RATE_HZ.

    stamp_s: of a camera's next frame.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__(RATE_HZ)
        self.lit: set[str] = set()
        self.people = (MIDDLE,)
        self.unknown_rows = (0, 0)  # of 12, first and end: where pictures are not known yet
        self.stamp_s: Callable[[str], float] = lambda camera: now_s()
        self._infos = []
        self._persons = {}
        for name in POSES:
            publisher = graph.node.create_publisher(
                CameraInfo, f"/{name}/anonymized/camera_info", LATCHED
            )
            info = CameraInfo(width=640, height=480, distortion_model="plumb_bob", d=[0.0] * 5)
            info.k = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]
            publisher.publish(info)
            self._infos.append(publisher)
            self._persons[name] = graph.node.create_publisher(
                PersonArray, f"/{name}/persons", RELIABLE
            )

    def send(self, camera: str, stamp_s: float) -> None:
        message = PersonArray(camera=camera, image_width=640, image_height=480)
        message.header.frame_id = f"{camera}_optical_frame"
        stamp = divmod(round(stamp_s * 1e9), 10**9)
        message.header.stamp.sec, message.header.stamp.nanosec = stamp
        message.persons = [
            Person(score=0.9, x=x, y=y, width=width, height=height)
            for x, y, width, height in self.people
        ]
        first, end = self.unknown_rows
        if end > first:
            message.unknown_columns = 4
            message.unknown = [int(first <= row < end) for row in range(12) for _ in range(4)]
        self._persons[camera].publish(message)

    def step(self) -> None:
        for camera in sorted(self.lit):
            self.send(camera, self.stamp_s(camera))


@pytest.fixture(scope="module")
def detectors(graph) -> Iterator[Detectors]:
    detectors = Detectors(graph)
    yield detectors
    detectors.close()


@pytest.fixture(scope="module")
def tracker(graph, detectors):
    poses = [f"{name}: {pose}" for name, pose in POSES.items()]
    specs = server_graph(list(POSES), camera_poses=poses, stale_after_s=1.0)
    process = graph.start(next(s for s in specs if s.executable == "tracker_node"))
    graph.wait_for("its diagnostics", lambda: graph.status("tracker: map"))
    detectors.start()
    return process


@pytest.fixture
def clouds(graph, tracker, detectors):
    """The clouds from now on, with three good cameras lit."""
    detectors.people, detectors.stamp_s = (MIDDLE,), lambda camera: now_s()
    detectors.unknown_rows = (0, 0)
    detectors.lit = {"a", "b", "c"}
    inbox = graph.listen(PointCloud2, "/persons/cloud", RELIABLE, keep=1000)
    graph.wait_for("a cloud of now", lambda: inbox.last and age_s(inbox.last) < 1.0)
    rounds(graph, 1)
    graph.wait_for("three cameras", lambda: status(graph).get("watching") == "a, b, c")
    yield inbox
    graph.forget(inbox)


def status(graph, subject: str = "map") -> dict[str, str]:
    """The last status of the tracker's subject, if it is of now."""
    return graph.status(f"tracker: {subject}", time.monotonic() - 2.0) or {}


def level(graph, subject: str = "map") -> str:
    return status(graph, subject).get("level", "")


def age_s(cloud: PointCloud2) -> float:
    return now_s() - stamp_ns(cloud.header) / 1e9


def said_since(clouds, then_ns: int) -> list[int]:
    """Stamps of clouds of frames that were sent after a time; others may still be on their way."""
    stamps = [stamp_ns(cloud.header) for cloud in clouds.messages]
    return [stamp for stamp in stamps if stamp > then_ns]


def rounds(graph, count: int = 2) -> None:
    """Wait until the diagnostics have come so often."""
    for _ in range(count):
        since_s = time.monotonic()
        graph.wait_for(
            "diagnostics", lambda since_s=since_s: graph.status("tracker: map", since_s)
        )


def test_cameras_that_place_nobody_are_blind_and_silent(graph, clouds, detectors):
    detectors.lit = WRONG
    graph.wait_for("ERROR", lambda: level(graph) == "ERROR")
    rounds(graph, 3)  # what waited before is through
    graph.wait_for("ERROR to stay", lambda: level(graph) == "ERROR")
    blind_ns = time.time_ns()
    rounds(graph)

    assert "found some of 0.1" in status(graph, "decimetres")["message"]
    message = status(graph)["message"]
    assert not said_since(clouds, blind_ns)
    assert message.startswith("blind, nothing published in map: ")
    reasons = {name: status(graph, name)["message"] for name in WRONG}
    assert "camera_below_ground" in reasons["below"]
    assert "above_horizon" in reasons["above"]
    assert "out_of_range" in reasons["millimetres"]
    assert "above_horizon" in reasons["body"]
    assert all("expected a camera that sees the floor" in reasons[n] for n in SEE_NO_FLOOR)
    assert "the one person that it sees cannot be placed" in reasons["optical"]
    assert "the one person that it sees cannot be placed (above_horizon 1)" in reasons["tilted"]
    assert {level(graph, name) for name in WRONG} == {"ERROR"}
    assert int(status(graph, "tilted")["left_out.unplaceable"]) > 0
    assert int(status(graph, "below")["left_out.no_floor"]) > 0

    detectors.people = ()  # a wrong pose is one, whether anybody is there or not
    rounds(graph, 3)
    assert {level(graph, name) for name in SEE_NO_FLOOR} == {"ERROR"}


def test_one_good_camera_goes_on_beside_those_that_are_blind(graph, clouds, detectors):
    detectors.lit = {"a", *WRONG}
    graph.wait_for("WARN", lambda: level(graph) == "WARN" and status(graph)["watching"] == "a")
    before = clouds.count
    graph.wait_for("clouds", lambda: clouds.count >= before + 5)

    assert clouds.last.width > 0
    assert all(name in status(graph)["message"] for name in WRONG)


def test_a_person_too_near_to_be_placed_is_not_nobody(graph, clouds, detectors):
    detectors.lit = {"a"}
    detectors.people = ((100.0, 0.0, 400.0, 480.0),)  # from the upper border to the lower one
    graph.wait_for("ERROR", lambda: level(graph, "a") == "ERROR")
    blind_ns = time.time_ns()
    rounds(graph, 3)
    assert not said_since(clouds, blind_ns)
    assert "cut_at_bottom 1" in status(graph, "a")["message"]

    detectors.people = ((100.0, 0.0, 400.0, 480.0), MIDDLE)
    graph.wait_for("WARN", lambda: level(graph, "a") == "WARN")
    assert "1 of 2 persons cannot be placed" in status(graph, "a")["message"]
    graph.wait_for("clouds again", lambda: said_since(clouds, blind_ns) and clouds.last.width)

    detectors.people = ()
    graph.wait_for("an empty cloud", lambda: clouds.last.width == 0)


def test_a_recording_that_loops_goes_on(graph, clouds, detectors):
    began_s, loop_s = now_s(), 2.0
    detectors.stamp_s = lambda camera: 1000.0 + (now_s() - began_s) % loop_s
    restarts = int(status(graph)["restarts"])

    graph.wait_for("some loops", lambda: int(status(graph)["restarts"]) >= restarts + 3)
    for _ in range(3):
        before, ended_s = clouds.count, began_s + loop_s * ((now_s() - began_s) // loop_s + 1)
        graph.wait_for("the next loop", lambda ended_s=ended_s: now_s() > ended_s)
        graph.wait_for("clouds in it", lambda before=before: clouds.count > before + 2)
    assert "back" in status(graph)["last_restart"]


def test_one_frame_ahead_of_the_others_is_left_out_and_blinds_nobody(graph, clouds, detectors):
    restarts = status(graph)["restarts"]
    detectors.send("a", now_s() + 4.5)
    before, sent_ns = clouds.count, time.time_ns()

    graph.wait_for("two seconds of clouds", lambda: clouds.count >= before + 2 * RATE_HZ)
    rounds(graph)

    assert max(stamp_ns(cloud.header) for cloud in clouds.messages) < sent_ns + 4_400_000_000
    assert status(graph)["restarts"] == restarts
    assert status(graph)["watching"] == "a, b, c"
    assert int(status(graph, "a")["left_out.clock"]) >= 1


def test_a_camera_whose_clock_stays_ahead_is_left_out_and_named(graph, clouds, detectors):
    detectors.stamp_s = lambda camera: now_s() + (3.0 if camera == "a" else 0.0)
    graph.wait_for("a left out", lambda: level(graph, "a") == "ERROR")
    before = clouds.count
    graph.wait_for("clouds of the others", lambda: clouds.count >= before + RATE_HZ)

    assert stamp_ns(clouds.last.header) < time.time_ns() + 1_000_000_000
    assert "ahead of others'" in status(graph, "a")["message"]
    assert status(graph)["watching"] == "b, c"
    assert level(graph) == "WARN"

    detectors.stamp_s = lambda camera: now_s()
    graph.wait_for("all three", lambda: status(graph)["watching"] == "a, b, c")


def test_floor_that_pictures_do_not_show_yet_is_not_watched(graph, detectors, clouds):
    inbox = graph.listen(OccupancyGrid, "/persons/coverage", LATCHED, keep=1000)

    def watched() -> int:
        return int(np.count_nonzero(np.array(inbox.last.data) == 0)) if inbox.last else 0

    whole = graph.wait_for("coverage", watched)
    detectors.unknown_rows, detectors.people = (6, 12), ()
    graph.wait_for("less coverage", lambda: 0 < watched() < 0.9 * whole)
    detectors.unknown_rows = (0, 12)
    graph.wait_for("blindness", lambda: level(graph) == "ERROR")
    refused = status(graph, "a")
    clouds_before = clouds.count
    rounds(graph)

    assert "found nothing of it there yet" in refused["message"]
    assert int(refused["left_out.not_shown"]) > 0
    assert clouds.count == clouds_before
    detectors.unknown_rows = (0, 0)
    graph.wait_for("all of it", lambda: watched() == whole)
    graph.forget(inbox)


def test_a_mistyped_coordinate_ends_nothing_and_is_named(graph, clouds, detectors, tracker):
    grids = graph.listen(OccupancyGrid, "/persons/coverage", LATCHED)
    detectors.lit = {"a", "b", "mistyped"}
    graph.wait_for("WARN", lambda: "leaves out mistyped" in status(graph).get("message", ""))
    before = grids.count
    graph.wait_for("coverage of the others", lambda: grids.count > before + 1)

    assert 0 in grids.last.data
    assert len(grids.last.data) < 1 << 22
    assert tracker.alive
    graph.forget(grids)


def test_a_tracker_that_is_deactivated_leaves_no_coverage_behind(graph, clouds, detectors):
    grids = graph.listen(OccupancyGrid, "/persons/coverage", LATCHED)
    graph.wait_for("a watched floor", lambda: grids.last and 0 in grids.last.data)

    assert graph.change_state("/tracker", Transition.TRANSITION_DEACTIVATE)
    graph.wait_for("its last word", lambda: 0 not in grids.last.data)
    late = graph.listen(OccupancyGrid, "/persons/coverage", LATCHED)
    graph.wait_for("coverage for a late subscriber", lambda: late.last)
    assert 0 not in late.last.data

    assert graph.change_state("/tracker", Transition.TRANSITION_ACTIVATE)
    graph.wait_for("a watched floor again", lambda: 0 in grids.last.data)
    graph.forget(grids)
    graph.forget(late)


def test_it_has_seen_nothing_that_it_did_not_expect(graph, tracker):
    """Last: it takes the tracker down."""
    assert tracker.stop(signal.SIGTERM)[0] == 0
    assert "Traceback" not in tracker.log
    assert "incompatible QoS" not in tracker.log
