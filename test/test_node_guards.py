# SPDX-License-Identifier: Apache-2.0
"""A node outlives what its own callbacks raise. rclpy ends the executor, and so the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from graph_harness import NEWEST, RELIABLE, unused_domain
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header, String

from roi_codec_ros.nodes import rivals
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.mismatches import UNDISCOVERED, Mismatches
from roi_codec_ros.nodes.rivals import Rivals

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


def test_a_peer_of_another_type_or_qos_is_named_once(faulty):
    node, spin_until = faulty
    elsewhere = rclpy.Context()  # within one, the middleware itself refuses a second type
    rclpy.init(context=elsewhere, domain_id=node.context.get_domain_id())
    other = rclpy.create_node("other", context=elsewhere)
    mismatches = Mismatches(node)
    told: list[str] = []

    def names(*expected: str) -> Callable[[], bool]:
        def look() -> bool:
            told.extend(mismatches.new())
            return all(any(text in sentence for sentence in told) for text in expected)

        return look

    mismatches.watch(node.create_publisher(Header, "sent", NEWEST))
    for topic in ("heard", "read"):
        mismatches.watch(node.create_subscription(Header, topic, lambda message: None, RELIABLE))
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    fitting = other.create_subscription(Header, "sent", lambda message: None, NEWEST)
    asking = other.create_subscription(Header, "sent", lambda message: None, latched)
    other.create_publisher(Header, "heard", NEWEST)
    other.create_publisher(String, "read", RELIABLE)
    spin_until(
        names(
            "topic /sent: expected subscriptions that match this node's std_msgs/msg/Header, "
            "found /other with incompatible QoS",
            "topic /heard: expected publishers that match this node's std_msgs/msg/Header, "
            "found /other with incompatible QoS",
            "topic /read: expected publishers that match this node's std_msgs/msg/Header, "
            "found /other of type std_msgs/msg/String",
        )
    )
    assert len(told) == 3
    assert mismatches.new() == []

    other.destroy_subscription(asking)  # and comes back: it is named again
    spin_until(lambda: node.count_subscribers("sent") == 1)
    assert mismatches.new() == []
    other.create_subscription(Header, "sent", lambda message: None, latched)
    told.clear()
    spin_until(names("topic /sent"))
    assert len(told) == 1
    assert fitting.topic_name == "/sent"
    other.destroy_node()
    elsewhere.try_shutdown()


def test_entities_have_no_event_handlers_for_an_executor_to_look_at(faulty):
    node, _ = faulty
    before = len(list(node.waitables))

    node.trigger_configure()
    node.publisher(Header, "told")

    assert len(list(node.waitables)) == before


class Shared:
    """A node's graph: its topic and the names of the nodes that publish it."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def get_fully_qualified_name(self) -> str:
        return "/front/encoder"

    def count_publishers(self, topic: str) -> int:
        return len(self.names)

    def get_publishers_info_by_topic(self, topic: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(node_namespace="/front", node_name=name) for name in self.names]


@pytest.mark.parametrize(
    ("other", "said"),
    [("encoder", "another /front/encoder"), (UNDISCOVERED, "one of an unknown node")],
)
def test_a_publisher_that_may_be_ones_own_is_a_rival_only_if_it_stays(other, said, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(rivals.time, "monotonic", lambda: now[0])
    watch = Rivals(Shared("encoder", other))  # type: ignore[arg-type]

    assert watch.found(["/front/latent"]) == ""
    now[0] += rivals.PATIENCE_S + 1
    assert said in watch.found(["/front/latent"])


def test_another_node_on_a_topic_is_a_rival_at_once():
    watch = Rivals(Shared("encoder", "intruder"))  # type: ignore[arg-type]

    assert "/front/intruder on /front/latent" in watch.found(["/front/latent"])
