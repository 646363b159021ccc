# SPDX-License-Identifier: Apache-2.0
"""Starts the nodes as real processes over real DDS and waits for what they say, never for time."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import QoSProfile, ReliabilityPolicy

from roi_codec_ros.config.bringup import NodeSpec, ProcessOptions, command

PATIENCE_S = 180.0  # importing torch on a busy machine; nothing waits longer than it must
ASK_AGAIN_S = 5.0
POLL_S = 0.02
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)

InvalidHandle = rclpy_implementation.InvalidHandle
Found = TypeVar("Found")

_domains = iter(random.SystemRandom().sample(range(1, 100), 99))


def unused_domain() -> int:
    """A DDS domain that no graph of this run had: killed processes leave traces in theirs."""
    return next(_domains)


class NodeProcess:
    """A node that runs as a process of its own; its output goes to a file."""

    def __init__(self, argv: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self.log_path = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                argv, stdout=output, stderr=subprocess.STDOUT, env=environment
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """Send a signal; the exit status and the seconds that it took to end."""
        started = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE_S)
        return status, time.monotonic() - started

    def kill(self) -> None:
        if self.alive:
            self.process.kill()
        self.process.wait(PATIENCE_S)


@dataclass(frozen=True)
class Recovery:
    """How long a camera's images stayed away after a fault was over.

    seconds: by this machine, busy or not: to be noted, not to be asserted. frames: how many of the
    camera's came meanwhile and gave no image, which is what our own rules cost.
    """

    seconds: float
    frames: int


class Graph:
    """Node processes on a DDS domain of their own, and a node of this process that listens.

    None of them meets other machines: the environment is set to this one before any starts.
    """

    def __init__(self, domain_id: int, folder: Path) -> None:
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        if os.environ.get("ROS_DISTRO") == "humble":  # later ones warn of it, and know the former
            os.environ["ROS_LOCALHOST_ONLY"] = "1"
        self.domain_id = domain_id
        self.folder = folder
        self.processes: list[NodeProcess] = []
        self._statuses: dict[str, tuple[DiagnosticStatus, float]] = {}
        self._context = rclpy.Context()
        self._context.init(domain_id=domain_id)
        self.node = rclpy.create_node("listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE
        )
        self._closing = False
        self._spinner = threading.Thread(target=self._spin, daemon=True)
        self._spinner.start()

    def start(
        self,
        spec: NodeSpec,
        params_file: Path | None = None,
        options: ProcessOptions | None = None,
    ) -> NodeProcess:
        """Start one node as a process."""
        environment = {**os.environ, "ROS_DOMAIN_ID": str(self.domain_id)}
        log = self.folder / f"{len(self.processes)}-{spec.full_name.replace('/', '_')}.log"
        process = NodeProcess(command(spec, params_file, options), log, environment)
        self.processes.append(process)
        return process

    def listen(
        self, message_type: type, topic: str, qos: QoSProfile = NEWEST, keep: int = 100
    ) -> Inbox:
        """Collect the messages of a topic from now on."""
        inbox = Inbox(keep)
        inbox.subscription = self.node.create_subscription(message_type, topic, inbox.add, qos)
        return inbox

    def forget(self, inbox: Inbox) -> None:
        """Subscribe no longer."""
        self.node.destroy_subscription(inbox.subscription)

    def wait_for(
        self, what: str, condition: Callable[[], Found], timeout_s: float = PATIENCE_S
    ) -> Found:
        """Wait until the condition is true, or fail with what was waited for and all the logs."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"no {what} within {timeout_s:g} s\n{self.last_statuses()}\n{self.logs()}"
                )
            time.sleep(POLL_S)

    def call(self, service_type: type, name: str, request: Any, repeat: bool = True) -> Any:
        """The answer of a service.

        A service counts as ready as soon as any server of that name is known, also one that was
        killed a moment ago; what is asked before its successor is known reaches nobody. So a
        request that may be repeated without harm is.
        """
        client = self.node.create_client(service_type, name)
        self.wait_for(f"service {name}", client.service_is_ready)
        futures: list[tuple[float, Any]] = []

        def answer() -> Any:
            now_s = time.monotonic()
            if not futures or (repeat and now_s - futures[-1][0] > ASK_AGAIN_S):
                futures.append((now_s, client.call_async(request)))
            return next((future.result() for _, future in futures if future.done()), None)

        response = self.wait_for(f"answer of {name}", answer)
        self.node.destroy_client(client)
        return response

    def set_parameters(
        self, node: str, **values: float | str | list[str]
    ) -> list[SetParametersResult]:
        """Set parameters of a node; one result for each."""
        request = SetParameters.Request(
            parameters=[
                RosParameter(name, value=value).to_parameter_msg()
                for name, value in values.items()
            ]
        )
        results: list[SetParametersResult] = self.call(
            SetParameters, f"{node}/set_parameters", request
        ).results
        return results

    def change_state(self, node: str, *transitions: int) -> bool:
        """Ask a lifecycle node for one transition after another; whether all were made."""
        return all(
            self.call(
                ChangeState,
                f"{node}/change_state",
                ChangeState.Request(transition=Transition(id=transition)),
                repeat=False,
            ).success
            for transition in transitions
        )

    def recovery(
        self,
        latents: Inbox,
        images: Inbox,
        over_s: float,
        good: Callable[[Any], bool] = lambda image: True,
    ) -> Recovery:
        """Wait for the first good image since a fault was over (seconds, monotonic)."""

        def first() -> float | None:
            return next((at_s for at_s, image in images.since(over_s) if good(image)), None)

        back_s = self.wait_for("good images again", first)
        spent = sum(at_s < back_s for at_s, _ in latents.since(over_s)) - 1
        return Recovery(back_s - over_s, max(0, spent))

    def status(self, name: str, newer_than_s: float = 0.0) -> dict[str, str] | None:
        """Key values of the last diagnostics under a name, with its "level" and "message"."""
        found = self._statuses.get(name)
        if found is None or found[1] < newer_than_s:
            return None
        status = found[0]
        values = {pair.key: pair.value for pair in status.values}
        level = {b"\x00": "OK", b"\x01": "WARN", b"\x02": "ERROR", b"\x03": "STALE"}[status.level]
        return {**values, "level": level, "message": status.message}

    def last_statuses(self) -> str:
        """The last diagnostics under each name."""
        return "\n".join(f"--- {name}: {self.status(name)}" for name in sorted(self._statuses))

    def logs(self) -> str:
        """What every process wrote."""
        return "\n".join(f"--- {p.log_path.name}\n{p.log}" for p in self.processes)

    def close(self) -> None:
        for process in self.processes:
            if process.alive:
                process.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 10.0
        for process in self.processes:
            try:
                process.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        self._closing = True
        self._executor.wake()
        self._spinner.join(5.0)
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def _spin(self) -> None:
        while not self._closing:
            with contextlib.suppress(InvalidHandle):  # of what a test has just forgotten
                self._executor.spin_once(timeout_sec=0.2)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._statuses[status.name] = (status, time.monotonic())


