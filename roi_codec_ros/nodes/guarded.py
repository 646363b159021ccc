# SPDX-License-Identifier: Apache-2.0
"""Publishers, subscriptions, services and timers that survive exceptions in their callbacks.

In rclpy an exception in a callback ends the executor, and the process with it. Here it is reported
and the next call is tried. Entities are kept until the node's clean-up.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.conversions import stamp_ns
from roi_codec_ros.nodes.following import LOOK_EVERY_S, FollowingSubscription
from roi_codec_ros.nodes.mismatches import Mismatches
from roi_codec_ros.nodes.ros_start import REFUSALS, refusal

Item = TypeVar("Item")

WARN_EVERY_S = 5.0
GRACE_S = 2.0


class GuardedNode(LifecycleNode):
    """A lifecycle node whose callbacks are guarded; `ManagedNode` decides when it is active."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._active = False
        self._entities: list[Callable[[], Any]] = []  # destroys each of them
        self._own_topics: set[str] = set()
        self._mismatches = Mismatches(self)
        self._looks: list[Callable[[], None]] = []
        self._look_timer: Any = None
        self._warned_s: dict[str, float] = {}

    @property
    def active(self) -> bool:
        """Whether the node is active and working."""
        return self._active

    def age_s(self, header: Header) -> float:
        """Age of a stamp by this node's clock, in seconds; negative for one from the future."""
        return (self.get_clock().now().nanoseconds - stamp_ns(header)) / 1e9

    def publisher(
        self, message_type: type, topic: str, profile: Any = None, *, shared: bool = False
    ) -> Any:
        """A publisher until clean-up, silent while inactive; its QoS can be overridden.

        shared: other publishers on the topic are expected.
        """
        try:
            publisher = self.create_lifecycle_publisher(
                message_type,
                topic,
                profile or qos.newest(),
                qos_overriding_options=qos.overridable(),
                event_callbacks=qos.silent_publisher_events(),
            )
        except REFUSALS as error:
            raise refusal(f"topic {topic}", error) from error
        self._mismatches.watch(publisher)
        if self._active:  # created for a camera that was added
            publisher.on_activate(None)

        def destroy() -> None:
            self._own_topics.discard(publisher.topic_name)
            self._mismatches.forget(publisher)
            self.destroy_lifecycle_publisher(publisher)

        self._entities.append(destroy)
        if not shared:
            self._own_topics.add(publisher.topic_name)
        return publisher

    def service(self, service_type: type, name: str, answer: Callable[[Any, Any], Any]) -> None:
        """Offer a service until clean-up; an exception in its callback becomes its response."""

        def guarded(request: Any, response: Any) -> Any:
            try:
                return answer(request, response)
            except Exception as error:  # noqa: BLE001 (reported)
                self.report(error)
                response.success, response.message = False, str(error)
                return response

        service = self.create_service(service_type, name, guarded)
        self._entities.append(lambda: self.destroy_service(service))

    def subscription(
        self, message_type: type, topic: str, callback: Callable[[Any], None], profile: Any = None
    ) -> Any:
        """A subscription until clean-up; messages are ignored while the node is not active."""
        return self._subscribe(
            message_type,
            topic,
            self._only_while_active(callback),
            profile or qos.newest(),
            qos_overriding_options=qos.overridable(),
        )

    def lasting_subscription(
        self, message_type: type, topic: str, callback: Callable[[Any], None]
    ) -> None:
        """Subscribe to a latched topic, also to a message published before this node started.

        Publishers with transient-local durability require another QoS than volatile ones: they get
            a second subscription as soon as one is found, since volatile publishers would warn
            about it. Messages received while the node is not active are used as well: they may not
            be sent again.
        """
        guarded = self.guarded(callback)
        self._subscribe(
            message_type, topic, guarded, qos.newest(), qos_overriding_options=qos.overridable()
        )
        latched: list[Any] = []

        def look() -> None:
            offers = self.get_publishers_info_by_topic(topic)
            if not latched and any(qos.is_latched(offer.qos_profile) for offer in offers):
                subscription = self.create_subscription(
                    message_type,
                    topic,
                    guarded,
                    qos.latched(),
                    event_callbacks=qos.silent_events(),
                )
                latched.append(subscription)

        def destroy() -> None:
            for subscription in latched:
                self.destroy_subscription(subscription)

        self._entities.append(destroy)
        self._look_often(look)

    def _subscribe(
        self,
        message_type: type,
        topic: str,
        callback: Callable[[Any], None],
        profile: Any,
        **options: Any,
    ) -> Any:
        try:
            subscription = self.create_subscription(
                message_type,
                topic,
                callback,
                profile,
                event_callbacks=qos.silent_events(),
                **options,
            )
        except REFUSALS as error:
            raise refusal(f"topic {topic}", error) from error
        self._mismatches.watch(subscription)

        def destroy() -> None:
            self._mismatches.forget(subscription)
            self.destroy_subscription(subscription)

        self._entities.append(destroy)
        return subscription

    def follow(
        self, callbacks: Mapping[type, Callable[[Any], None]], topic: str
    ) -> FollowingSubscription:
        """As `subscription`, with the type and QoS that the topic's publishers offer.

        callbacks: by message type, the preferred one first. For large messages from other
        packages.
        """
        guarded = {kind: self._only_while_active(call) for kind, call in callbacks.items()}
        following = FollowingSubscription(self, guarded, topic)
        self._entities.append(following.destroy)
        self._look_often(following.look)
        return following

    def _look_often(self, look: Callable[[], None]) -> None:
        """Call `look` every LOOK_EVERY_S until clean-up.

        All share one timer: an executor wakes up for each, which takes the longer the more
        entities it waits for.
        """
        if self._look_timer is None:
            self._look_timer = self.timer(
                LOOK_EVERY_S, lambda: self.each(lambda call: call(), tuple(self._looks))
            )
        self._looks.append(look)
        self._entities.append(lambda: self._looks.remove(look))

    def timer(self, period_s: float, callback: Callable[[], None]) -> Any:
        """A timer that keeps running while simulated time is paused, and after exceptions.

        End it with `destroy_timer`.
        """
        guarded = self.guarded(callback)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        return self.create_timer(period_s, lambda: guarded(), clock=steady)

    def making(self, make: Callable[[], Item]) -> tuple[Item, list[Callable[[], Any]]]:
        """The result of `make`, and functions that destroy the entities it created, for
        `destroy_soon`.
        """
        before = len(self._entities)
        try:
            made = make()
        except Exception:
            while len(self._entities) > before:
                self._entities.pop()()
            raise
        return made, self._entities[before:]

    def destroy_soon(self, destroyers: Sequence[Callable[[], Any]]) -> None:
        """Destroy entities once threads that may still use them have finished their step."""

        def destroy() -> None:
            self.destroy_timer(timer)
            for destroyer in destroyers:
                if destroyer in self._entities:  # else the clean-up has done so
                    self._entities.remove(destroyer)
                    destroyer()

        timer = self.timer(GRACE_S, destroy)

    def each(self, step: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Run a step for each item; if one raises, it is reported and the others still run."""
        for item in items:
            try:
                step(item)
            except Exception as error:  # noqa: BLE001 (reported)
                self.report(error)

    def warn(self, subject: str, sentence: str) -> None:
        """Log a warning, at most every few seconds per subject (a camera and a cause)."""
        now = time.monotonic()
        if now - self._warned_s.get(subject, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned_s[subject] = now
            self.get_logger().warning(sentence)

    def release(self) -> None:
        """Destroy all publishers, subscriptions, services and repeated timers."""
        self._own_topics.clear()
        while self._entities:
            self._entities.pop()()
        if self._look_timer is not None:
            self.destroy_timer(self._look_timer)
            self._look_timer = None

    def warn_of_mismatches(self) -> None:
        """Log, once each, the peers that cannot exchange messages with this node."""
        for sentence in self._mismatches.new():
            self.get_logger().warning(sentence)

    def report(self, error: Exception) -> None:
        """Log one line for errors caused by a user or peer, a traceback for bugs."""
        if not self.context.ok():
            return  # publishing fails after a signal has closed the context
        if isinstance(error, RoiCodecError):
            self.warn(type(error).__name__, str(error))
        else:
            self.get_logger().error(traceback.format_exc(), throttle_duration_sec=WARN_EVERY_S)

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Wrap the callback to report exceptions, which would end the whole node in rclpy."""

        def guarded(*message: Any) -> None:
            try:
                callback(*message)
            except Exception as error:  # noqa: BLE001 (reported; the next call is tried)
                self.report(error)

        return guarded

    def _only_while_active(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        guarded = self.guarded(callback)

        def only_while_active(message: Any) -> None:
            if self._active:
                guarded(message)

        return only_while_active
