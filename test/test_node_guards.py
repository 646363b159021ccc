# SPDX-License-Identifier: Apache-2.0
"""A node outlives what its own callbacks raise. rclpy ends the executor, and so the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from graph_harness import RELIABLE, unused_domain
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from roi_codec_ros.nodes.base import ManagedNode

pytestmark = pytest.mark.graph


class Faulty(ManagedNode):
    """Everything that somebody else calls raises what no range check foresees."""

    executable = "tracker_node"

    def __init__(self) -> None:
        self.calls: list[str] = []
        super().__init__("faulty")

    def fail(self, who: str) -> None:
        self.calls.append(who)
        raise MemoryError(who)

    def configure(self) -> None:
        self.subscription(Header, "said", lambda message: self.fail("subscription"))
        self.lasting_subscription(Header, "said", lambda message: self.fail("lasting"))

    def statuses(self):
        return self.fail("statuses")

    def setting_changed(self, name, value) -> None:
        self.fail("setting")


@pytest.fixture
def faulty() -> Iterator[tuple[Faulty, Callable[[Callable[[], bool]], None]]]:
    mine = not rclpy.ok()
    if mine:
        rclpy.init(domain_id=unused_domain())
    node = Faulty()
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin_until(condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 60.0
        while not condition():
            assert time.monotonic() < deadline_s, node.calls
            executor.spin_once(timeout_sec=0.05)

    yield node, spin_until
    executor.shutdown()
    node.destroy_node()
    if mine:
        rclpy.try_shutdown()


def test_a_node_outlives_what_its_callbacks_raise(faulty):
    node, spin_until = faulty
    heard: list[DiagnosticArray] = []
    node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, RELIABLE)
    node.trigger_configure()
    node.trigger_activate()
    node.timer(0.02, lambda: node.fail("timer"))
    said = node.create_publisher(Header, "said", 10)

    def often(who: str) -> Callable[[], bool]:
        def heard_often() -> bool:
            said.publish(Header(frame_id="x"))
            return node.calls.count(who) >= 3

        return heard_often

    for who in ("timer", "subscription", "lasting", "statuses"):
        spin_until(often(who))

    assert node.set_parameters([Parameter("max_range_m", value=7.0)])[0].successful
    assert node.calls[-1] == "setting"
    spin_until(lambda: any("MemoryError: statuses" in s.message for m in heard for s in m.status))
