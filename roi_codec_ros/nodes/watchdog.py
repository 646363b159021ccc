# SPDX-License-Identifier: Apache-2.0
"""watchdog_node: stops a robot when it is no longer known whether people are in its way.

    persons/{cloud, coverage, health} ─► silent, old, blind? ─► ~/stop, ~/obstacles

It runs on the robot. ~/stop is true while an input is missing, for a lock of twist_mux or a base
    driver. ~/obstacles is then a ring around the robot, else empty: a source for Nav2's collision
    monitor only, since in a costmap the robot would stand in lethal cells.
"""

from __future__ import annotations

import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Bool, Header

from roi_codec_ros.config.parameters import WatchdogParameters
from roi_codec_ros.nodes import qos
from roi_codec_ros.nodes.base import ManagedNode
from roi_codec_ros.nodes.diagnostics import Figure, Level, Status
from roi_codec_ros.nodes.map_messages import cloud_from_points, person_rings
from roi_codec_ros.stream.missing import CamerasWatched, Watched

NOBODY = np.zeros((0, 3), np.float32)


class WatchdogNode(ManagedNode):
    """Publishes `~/stop` and `~/obstacles`."""

    executable = "watchdog_node"
    settings: WatchdogParameters

    def __init__(self) -> None:
        super().__init__("person_watchdog")
        self._complaint = ""
        self._stops = 0

    def configure(self) -> None:
        """Create publishers and subscriptions."""
        self._cloud = Watched("persons/cloud", self.settings.cloud_timeout_s)
        self._coverage = Watched("persons/coverage", self.settings.coverage_timeout_s)
        self._cameras = CamerasWatched(self.settings.required_cameras)
        self._stop_topic = self.publisher(Bool, "~/stop", qos.reliable())
        self._obstacles = self.publisher(PointCloud2, "~/obstacles", qos.reliable())
        self.subscription(PointCloud2, "persons/cloud", self._on_cloud, qos.reliable())
        self.lasting_subscription(OccupancyGrid, "persons/coverage", self._on_coverage)
        self.lasting_subscription(DiagnosticArray, "persons/health", self._on_health)

    def activate(self) -> None:
        """Start publishing; earlier messages do not count."""
        self._cloud.heard_s = None
        self._timer = self.timer(1.0 / self.settings.rate_hz, self._judge)

    def deactivate(self) -> None:
        """Stop publishing."""
        self.destroy_timer(self._timer)

    def _on_cloud(self, message: PointCloud2) -> None:
        self._cloud.heard(time.monotonic(), self.age_s(message.header))

    def _on_coverage(self, message: OccupancyGrid) -> None:
        self._coverage.heard(time.monotonic(), self.age_s(message.header))

    def _on_health(self, message: DiagnosticArray) -> None:
        self._cameras.heard(
            {
                status.hardware_id: "" if status.level == DiagnosticStatus.OK else status.message
                for status in message.status
            }
        )

    def _judge(self) -> None:
        now_s = time.monotonic()
        self._cloud.timeout_s = self.settings.cloud_timeout_s
        self._coverage.timeout_s = self.settings.coverage_timeout_s
        complaints = [self._cloud.complaint(now_s)]
        if self.settings.coverage_timeout_s:
            complaints.append(self._coverage.complaint(now_s))
        complaints.append(self._cameras.complaint())
        complaint = "; ".join(said for said in complaints if said)
        if complaint and not self._complaint:
            self._stops += 1
            self.get_logger().warning(f"stop: {complaint}")
        elif self._complaint and not complaint:
            self.get_logger().info("may drive: all inputs are present")
        self._complaint = complaint
        self._stop_topic.publish(Bool(data=bool(complaint)))
        header = Header(frame_id=self.settings.base_frame)
        header.stamp = self.get_clock().now().to_msg()
        ring = person_rings([[0.0, 0.0]], self.settings.ring_radius_m) if complaint else NOBODY
        self._obstacles.publish(cloud_from_points(ring, header))

    def statuses(self) -> list[Status]:
        """Diagnostics of this node."""
        values: dict[str, Figure] = {
            "stop": bool(self._complaint),
            "stops": self._stops,
            "cloud_age_s": self._cloud.age_s,
            "blind": ", ".join(self._cameras.blind),
        }
        if self._complaint:
            return [Status("watchdog", Level.ERROR, f"stop: {self._complaint}", values)]
        return [Status("watchdog", Level.OK, "all inputs are present", values)]
