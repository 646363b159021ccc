# SPDX-License-Identifier: Apache-2.0
"""What all nodes share: lifecycle, parameters, worker threads and diagnostics."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    NameValidationException,
)
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.config.parameters import (
    NODES,
    NodeParameters,
    Parameter,
    Value,
    parameters_of,
)
from roi_codec_ros.nodes import diagnostics, qos
from roi_codec_ros.nodes.conversions import stamp_ns
from roi_codec_ros.nodes.following import LOOK_EVERY_S, FollowingSubscription
from roi_codec_ros.nodes.rivals import Rivals
from roi_codec_ros.nodes.ros_start import REFUSALS, refusal

RCLError = rclpy_implementation.RCLError
Item = TypeVar("Item")

STOP_TIMEOUT_S = 0.4  # per thread; a camera driver may hang for much longer
WARN_EVERY_S = 5.0
PAUSE_AFTER_FAULT_S = 0.5

_ROS_TYPES = {
    "string": ParameterType.PARAMETER_STRING,
    "integer": ParameterType.PARAMETER_INTEGER,
    "double": ParameterType.PARAMETER_DOUBLE,
    "bool": ParameterType.PARAMETER_BOOL,
    "string_array": ParameterType.PARAMETER_STRING_ARRAY,
}


class ManagedNode(LifecycleNode):
    """A lifecycle node with the parameters, diagnostics and threads of this package.

    A node fills in `configure`, `activate`, `deactivate` and `statuses`; the first two raise
    RoiCodecError for what a user can mend, and the transition fails with that sentence.
    """

    executable: ClassVar[str]
    settings: NodeParameters

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.failure: str | None = None
        self.misused = False  # the failure lies in what the user gave
        self.hung = False  # a thread of a driver did not end when it was told to
        self._active = False
        self._configured = False
        self._entities: list[Callable[[], Any]] = []
        self._own_topics: set[str] = set()
        self._rivals = Rivals(self)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._warned_s: dict[str, float] = {}
        self._declared = parameters_of(self.executable)
        values: dict[str, Any] = {
            name: self._declare(parameter) for name, parameter in self._declared.items()
        }
        self.settings = NODES[self.executable](**values)  # replaced as a whole: threads read it
        self.add_on_set_parameters_callback(self._on_set_parameters)
        if hasattr(self, "add_pre_set_parameters_callback"):  # not in Humble
            self.add_pre_set_parameters_callback(self._whole_numbers_as_doubles)
        self._guard_transitions()
        self._diagnostics = self.create_publisher(
            DiagnosticArray, diagnostics.TOPIC, qos.reliable()
        )
        self.timer(diagnostics.PERIOD_S, self.publish_diagnostics)

        self.create_service(SetBool, "~/enable", self._on_enable)

    # What a node fills in

    def configure(self) -> None:
        """Load what takes long and create publishers."""

    def activate(self) -> None:
        """Start threads and subscriptions."""

    def deactivate(self) -> None:
        """End what `activate` started, but for the workers, which have ended already."""

    def interrupt(self) -> None:
        """Wake workers that wait for something, so that they see that they should end."""

    def statuses(self) -> list[diagnostics.Status]:
        """Diagnostics of an active node."""
        return []

    def setting_changed(self, name: str, value: Value) -> None:
        """A live parameter has a new value; `settings` has it from now on."""

    # What a node uses

    def age_s(self, header: Header) -> float:
        """How long ago a stamp was by this node's clock, in seconds; negative from the future."""
        return (self.get_clock().now().nanoseconds - stamp_ns(header)) / 1e9

    def publisher(self, message_type: type, topic: str, profile: Any = None) -> Any:
        """A publisher until clean-up, silent while inactive; its QoS can be overridden."""
        try:
            publisher = self.create_lifecycle_publisher(
                message_type,
                topic,
                profile or qos.newest(),
                qos_overriding_options=qos.overridable(),
            )
        except REFUSALS as error:
            raise refusal(f"topic {topic}", error) from error
        self._entities.append(lambda: self.destroy_lifecycle_publisher(publisher))
        self._own_topics.add(publisher.topic_name)
        return publisher

    def service(self, service_type: type, name: str, answer: Callable[[Any, Any], Any]) -> None:
        """Offer a service until clean-up; what its callback raises becomes its answer."""

        def guarded(request: Any, response: Any) -> Any:
            try:
                return answer(request, response)
            except Exception as error:  # noqa: BLE001 (reported)
                self._report(error)
                response.success, response.message = False, str(error)
                return response

        service = self.create_service(service_type, name, guarded)
        self._entities.append(lambda: self.destroy_service(service))

    def subscription(
        self, message_type: type, topic: str, callback: Callable[[Any], None], profile: Any = None
    ) -> Any:
        """A subscription that lives until clean-up and is silent while the node is not active."""
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

        Publishers that keep their last message for late subscribers need another quality of
        service than those that do not: they get a second subscription, once one is there, since
        the others would complain of it. What comes while the node is not active counts as well:
        it may not come again.
        """
        guarded = self._guarded(callback)
        self._subscribe(
            message_type, topic, guarded, qos.newest(), qos_overriding_options=qos.overridable()
        )
        latched: list[Any] = []

        def look() -> None:
            offers = self.get_publishers_info_by_topic(topic)
            if not latched and any(qos.is_latched(offer.qos_profile) for offer in offers):
                subscription = self._subscribe(
                    message_type,
                    topic,
                    guarded,
                    qos.latched(),
                    event_callbacks=qos.silent_events(),
                )
                latched.append(subscription)

        self.repeat(LOOK_EVERY_S, look)

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
                message_type, topic, callback, profile, **options
            )
        except REFUSALS as error:
            raise refusal(f"topic {topic}", error) from error
        self._entities.append(lambda: self.destroy_subscription(subscription))
        return subscription

    def follow(
        self, callbacks: Mapping[type, Callable[[Any], None]], topic: str
    ) -> FollowingSubscription:
        """As `subscription`, in the type and quality that the topic's publishers offer.

        callbacks: by message type, the preferred one first. For large messages of others.
        """
        guarded = {kind: self._only_while_active(call) for kind, call in callbacks.items()}
        following = FollowingSubscription(self, guarded, topic)
        self._entities.append(following.destroy)
        self.repeat(LOOK_EVERY_S, following.look)
        return following

    def repeat(self, period_s: float, step: Callable[[], None]) -> None:
        """Call `step` again and again, until clean-up, as `timer` does."""
        timer = self.timer(period_s, step)
        self._entities.append(lambda: self.destroy_timer(timer))

    def timer(self, period_s: float, callback: Callable[[], None]) -> Any:
        """A timer that goes on while simulated time stands still, and whatever a callback raises.

        For `destroy_timer` when it is not wanted any longer.
        """
        guarded = self._guarded(callback)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        return self.create_timer(period_s, lambda: guarded(), clock=steady)

    def start_worker(self, name: str, step: Callable[[], None]) -> None:
        """Call `step` again and again in a thread until the node is deactivated.

        A step must return within a fraction of a second when there is nothing to do. One that
        raises is reported and the next one is tried: a node does not die of a bad frame.
        """
        thread = threading.Thread(
            target=self._work, args=(step, self._stop), name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def each(self, step: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Do a step with each item; one that raises is reported and spoils no other."""
        for item in items:
            try:
                step(item)
            except Exception as error:  # noqa: BLE001 (reported)
                self._report(error)

    @property
    def active(self) -> bool:
        """Whether the node is active and working."""
        return self._active

    def warn(self, subject: str, sentence: str) -> None:
        """A warning, at most every few seconds for one subject (a camera and a cause)."""
        now = time.monotonic()
        if now - self._warned_s.get(subject, -WARN_EVERY_S) >= WARN_EVERY_S:
            self._warned_s[subject] = now
            self.get_logger().warning(sentence)

    def publish_diagnostics(self) -> None:
        """Publish now; the timer does it once a second."""
        if self._active:
            try:
                statuses = self.statuses()
            except Exception as error:  # noqa: BLE001 (silence would say that the node has ended)
                self._report(error)
                found = " ".join(f"{type(error).__name__}: {error}".split())
                statuses = [diagnostics.Status("diagnostics", diagnostics.Level.ERROR, found)]
        else:
            message = self.failure or ("inactive" if self._configured else "unconfigured")
            level = diagnostics.Level.ERROR if self.failure else diagnostics.Level.STALE
            statuses = [diagnostics.Status("lifecycle", level, message)]
        if rivals := self._rivals.found(self._own_topics):
            statuses.append(diagnostics.Status("topics", diagnostics.Level.ERROR, rivals))
            self.warn("topics", rivals)
        name = self.get_fully_qualified_name()
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics.to_message(name, stamp, statuses))

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: `configure` of the node."""
        outcome = self._attempt(self.configure)
        if outcome is TransitionCallbackReturn.SUCCESS:
            self._configured = True
            return super().on_configure(state)
        self._release()
        return outcome

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: `activate` of the node, then its workers."""
        super().on_activate(state)
        self._stop = threading.Event()
        self._active = True
        outcome = self._attempt(self.activate)
        if outcome is not TransitionCallbackReturn.SUCCESS:
            self._halt()
            super().on_deactivate(state)
        return outcome

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: ends the workers."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: lets go of what was configured."""
        outcome = super().on_cleanup(state)
        self._release()
        return outcome

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: ends the node, whatever its state."""
        self._halt()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition after a failed one: cleans up."""
        self._halt()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def halt(self) -> bool:
        """End all threads, whatever the lifecycle state; False if one still hangs in a driver."""
        self._halt()
        return not self.hung and not self._threads

    def _only_while_active(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        guarded = self._guarded(callback)

        def only_while_active(message: Any) -> None:
            if self._active:
                guarded(message)

        return only_while_active

    def _attempt(self, part: Callable[[], None]) -> TransitionCallbackReturn:
        self.failure, self.misused = None, False
        try:
            try:
                part()
            except (NameValidationException, RCLError) as error:  # a topic's name, for example
                raise refusal("node", error) from error
        except RoiCodecError as error:
            self.failure, self.misused = str(error), isinstance(error, UsageError)
            self.get_logger().error(self.failure)
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # noqa: BLE001 (rclpy would drop it without a word)
            self.failure = f"{type(error).__name__}: {error}"
            if self.context.ok():
                self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _halt(self) -> None:
        was_active, self._active = self._active, False
        self._stop.set()
        if was_active:
            self.interrupt()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if was_active:
            self.deactivate()

    def _release(self) -> None:
        self._configured = False
        self._own_topics.clear()
        while self._entities:
            self._entities.pop()()

    def _work(self, step: Callable[[], None], stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                step()
            except Exception as error:  # noqa: BLE001 (reported, and the next frame is tried)
                if stop.is_set():
                    return
                self._report(error)
                stop.wait(PAUSE_AFTER_FAULT_S)

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """The callback, which reports what it raises: rclpy would end the whole node with it."""

        def guarded(*message: Any) -> None:
            try:
                callback(*message)
            except Exception as error:  # noqa: BLE001 (reported; the next call is tried)
                self._report(error)

        return guarded

    def _report(self, error: Exception) -> None:
        """One line for what a user or a peer caused, a traceback for a mistake of ours."""
        if not self.context.ok():
            return  # publishing fails once a signal has closed the context
        if isinstance(error, RoiCodecError):
            self.warn(type(error).__name__, str(error))
        else:
            self.get_logger().error(traceback.format_exc(), throttle_duration_sec=WARN_EVERY_S)

    def _guard_transitions(self) -> None:
        """Refuse impossible transitions: in rclpy one such request ends the whole process."""
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = partial(self._change_state, service.callback)

    def _change_state(self, change: Callable[..., Any], request: Any, response: Any) -> Any:
        try:
            return change(request, response)
        except RCLError as error:
            wanted = request.transition.label or request.transition.id
            self.get_logger().warning(f"transition {wanted} refused: {error}")
            response.success = False
            return response

    def _on_enable(self, request: Any, response: Any) -> Any:
        """Active or inactive, for clients that know no lifecycles."""
        if request.data and not self._configured:
            self.trigger_configure()
        if request.data and self._configured and not self._active:
            self.trigger_activate()
        elif not request.data and self._active:
            self.trigger_deactivate()
        response.success = self._active == request.data
        response.message = self.failure or ("active" if self._active else "inactive")
        return response

    # Parameters

    def _declare(self, parameter: Parameter) -> Value:
        descriptor = _descriptor(parameter)
        try:
            declared = self.declare_parameter(parameter.name, parameter.default, descriptor)
            if declared.value is not None:
                return parameter.coerce(declared.value)
            self.undeclare_parameter(parameter.name)
        except (InvalidParameterTypeException, InvalidParameterValueException):
            pass
        # The value given has another type (source:=0, rate_hz:=10): take it if nothing is lost.
        anything = ParameterDescriptor(dynamic_typing=True)
        given = self.declare_parameter(parameter.name, None, anything).value
        self.undeclare_parameter(parameter.name)
        # An empty list has no type, so that ROS hands it on as a value that is not set.
        value = parameter.coerce([] if given is None else given)
        self.declare_parameter(parameter.name, value, descriptor, ignore_override=True)
        return value

    def _whole_numbers_as_doubles(self, changes: list[RosParameter]) -> list[RosParameter]:
        """Take 10 for 10.0, as at start: ROS itself would refuse another type."""
        for place, change in enumerate(changes):
            parameter = self._declared.get(change.name)
            whole = change.type_ == RosParameter.Type.INTEGER
            if parameter is not None and parameter.type == "double" and whole:
                changes[place] = RosParameter(change.name, value=float(change.value))
        return changes

    def _on_set_parameters(self, changes: Sequence[RosParameter]) -> SetParametersResult:
        accepted: dict[str, Any] = {}
        for change in changes:
            parameter = self._declared.get(change.name)
            if parameter is None:
                continue
            try:
                accepted[change.name] = parameter.coerce(change.value)
            except Exception as error:  # noqa: BLE001 (whoever asked is told)
                return SetParametersResult(successful=False, reason=str(error) or repr(error))
            if self._configured and not parameter.live:
                return SetParametersResult(
                    successful=False,
                    reason=f"parameter {change.name}: expected an unconfigured node to change it "
                    "(ros2 lifecycle set NODE deactivate, cleanup), found a configured one",
                )
        self.settings = replace(self.settings, **accepted)
        changed = self._guarded(self.setting_changed)
        for name, value in accepted.items():
            changed(name, value)
        return SetParametersResult(successful=True)


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        name=parameter.name, type=_ROS_TYPES[parameter.type], description=parameter.description
    )
    if parameter.choices:
        descriptor.additional_constraints = "one of " + ", ".join(parameter.choices)
    if not parameter.live:
        separator = "; " if descriptor.additional_constraints else ""
        descriptor.additional_constraints += f"{separator}only while unconfigured"
    if parameter.range is not None:
        low, high = parameter.range
        if parameter.type == "integer":
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
    return descriptor
