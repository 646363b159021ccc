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

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

from graph_harness import RELIABLE
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetState

from roi_codec_ros.config.bringup import watchdog_graph

pytestmark = pytest.mark.graph

NODE = "person_watchdog"
STEPS = (
    (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
    (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
)


@pytest.fixture
def node(graph):
    process = graph.start(watchdog_graph(autostart=False)[0])
    yield process
    process.kill()


def bring_up(graph) -> None:
    for transition, state in STEPS:
        assert graph.change_state(f"/{NODE}", transition)
        found = graph.call(GetState, f"/{NODE}/get_state", GetState.Request())
        assert found.current_state.id == state


def test_without_a_bond_a_manager_with_bond_timeout_0_starts_and_stops_it(graph, node):
    bring_up(graph)

    assert graph.change_state(
        f"/{NODE}", Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
    )
    assert node.stop(signal.SIGINT)[0] == 0


@pytest.mark.skipif(importlib.util.find_spec("bondpy") is None, reason="bondpy is not installed")
def test_a_bond_forms_after_activation_and_ends_with_the_node(graph, node):
    from bond.msg import Status

    beats = graph.listen(Status, "/bond", RELIABLE, keep=10_000)
    for _ in range(2):  # a node that was deactivated forms another one
        bring_up(graph)
        began = beats.count
        graph.wait_for("heartbeats", lambda began=began: beats.count >= began + 5)
        assert {(beat.id, beat.active) for beat in beats.messages[began:]} == {(NODE, True)}
        assert graph.change_state(
            f"/{NODE}", Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
        )
        graph.wait_for("the end of the bond", lambda: not beats.last.active)
        graph.wait_for("silence", lambda: not beats.since(time.monotonic() - 1.0))
    assert len({beat.instance_id for beat in beats.messages}) == 2

    bring_up(graph)
    node.kill()
    graph.wait_for("silence", lambda: not beats.since(time.monotonic() - 1.0))
    assert beats.last.active  # nobody said goodbye: the manager's timeout does