class Periodic(threading.Thread):
    """Stands in for a part of the graph: calls `step` at a rate, from `start` until `close`."""

    def __init__(self, rate_hz: float) -> None:
        super().__init__(daemon=True)
        self._period_s = 1.0 / rate_hz
        self._closing = threading.Event()

    def step(self) -> None:
        """What is published each time."""
        raise NotImplementedError

    def run(self) -> None:
        while not self._closing.wait(self._period_s):
            self.step()

    def close(self) -> None:
        self._closing.set()
        self.join(5.0)


class Inbox:
    """The last messages of a topic, and when they came (seconds, monotonic)."""

    def __init__(self, keep: int) -> None:
        self.subscription: Any = None
        self._arrived: deque[tuple[float, Any]] = deque(maxlen=keep)
        self.count = 0

    def add(self, message: Any) -> None:
        self._arrived.append((time.monotonic(), message))
        self.count += 1

    def since(self, at_s: float) -> list[tuple[float, Any]]:
        """What came after a time, with the times."""
        return [(arrived_s, message) for arrived_s, message in self._copy() if arrived_s > at_s]

    @property
    def messages(self) -> list[Any]:
        return [message for _, message in self._copy()]

    @property
    def last(self) -> Any:
        return self._arrived[-1][1] if self._arrived else None

    def _copy(self) -> list[tuple[float, Any]]:
        return list(self._arrived)  # in one step of the interpreter: the listener goes on adding
