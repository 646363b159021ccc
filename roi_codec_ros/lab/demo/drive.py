# SPDX-License-Identifier: Apache-2.0
"""A drive: a robot in the filmed hall, which the whole graph of nodes watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from roi_codec_ros.codec.models import find_model, model_directories
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.machine import usable_cores
from roi_codec_ros.common.share import shared_file
from roi_codec_ros.config.bringup import NodeSpec, demo_graph, watchdog_graph
from roi_codec_ros.lab.demo.drive_report import Cover, drive_result, unhindered
from roi_codec_ros.lab.demo.processes import ProcessGroup
from roi_codec_ros.lab.demo.running import (
    SILENCE_S,
    Stop,
    running_graph,
    threads_per_process,
)
from roi_codec_ros.lab.demo.twin_plan import TwinPlan, hall_plan
from roi_codec_ros.lab.simulation.collision_monitor import Zone, zones_of
from roi_codec_ros.perception.person_detector import find_weights

if TYPE_CHECKING:
    from roi_codec_ros.lab.demo.robot_node import CloudSource, RobotNode

SNIPPET = "nav2_persons.yaml"
WATCHDOG_SOURCE = "person_watchdog"
SETTLES_S = 1.0  # of the hall, before the drive begins


@dataclass(frozen=True)
class Drive:
    """What drives, and for how long.

    pace: seconds of the hall in a second. rate_hz: of each camera. covers: lenses that are covered
    for a while.
    """

    cameras: Sequence[str]
    covers: Sequence[Cover]
    minutes: float
    pace: float
    rate_hz: float
    seed: int
    model: str
    detector: str

    def run(self, out: Path, stop: Stop, say: Callable[[str], None]) -> dict[str, Any]:
        """Drive to the end; the figures. out: folder of the logs. Raises RoiCodecError."""
        plan = hall_plan(self.cameras, seed=self.seed, pace=self.pace, folder=out / ".source")
        assert plan.stage is not None and plan.clock is not None
        threads = threads_per_process(usable_cores(), len(self.cameras))
        zones, sources = monitor_of(self.pace)
        with running_graph(self._graph(plan, threads), threads, out / "log") as group:
            group.start("hall", plan.filming(self.rate_hz) or [])
            # Not before the processes: they are forked from here, and ROS starts threads.
            from roi_codec_ros.lab.demo.robot_node import RobotNode

            with RobotNode(plan.stage, plan.clock, zones, sources) as robot:
                say(f"starting {', '.join(child.name for child in group.children)}")
                _await_sources(group, robot, stop)
                stop.wait(SETTLES_S / self.pace)
                robot.begin()
                began_s = plan.clock.seconds(time.time_ns())
                self._follow(group, robot, stop)
                log, driven_m = robot.log, robot.driven_m
        free = unhindered(plan.stage, began_s, 60.0 * self.minutes)
        ages_s = sorted(log.ages_s) or [float("nan")]
        return {
            **drive_result(log.moments, log.encounters, driven_m, free, self.covers),
            "cloud_age_s": self.pace * ages_s[len(ages_s) // 2],
            "cameras": len(self.cameras),
            "pace": self.pace,
            "seed": self.seed,
        }

    def _graph(self, plan: TwinPlan, threads: int) -> list[NodeSpec]:
        """Cameras, server and watchdog. What counts seconds gets those of the hall."""
        slow = 1.0 / self.pace
        return [
            *demo_graph(
                dict.fromkeys(self.cameras, "topic"),
                model=str(find_model(self.model).resolve()),
                detector=str(find_weights(self.detector, model_directories()).resolve()),
                camera_parameters={"threads": threads, **plan.camera_parameters},
                server_parameters={
                    "threads": threads,
                    "stale_after_s": 1.0 * slow,
                    **plan.server_parameters,
                },
            ),
            *watchdog_graph(
                cloud_timeout_s=1.0 * slow, coverage_timeout_s=3.0 * slow, base_frame="base_link"
            ),
        ]

    def _follow(self, group: ProcessGroup, robot: RobotNode, stop: Stop) -> None:
        """Cover lenses when it is time, until the drive is over."""
        began_s, covered = time.monotonic(), frozenset[str]()
        while (now_s := self.pace * (time.monotonic() - began_s)) < 60.0 * self.minutes:
            wanted = frozenset(
                name
                for cover in self.covers
                if cover.from_s <= now_s < cover.to_s
                for name in cover.cameras
            )
            if wanted != covered:
                robot.cover(sorted(wanted))
                covered = wanted
            group.check()
            if stop.wait(0.05):
                raise KeyboardInterrupt


def monitor_of(pace: float) -> tuple[list[Zone], dict[str, CloudSource]]:
    """Zones and sources of the collision monitor in the snippet for Nav2, and the watchdog's.

    pace: seconds of the hall in a second, which timeouts are made longer by. Raises RoiCodecError.
    """
    from roi_codec_ros.lab.demo.robot_node import CloudSource

    path = shared_file("config", SNIPPET)
    if path is None:
        raise RoiCodecError(f"expected config/{SNIPPET} of this package, found none")
    given = yaml.safe_load(path.read_text(encoding="utf-8"))["collision_monitor"]
    monitor = given["ros__parameters"]
    sources = {}
    for name in monitor["observation_sources"]:
        source = monitor[name]
        timeout_s = float(source.get("source_timeout", monitor["source_timeout"])) / pace
        sources[name] = CloudSource(
            source["topic"], timeout_s, float(source["min_height"]), float(source["max_height"])
        )
    first = next(iter(sources.values()))
    sources[WATCHDOG_SOURCE] = CloudSource(
        "/person_watchdog/obstacles",
        first.timeout_s,
        first.lowest_m,
        first.highest_m,
        fixed=False,
    )
    return zones_of(monitor), sources


def _await_sources(group: ProcessGroup, robot: RobotNode, stop: Stop) -> None:
    since_s = time.monotonic()
    while not robot.sees:
        group.check()
        if stop.wait(0.1):
            raise KeyboardInterrupt
        if time.monotonic() - since_s > 3 * SILENCE_S:
            raise RoiCodecError(
                f"expected persons/cloud within {3 * SILENCE_S:g} s, found nothing there; the "
                "logs say why"
            )
