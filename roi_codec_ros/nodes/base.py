# SPDX-License-Identifier: Apache-2.0
"""Base class of the nodes: lifecycle, parameters, worker threads and diagnostics."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import NameValidationException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from std_srvs.srv import SetBool

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.config.parameter_values import Value
from roi_codec_ros.config.parameters import NODES, NodeParameters, parameters_of
from roi_codec_ros.nodes import diagnostics, qos
from roi_codec_ros.nodes.bond import Bond, bond_installed
from roi_codec_ros.nodes.declared_parameters import (
    accepted,
    declare,
    strangers,
    whole_numbers_as_doubles,
)
from roi_codec_ros.nodes.guarded import GuardedNode
from roi_codec_ros.nodes.rivals import Rivals
from roi_codec_ros.nodes.ros_start import refusal

RCLError = rclpy_implementation.RCLError

STOP_TIMEOUT_S = 0.4  # per thread; a camera driver may hang for much longer
PAUSE_AFTER_FAULT_S = 0.5


class ManagedNode(GuardedNode):
    """A lifecycle node with the parameters, diagnostics and threads of this package.

    Subclasses implement `configure`, `activate`, `deactivate` and `statuses`; the first two raise
    RoiCodecError for errors that a user can fix, and the transition fails with that message.
    """

    executable: ClassVar[str]
    settings: NodeParameters

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.failure: str | None = None
        self.misused = False  # the failure is a user error
        self.hung = False  # a driver's thread did not end on request
        self._configured = False
        self._rivals = Rivals(self)
        self._bond: Bond | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._declared = parameters_of(self.executable)
        values: dict[str, Any] = {
            name: declare(self, parameter) for name, parameter in self._declared.items()
        }
        for stranger in strangers(self):
            self.get_logger().warning(stranger)
        self.settings = NODES[self.executable](**values)  # replaced as a whole: threads read it
        self.add_on_set_parameters_callback(self._on_set_parameters)
        if hasattr(self, "add_pre_set_parameters_callback"):  # not in Humble
            self.add_pre_set_parameters_callback(partial(whole_numbers_as_doubles, self._declared))
        self._guard_transitions()
        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            diagnostics.TOPIC,
            qos.reliable(),
            event_callbacks=qos.silent_publisher_events(),
        )
        self.timer(diagnostics.PERIOD_S, self.publish_diagnostics)

        self.create_service(SetBool, "~/enable", self._on_enable)

    @property
    def configured(self) -> bool:
        """Whether the node is inactive or active."""
        return self._configured

    # For subclasses to implement

    def configure(self) -> None:
        """Load models and create publishers."""

    def activate(self) -> None:
        """Start threads and subscriptions."""

    def deactivate(self) -> None:
        """Stop what `activate` started, except the workers, which have already ended."""

    def interrupt(self) -> None:
        """Wake waiting workers, so that they can end."""

    def statuses(self) -> list[diagnostics.Status]:
        """Diagnostics of an active node."""
        return []

    def check_settings(self, settings: NodeParameters) -> None:
        """Raise RoiCodecError for settings that cannot be changed at run time."""

    def setting_changed(self, name: str, value: Value) -> None:
        """Called after a live parameter changed; `settings` already has the new value."""

    # For subclasses to use

    def start_worker(self, name: str, step: Callable[[], None]) -> None:
        """Call `step` repeatedly in a thread until the node is deactivated.

        A step must return within a fraction of a second if there is nothing to do. An exception is
            reported and the next step is tried: a bad frame does not end the node.
        """
        thread = threading.Thread(
            target=self._work, args=(step, self._stop), name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def publish_diagnostics(self) -> None:
        """Publish diagnostics now; the timer does so once a second."""
        if self._active:
            try:
                statuses = self.statuses()
            except Exception as error:  # noqa: BLE001 (silence would say that the node has ended)
                self.report(error)
                found = " ".join(f"{type(error).__name__}: {error}".split())
                statuses = [diagnostics.Status("diagnostics", diagnostics.Level.ERROR, found)]
        else:
            message = self.failure or ("inactive" if self._configured else "unconfigured")
            level = diagnostics.Level.ERROR if self.failure else diagnostics.Level.STALE
            statuses = [diagnostics.Status("lifecycle", level, message)]
        if rivals := self._rivals.found(self._own_topics):
            statuses.append(diagnostics.Status("topics", diagnostics.Level.ERROR, rivals))
            self.warn("topics", rivals)
        self.warn_of_mismatches()
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
        elif not self.settings.autostart and bond_installed():
            self._bond = Bond(self)
        return outcome

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: ends the workers."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Lifecycle transition: releases what was configured."""
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
        """End all threads in any lifecycle state; False if one still hangs in a driver."""
        self._halt()
        return not self.hung and not self._threads

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
        if self._bond is not None:
            self._bond.end()
            self._bond = None
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
        self.release()

    def _work(self, step: Callable[[], None], stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                step()
            except Exception as error:  # noqa: BLE001 (reported, and the next frame is tried)
                if stop.is_set():
                    return
                self.report(error)
                stop.wait(PAUSE_AFTER_FAULT_S)

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
        """Publish active or inactive, for clients without lifecycle support."""
        if request.data and not self._configured:
            self.trigger_configure()
        if request.data and self._configured and not self._active:
            self.trigger_activate()
        elif not request.data and self._active:
            self.trigger_deactivate()
        response.success = self._active == request.data
        response.message = self.failure or ("active" if self._active else "inactive")
        return response

    def _on_set_parameters(self, changes: Sequence[RosParameter]) -> SetParametersResult:
        try:
            values: dict[str, Any] = accepted(self._declared, changes, configured=self._configured)
            settings = replace(self.settings, **values)
            self.check_settings(settings)
        except Exception as error:  # noqa: BLE001 (whoever asked is told)
            return SetParametersResult(successful=False, reason=str(error) or repr(error))
        self.settings = settings
        changed = self.guarded(self.setting_changed)
        for name, value in values.items():
            changed(name, value)
        return SetParametersResult(successful=True)
