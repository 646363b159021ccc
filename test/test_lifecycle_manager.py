# SPDX-License-Identifier: Apache-2.0
"""Nodes under a lifecycle manager, by the rules of Nav2's (Humble to Lyrical).

It configures, then activates each node, and each time asks for the state. With a `bond_timeout`
above 0 a bond must form within half of it after activation, on `bond`, under the node's name; a
node whose heartbeats pause for longer is down. With 0.0 it asks for no bond.
"""

from __future__ import annotations

import importlib.util
import signal
import time
from dataclasses import replace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import RELIABLE
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetState

from roi_codec_ros.config.bringup import watchdog_graph

pytestmark = pytest.mark.graph

STEPS = (
    (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
)


@pytest.fixture
def start(graph):
    """Starts a node of a name: what asks for it must not reach one that has just ended."""
    processes = []

    def start(name: str):
        (spec,) = watchdog_graph(autostart=False)
        processes.append(graph.start(replace(spec, name=name)))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


def bring_up(graph, name: str) -> None:
    for transition, state in STEPS:
        assert graph.change_state(f"/{name}", transition)
        found = graph.call(GetState, f"/{name}/get_state", GetState.Request())
        assert found.current_state.id == state


def take_down(graph, name: str) -> None:
    assert graph.change_state(
        f"/{name}", Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
    )


def test_without_a_bond_a_manager_with_bond_timeout_0_starts_and_stops_it(graph, start):
    node = start("unbonded")
    bring_up(graph, "unbonded")
    take_down(graph, "unbonded")

    assert node.stop(signal.SIGINT)[0] == 0


@pytest.mark.skipif(importlib.util.find_spec("bondpy") is None, reason="bondpy is not installed")
def test_a_bond_forms_after_activation_and_ends_with_the_node(graph, start):
    from bond.msg import Status

    node = start("bonded")
    beats = graph.listen(Status, "/bond", RELIABLE, keep=10_000)

    def own():
        return [beat for beat in beats.messages if beat.id == "bonded"]

    for _ in range(2):  # a node that was deactivated forms another one
        bring_up(graph, "bonded")
        began = len(own())
        graph.wait_for("heartbeats", lambda began=began: len(own()) >= began + 5)
        assert {beat.active for beat in own()[began:]} == {True}
        take_down(graph, "bonded")
        graph.wait_for("the end of the bond", lambda: not own()[-1].active)
        graph.wait_for("silence", lambda: not beats.since(time.monotonic() - 1.0))
    assert len({beat.instance_id for beat in own()}) == 2

    bring_up(graph, "bonded")
    began = len(own())
    graph.wait_for("heartbeats", lambda: len(own()) >= began + 5)
    node.kill()
    graph.wait_for("silence", lambda: not beats.since(time.monotonic() - 1.0))
    assert own()[-1].active  # nobody said goodbye: the manager's timeout does
