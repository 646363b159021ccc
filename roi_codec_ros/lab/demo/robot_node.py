# SPDX-License-Identifier: Apache-2.0
"""The simulated robot on DDS: desired velocity, the collision monitor that limits it, the base.

    wish ─► /cmd_vel_smoothed ─► monitor (persons/cloud, obstacles) ─► /cmd_vel ─► base

The hall may run slower than the clock (`pace`): speeds are those of the hall, and timeouts in
seconds of the clock are scaled accordingly.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist
from numpy.typing import NDArray
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from roi_codec_ros.lab.demo.background_node import BackgroundNode
from roi_codec_ros.lab.demo.filming import COVERED
from roi_codec_ros.lab.simulation.collision_monitor import (
    Decision,
    Velocity,
    Zone,
    in_frame,
    limited,
)
from roi_codec_ros.lab.simulation.driving import Encounters, Robot
from roi_codec_ros.lab.simulation.filmed_hall import HallClock, Stage
from roi_codec_ros.nodes.qos import latched

STEP_S = 0.05  # of the hall
SENSOR = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)


@dataclass(frozen=True)
class CloudSource:
    """A source of the monitor. timeout_s: of the clock. fixed: in the map, else on the robot.

    lowest_m, highest_m: of the points that count.
    """

    topic: str
    timeout_s: float
    lowest_m: float
    highest_m: float
    fixed: bool = True


@dataclass
class Moment:
    """A step of the drive. seconds: of the hall."""

    seconds: float
    x: float
    y: float
    speed: float
    action: str
    zone: str


@dataclass
class Log:
    """What happened in a drive."""

    moments: list[Moment] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)  # of clouds when they came, of the clock
    encounters: Encounters = field(default_factory=Encounters)


class RobotNode(BackgroundNode):
    """Drives until `close`."""

    def __init__(
        self,
        stage: Stage,
        clock: HallClock,
        zones: Sequence[Zone],
        sources: Mapping[str, CloudSource],
    ) -> None:
        super().__init__("simulated_robot")
        self._stage, self._clock, self._zones, self._sources = stage, clock, zones, sources
        self._robot = Robot.at_start(stage.floor)
        self._clouds: dict[str, PointCloud2] = {}
        self._decision = Decision(Velocity())
        self._command = Velocity()
        self._last_s: float | None = None
        self.log = Log()
        make, take = self._node.create_publisher, self._node.create_subscription
        self._wishes, self._commands = (
            make(Twist, "/cmd_vel_smoothed", 1),
            make(Twist, "/cmd_vel", 1),
        )
        self._covered = make(String, COVERED, latched())
        take(Twist, "/cmd_vel_smoothed", self._on_wish, 1)
        take(Twist, "/cmd_vel", self._on_command, 1)
        for name, source in sources.items():
            take(PointCloud2, source.topic, lambda cloud, n=name: self._keep(n, cloud), SENSOR)
        self._node.create_timer(STEP_S / clock.pace, self._step)
        self.start()

    @property
    def sees(self) -> bool:
        """Whether every source has published."""
        return self._clouds.keys() == self._sources.keys()

    def begin(self) -> None:
        """Count from now on."""
        self._robot = Robot.at_start(self._stage.floor)
        self.log = Log()

    def cover(self, cameras: Sequence[str]) -> None:
        """Cover the lenses of exactly these cameras."""
        self._covered.publish(String(data=json.dumps(list(cameras))))

    @property
    def driven_m(self) -> float:
        """Since the beginning."""
        return self._robot.driven_m

    def _keep(self, name: str, cloud: PointCloud2) -> None:
        self._clouds[name] = cloud
        if self._sources[name].fixed:
            self.log.ages_s.append(_age_s(cloud))

    def _on_wish(self, message: Twist) -> None:
        """The monitor's part."""
        wish = Velocity(message.linear.x, message.linear.y, message.angular.z)
        points = {name: self._points(name) for name in self._sources}
        self._decision = limited(wish, self._zones, points)
        self._commands.publish(_twist(self._decision.velocity))

    def _on_command(self, message: Twist) -> None:
        """The base's part."""
        self._command = Velocity(message.linear.x, message.linear.y, message.angular.z)

    def _points(self, name: str) -> NDArray[np.float64] | None:
        """Points of a source in the robot's frame; None while it is silent or too old."""
        cloud, source = self._clouds.get(name), self._sources[name]
        if cloud is None:
            return None
        if _age_s(cloud) > source.timeout_s:
            return None
        points = np.frombuffer(bytes(cloud.data), np.float32).reshape(-1, 3)
        heights = points[:, 2]
        points = points[(heights >= source.lowest_m) & (heights <= source.highest_m), :2]
        if not source.fixed:
            return np.asarray(points, np.float64)
        return in_frame(points, self._robot.x, self._robot.y, self._robot.yaw)

    def _step(self) -> None:
        now_s = self._clock.seconds(time.time_ns())
        passed_s = STEP_S if self._last_s is None else min(now_s - self._last_s, 1.0)
        self._last_s = now_s
        robot = self._robot
        robot.drive(self._command, passed_s)
        self.log.encounters.look(robot, *self._stage.at(now_s))
        decision = self._decision
        self.log.moments.append(
            Moment(now_s, robot.x, robot.y, robot.velocity.x, decision.action, decision.zone)
        )
        self._wishes.publish(_twist(robot.wanted()))


def _age_s(cloud: PointCloud2) -> float:
    stamp = cloud.header.stamp
    return time.time() - stamp.sec - 1e-9 * stamp.nanosec


def _twist(velocity: Velocity) -> Any:
    message = Twist()
    message.linear.x, message.linear.y = velocity.x, velocity.y
    message.angular.z = velocity.turn
    return message
