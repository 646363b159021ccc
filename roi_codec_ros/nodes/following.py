# SPDX-License-Identifier: Apache-2.0
"""A subscription that adapts to the type and QoS that a topic's publishers offer.

With best effort most large images of an ordinary, reliable driver are lost: one lost packet loses
the image. A reliable subscription receives nothing from a best-effort driver. ROS 2's own "best
available" is evaluated only once, when the subscription is created, and Humble does not have it.
So the publishers are checked several times a second, and the subscription is recreated if they
require another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import ParameterAlreadyDeclaredException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.validate_topic_name import validate_topic_name

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.ros_start import REFUSALS, refusal
from roi_codec_ros.stream.statistics import SlidingWindow

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

LOOK_EVERY_S = 0.25
BEST_AVAILABLE = "best_available"
_RELIABILITIES = (BEST_AVAILABLE, "reliable", "best_effort")


@dataclass(frozen=True)
class Offer:
    """The offer of one publisher. type: as in "sensor_msgs/msg/Image". node: its full name."""

    node: str
    type: str
    reliable: bool
    latched: bool = False


@dataclass(frozen=True)
class Way:
    """Type and QoS of a subscription."""

    type: str
    reliable: bool = False
    latched: bool = False


def way_to_take(offers: Sequence[Offer], types: Sequence[str], current: Way) -> Way:
    """The best subscription that all publishers of one type support; the current one if there are
    no publishers.

    types: the accepted types, the preferred one first; the current type is kept as long as it is
    offered.
    """
    offered = [kind for kind in (current.type, *types) if any(o.type == kind for o in offers)]
    if not offered:
        return current
    taken = [offer for offer in offers if offer.type == offered[0]]
    reliable = all(offer.reliable for offer in taken)
    return Way(offered[0], reliable, reliable and all(offer.latched for offer in taken))


def unheard(offers: Sequence[Offer], types: Sequence[str], way: Way) -> str:
    """The publishers whose messages are not received, with the reason; empty if there are none."""
    strangers = [offer for offer in offers if offer.type != way.type]
    if strangers:
        expected = " or ".join(types)
        if any(offer.type == way.type for offer in offers):
            expected = f"{way.type} only"
        return f"expected {expected}, found {_named(strangers, lambda offer: offer.type)}"
    unreliable = [offer for offer in offers if not offer.reliable]
    if way.reliable and unreliable:
        return (
            "expected reliable publishers, as qos_overrides say, found "
            f"{_named(unreliable, lambda offer: 'best effort')}"
        )
    return ""


def _named(offers: Sequence[Offer], what: Callable[[Offer], str]) -> str:
    return ", ".join(sorted({f"{what(offer)} of {offer.node}" for offer in offers}))


class FollowingSubscription:
    """Follows a topic until `destroy`; its owner calls `look` every LOOK_EVERY_S.

    If `look` raises, nothing has changed, and the next one tries again.

    lost: messages that the middleware reports as lost; lost_recently: those of the last seconds.
    complaint: result of `unheard`, with the topic's name.
    """

    def __init__(
        self, node: LifecycleNode, callbacks: Mapping[type, Callable[[Any], None]], topic: str
    ) -> None:
        """callbacks: by message type, the preferred one first.

        Raises UsageError for an invalid topic or QoS.
        """
        self._node = node
        self._topic = topic
        self._callbacks = {type_name(kind): (kind, call) for kind, call in callbacks.items()}
        self._subscription: Any = None
        self.lost = 0
        self.lost_recently = SlidingWindow()
        self.offers: list[Offer] = []
        self.way = Way(next(iter(self._callbacks)))
        try:
            validate_topic_name(topic)
            self.topic = node.resolve_topic_name(topic)
            self._asked = self._asked_reliability()
            self._take(self._overridden(self.way))
        except REFUSALS as error:
            raise refusal(f"topic {topic}", error) from error
        self.look()

    @property
    def types(self) -> list[str]:
        """The accepted message types."""
        return list(self._callbacks)

    @property
    def complaint(self) -> str:
        """Why nothing is received, in one line; empty if nothing is wrong."""
        sentence = unheard(self.offers, self.types, self.way)
        return f"{self.topic}: {sentence}" if sentence else ""

    @property
    def reliability(self) -> str:
        """For diagnostics."""
        return "reliable" if self.way.reliable else "best_effort"

    def look(self) -> None:
        """Check the publishers, and resubscribe if their offer has changed."""
        self.offers = [
            Offer(
                f"{info.node_namespace.rstrip('/')}/{info.node_name}",
                info.topic_type,
                info.qos_profile.reliability == ReliabilityPolicy.RELIABLE,
                info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
            )
            for info in self._node.get_publishers_info_by_topic(self._topic)
        ]
        way = self._overridden(way_to_take(self.offers, self.types, self.way))
        # None if the middleware could not create it yet.
        if way != self.way or self._subscription is None:
            self._take(way)

    def destroy(self) -> None:
        """End the subscription."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _take(self, way: Way) -> None:
        self.destroy()
        kind, call = self._callbacks[way.type]
        profile = qos.recent(reliable=way.reliable, latched=way.latched)
        for callbacks in (
            SubscriptionEventCallbacks(message_lost=self._on_lost, use_default_callbacks=False),
            SubscriptionEventCallbacks(use_default_callbacks=False),  # losses are not reported
        ):
            try:
                self._subscription = self._node.create_subscription(
                    kind,
                    self._topic,
                    call,
                    profile,
                    event_callbacks=callbacks,
                    qos_overriding_options=qos.overridable(reliability=False),
                )
                break
            except rclpy_implementation.UnsupportedEventTypeError:
                continue
        self.way = way

    def _on_lost(self, event: Any) -> None:
        self.lost += event.total_count_change
        self.lost_recently.add(event.total_count_change)

    def _asked_reliability(self) -> str:
        """The parameter that ROS itself would declare, with one more value."""
        name = f"qos_overrides.{self.topic}.subscription.reliability"
        descriptor = ParameterDescriptor(
            description=f"Reliability of {self.topic}: one of {', '.join(_RELIABILITIES)}",
            read_only=True,
        )
        try:
            asked = self._node.declare_parameter(name, BEST_AVAILABLE, descriptor).value
        except ParameterAlreadyDeclaredException:  # configured before
            asked = self._node.get_parameter(name).value
        if asked not in _RELIABILITIES:
            raise UsageError(
                f"{name}: expected one of {', '.join(_RELIABILITIES)}, found {asked!r}"
            )
        return str(asked)

    def _overridden(self, way: Way) -> Way:
        if self._asked == BEST_AVAILABLE:
            return way
        reliable = self._asked == "reliable"
        return Way(way.type, reliable, way.latched and reliable)


def type_name(kind: type) -> str:
    """Type name in the ROS graph, for example "sensor_msgs/msg/Image"."""
    package, *_ = kind.__module__.split(".")
    return f"{package}/msg/{kind.__name__}"
