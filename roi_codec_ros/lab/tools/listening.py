# SPDX-License-Identifier: Apache-2.0
"""Records arrivals and drops for `roi-codec bench --server`.

    python -m roi_codec_ros.lab.tools.listening REPORT CAMERA…

REPORT is written once persons of every camera have arrived, and again at the end, on SIGINT or
SIGTERM:
{"persons": {camera: [[stamp ns, arrival ns], …]},
 "dropped": {"<node>: <camera>": [[arrival ns, count], …]}}
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from roi_codec_ros.common.files import write_whole
from roi_codec_ros.lab.demo.running import stop_event
from roi_codec_ros.msg import PersonArray
from roi_codec_ros.nodes import diagnostics
from roi_codec_ros.nodes.conversions import stamp_ns

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


class Listener:
    """Records persons and diagnostics."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self.node = rclpy.create_node("listening")
        self._persons: dict[str, list[tuple[int, int]]] = {camera: [] for camera in cameras}
        self._dropped: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for camera in cameras:
            self.node.create_subscription(
                PersonArray, f"/{camera}/persons", partial(self._on_persons, camera), RELIABLE
            )
        self.node.create_subscription(
            DiagnosticArray, diagnostics.TOPIC, self._on_diagnostics, RELIABLE
        )

    @property
    def heard_all(self) -> bool:
        """Whether persons of every camera have arrived."""
        return all(self._persons.values())

    def write(self, report: Path) -> None:
        """The report, as the module says."""
        content = {"persons": self._persons, "dropped": self._dropped}
        write_whole(report, json.dumps(content).encode())

    def _on_persons(self, camera: str, message: PersonArray) -> None:
        self._persons[camera].append((stamp_ns(message.header), time.time_ns()))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for value in status.values:
                if value.key == "dropped":
                    self._dropped[status.name].append((time.time_ns(), int(value.value)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until SIGINT or SIGTERM; arguments as the module says."""
    report, *cameras = sys.argv[1:] if arguments is None else arguments
    stop = stop_event()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    listener = Listener(cameras)
    executor = SingleThreadedExecutor()
    executor.add_node(listener.node)
    written = False
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.1)
        if not written and listener.heard_all:
            listener.write(Path(report))
            written = True
    listener.write(Path(report))
    executor.shutdown(timeout_sec=1.0)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
