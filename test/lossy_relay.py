# SPDX-License-Identifier: Apache-2.0
"""A bad network as a process: `python lossy_relay.py FROM TO SEED`, topics of CompressedLatent.

Its parameters `loss` (share of the frames) and `jitter_ms` (each frame waits for up to as long,
and may so be overtaken) can be set while it runs. It writes a line for each frame, in the order of
what it did: `lost SEQUENCE` or `sent SEQUENCE`.
"""

from __future__ import annotations

import heapq
import random
import sys
import time

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from roi_codec_ros.msg import CompressedLatent

SOON_S = 0.002


class LossyRelay(Node):
    """Takes frames, forgets some, delays the others."""

    def __init__(self, source: str, target: str, seed: int) -> None:
        super().__init__("relay")
        self.declare_parameter("loss", 0.0)
        self.declare_parameter("jitter_ms", 0.0)
        self._chance = random.Random(seed)
        self._waiting: list[tuple[float, int, CompressedLatent]] = []
        quality = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publisher = self.create_publisher(CompressedLatent, target, quality)
        self.create_subscription(CompressedLatent, source, self._on_frame, quality)

    def _on_frame(self, frame: CompressedLatent) -> None:
        if self._chance.random() < self.get_parameter("loss").value:
            self._say("lost", frame)
            return
        wait_s = self._chance.uniform(0.0, self.get_parameter("jitter_ms").value) / 1e3
        heapq.heappush(self._waiting, (time.monotonic() + wait_s, frame.sequence, frame))

    def send_what_is_due(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            frame = heapq.heappop(self._waiting)[2]
            self._publisher.publish(frame)
            self._say("sent", frame)

    @staticmethod
    def _say(what: str, frame: CompressedLatent) -> None:
        sys.stdout.write(f"{what} {frame.sequence}\n")
        sys.stdout.flush()


def main() -> None:
    source, target, seed = sys.argv[1:4]
    rclpy.init(args=sys.argv)
    relay = LossyRelay(source, target, int(seed))
    try:
        while rclpy.ok():
            rclpy.spin_once(relay, timeout_sec=SOON_S)
            relay.send_what_is_due()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


if __name__ == "__main__":
    main()
