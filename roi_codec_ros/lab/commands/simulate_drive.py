# SPDX-License-Identifier: Apache-2.0
"""The drive of `roi-codec simulate --drive`: a robot in the hall, by the whole graph."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import outputs, positive, positive_real
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.output_files import RunFolder
from roi_codec_ros.lab.demo.running import (
    SILENCE_S,
    Stop,
    camera_names,
    check_ros,
    node_environment,
    private_ros_environment,
    process_name,
    threads_per_process,
)

if TYPE_CHECKING:
    from roi_codec_ros.lab.demo.drive_report import Cover
    from roi_codec_ros.lab.demo.processes import ProcessGroup
    from roi_codec_ros.lab.demo.robot_node import CloudSource, RobotNode
    from roi_codec_ros.lab.demo.twin_plan import TwinPlan
    from roi_codec_ros.lab.simulation.collision_monitor import Zone

WRITTEN = ("log", ".source")
SNIPPET = "nav2_persons.yaml"
WATCHDOG_SOURCE = "person_watchdog"
SETTLES_S = 1.0  # of the hall, before the drive begins


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a drive."""
    group = parser.add_argument_group("drive")
    group.add_argument(
        "--drive",
        action="store_true",
        help="drive a robot through a filmed hall, limited by a collision monitor with the zones "
        f"of {SNIPPET}, which the real nodes feed; lenses are covered midway",
    )
    group.add_argument(
        "--cameras", type=positive, default=2, metavar="N", help="number of cameras (default: 2)"
    )
    group.add_argument(
        "--pace",
        type=positive_real,
        default=1.0,
        metavar="X",
        help="simulated seconds per second: below 1 for slow machines (default: 1)",
    )
    group.add_argument(
        "--rate",
        type=positive_real,
        default=5.0,
        metavar="HZ",
        help="frames per second of a camera (default: %(default)g)",
    )
    group.add_argument(
        "--cover",
        action="append",
        default=[],
        metavar="CAMERA@FROM-TO",
        help="cover a lens, or all, between these seconds (default: one for a while, then all)",
    )
    group.add_argument("--model", default="fast", help="name or file (default: %(default)s)")
    group.add_argument("--detector", default="", metavar="WEIGHTS", help="YOLO weights")
    group.add_argument(
        "--out",
        type=Path,
        default=Path("drive_out"),
        metavar="DIR",
        help="folder for the logs (default: %(default)s)",
    )


def run_drive(args: argparse.Namespace) -> None:
    """Run the drive. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.lab.demo.drive_report import covers_of, table_lines

    check_ros()
    names = camera_names(args.cameras)
    covers = covers_of(args.cover, names, 60.0 * args.minutes)
    files = outputs(args, "json")
    with RunFolder(args.out, "drive", WRITTEN, force=args.force), Stop() as stop:
        result = _drive(args, names, covers, stop)
    if args.json:
        files["json"].write_json(result)
    print("\n".join(table_lines(result)))


def _drive(
    args: argparse.Namespace, names: list[str], covers: list[Cover], stop: Stop
) -> dict[str, Any]:
    from roi_codec_ros.common.machine import usable_cores
    from roi_codec_ros.config.bringup import command, joined
    from roi_codec_ros.lab.demo.drive_report import drive_result, unhindered
    from roi_codec_ros.lab.demo.processes import ProcessGroup
    from roi_codec_ros.lab.demo.twin_plan import hall_plan

    os.environ.update(private_ros_environment(os.environ, (args.out / "log").resolve()))
    plan = hall_plan(names, seed=args.seed, pace=args.pace, folder=args.out / ".source")
    assert plan.stage is not None and plan.clock is not None
    threads = threads_per_process(usable_cores(), args.cameras)
    zones, sources = monitor_of(args.pace)
    with ProcessGroup(node_environment(threads), args.out / "log") as group:
        for spec in joined(_graph(args, names, plan, threads)):
            group.start(process_name(spec.full_name), command(spec))
        group.start("hall", plan.filming(args.rate) or [])
        # Not before the processes: they are forked from here, and ROS starts threads.
        from roi_codec_ros.lab.demo.robot_node import RobotNode

        with RobotNode(plan.stage, plan.clock, zones, sources) as robot:
            print(f"starting {', '.join(child.name for child in group.children)}", flush=True)
            _await_sources(group, robot, stop)
            stop.wait(SETTLES_S / args.pace)
            robot.begin()
            began_s = plan.clock.seconds(time.time_ns())
            _follow(args, group, robot, covers, stop)
            log, driven_m = robot.log, robot.driven_m
    free = unhindered(plan.stage, began_s, 60.0 * args.minutes)
    result = drive_result(log.moments, log.encounters, driven_m, free, covers)
    ages_s = sorted(log.ages_s) or [float("nan")]
    return {
        **result,
        "cloud_age_s": args.pace * ages_s[len(ages_s) // 2],
        "cameras": args.cameras,
        "pace": args.pace,
        "seed": args.seed,
    }


def _graph(args: argparse.Namespace, names: list[str], plan: TwinPlan, threads: int) -> list[Any]:
    """Cameras, server and watchdog. What counts seconds gets those of the hall."""
    from roi_codec_ros.codec.models import find_model, model_directories
    from roi_codec_ros.config.bringup import demo_graph, watchdog_graph
    from roi_codec_ros.perception.person_detector import find_weights

    slow = 1.0 / args.pace
    return [
        *demo_graph(
            dict.fromkeys(names, "topic"),
            model=str(find_model(args.model).resolve()),
            detector=str(find_weights(args.detector, model_directories()).resolve()),
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


def monitor_of(pace: float) -> tuple[list[Zone], dict[str, CloudSource]]:
    """Zones and sources of the collision monitor in the snippet for Nav2, and the watchdog's.

    pace: seconds of the hall in a second, which timeouts are made longer by. Raises RoiCodecError.
    """
    import yaml

    from roi_codec_ros.common.share import share_folders
    from roi_codec_ros.lab.demo.robot_node import CloudSource
    from roi_codec_ros.lab.simulation.collision_monitor import zones_of

    found = [folder / SNIPPET for folder in share_folders("config")]
    path = next((path for path in found if path.is_file()), None)
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


def _follow(
    args: argparse.Namespace,
    group: ProcessGroup,
    robot: RobotNode,
    covers: list[Cover],
    stop: Stop,
) -> None:
    """Cover lenses when it is time, until the drive is over."""
    began_s, covered = time.monotonic(), frozenset[str]()
    while (now_s := args.pace * (time.monotonic() - began_s)) < 60.0 * args.minutes:
        wanted = frozenset(
            name
            for cover in covers
            if cover.from_s <= now_s < cover.to_s
            for name in cover.cameras
        )
        if wanted != covered:
            robot.cover(sorted(wanted))
            covered = wanted
        group.check()
        if stop.wait(0.05):
            raise KeyboardInterrupt
