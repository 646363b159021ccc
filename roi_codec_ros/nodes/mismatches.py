# SPDX-License-Identifier: Apache-2.0
"""Finds peers that cannot exchange messages with a node: another type, or QoS that does not match.

rclpy would warn of them by two event handlers for each publisher and subscription, which cost an
executor time whenever anything arrives. Comparing counts once a second costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rclpy.duration import Infinite
from rclpy.publisher import Publisher
from rclpy.qos import LivelinessPolicy, QoSCompatibility, QoSProfile, qos_check_compatible

from roi_codec_ros.nodes.following import type_name

if TYPE_CHECKING:
    from rclpy.node import Node

# What the middleware calls the node of an endpoint of which it has not heard yet.
UNDISCOVERED = "_NODE_NAME_UNKNOWN_"


class Mismatches:
    """Watches the peers of a node's publishers and subscriptions."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ends: list[Any] = []
        self._said: set[str] = set()

    def watch(self, end: Any) -> None:
        """Watch the peers of a publisher or subscription."""
        self._ends.append(end)

    def forget(self, end: Any) -> None:
        """Stop watching, as before it is destroyed."""
        self._ends.remove(end)

    def new(self) -> list[str]:
        """A sentence for each mismatch that the last call did not find."""
        found = {sentence for end in self._ends for sentence in self._of(end)}
        new = sorted(found - self._said)
        self._said = found
        return new

    def _of(self, end: Any) -> Iterator[str]:
        topic, publishes = end.topic_name, isinstance(end, Publisher)
        if publishes:
            if end.get_subscription_count() >= self._node.count_subscribers(topic):
                return
            peers = self._node.get_subscriptions_info_by_topic(topic)
        else:
            if _publisher_count(end) >= self._node.count_publishers(topic):
                return
            peers = self._node.get_publishers_info_by_topic(topic)
        own_type = type_name(end.msg_type)
        for peer in peers:
            if peer.node_name == UNDISCOVERED:
                continue
            if peer.topic_type != own_type:
                fault = f"of type {peer.topic_type}"
            else:
                pair = (_as_offered(end.qos_profile), peer.qos_profile)
                match, reason = qos_check_compatible(*(pair if publishes else reversed(pair)))
                if match != QoSCompatibility.ERROR:
                    continue
                fault = f"with incompatible QoS ({reason.strip(' ;')})"
            name = f"{peer.node_namespace.rstrip('/')}/{peer.node_name}"
            kind = "subscriptions" if publishes else "publishers"
            yield (
                f"topic {topic}: expected {kind} that match this node's {own_type}, "
                f"found {name} {fault}: no messages pass between them"
            )


def _as_offered(profile: QoSProfile) -> QoSProfile:
    """The profile with what the middleware fills in where this package asks for nothing."""
    return QoSProfile(
        history=profile.history,
        depth=profile.depth,
        reliability=profile.reliability,
        durability=profile.durability,
        lifespan=Infinite,
        deadline=Infinite,
        liveliness=LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=Infinite,
    )


def _publisher_count(subscription: Any) -> int:
    """How many publishers a subscription matches; -1 in Humble, which does not say."""
    count = getattr(subscription, "get_publisher_count", None)
    return -1 if count is None else int(count())
