# SPDX-License-Identifier: Apache-2.0
"""The graph of a demo: started, watched and ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from roi_codec_ros.common.machine import usable_cores
from roi_codec_ros.config.bringup import demo_graph
from roi_codec_ros.lab.demo.ledger import DemoLedger
from roi_codec_ros.lab.demo.live_table import LineTable, LiveTable, progress_table
from roi_codec_ros.lab.demo.outputs import Run
from roi_codec_ros.lab.demo.processes import ProcessGroup
from roi_codec_ros.lab.demo.running import (
    RATE_HZ,
    Stop,
    await_persons,
    running_graph,
    threads_per_process,
)
from roi_codec_ros.lab.demo.truth import with_twin
from roi_codec_ros.lab.demo.twin_plan import TwinPlan
from roi_codec_ros.lab.simulation.photograph_cameras import SourceFrames
from roi_codec_ros.stream.frame_readers import open_source
from roi_codec_ros.stream.sources import parse_source

ROLLING_S = 3.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to start. sources: camera name → source; weights: the detector's file."""

    sources: dict[str, str]
    model: Path
    weights: Path
    twin: TwinPlan
    trained: bool = True


@dataclass(frozen=True)
class DemoOptions:
    """Settings of a run. seconds: 0: until stopped. rate_hz: of a camera, 0: its own."""

    out: Path
    seconds: float
    rate_hz: float


def run_graph(plan: Plan, options: DemoOptions, stop: Stop, say: Say) -> Run:
    """Start the graph, watch it until the time is over or it is stopped, and end it.

    say: prints a line for the user.
    """
    threads = threads_per_process(usable_cores(), len(plan.sources))
    graph = demo_graph(
        plan.sources,
        model=str(plan.model),
        detector=str(plan.weights),
        camera_parameters={
            "rate_hz": options.rate_hz,
            "threads": threads,
            **plan.twin.camera_parameters,
        },
        server_parameters={"threads": threads, **plan.twin.server_parameters},
    )
    with running_graph(graph, threads, options.out / "log") as group:
        filming = plan.twin.filming(options.rate_hz or RATE_HZ)
        if filming is not None:
            group.start("hall", filming)
        # Not before the processes: they are forked from here, and ROS starts threads.
        from roi_codec_ros.lab.demo.monitor import DemoMonitor

        ledger = DemoLedger(list(plan.sources))
        with DemoMonitor(list(plan.sources), ledger):
            say(f"starting {', '.join(child.name for child in group.children)}")
            await_persons(group, ledger, stop)
            start_s = ledger.restart()
            table = progress_table(options.seconds, ledger.model, say)
            end_s = _watch(options.seconds, group, ledger, stop, start_s, table)
            if stop.reason:
                say(f"ended by {stop.reason}")
    return _finished(plan, ledger, start_s, end_s)


def _watch(
    seconds: float,
    group: ProcessGroup,
    ledger: DemoLedger,
    stop: Stop,
    start_s: float,
    table: LiveTable | LineTable,
) -> float:
    """Show the table until the time is over or the user has seen enough; when that was."""
    end_s = start_s + seconds if seconds else float("inf")
    try:
        while True:
            now_s = time.monotonic()
            if now_s >= end_s:
                return end_s
            if stop.wait(min(0.1, end_s - now_s)):
                return time.monotonic()
            group.check()
            now_s = time.monotonic()
            rolling = ledger.summaries(max(start_s, now_s - ROLLING_S), now_s)
            table.show(now_s - start_s, rolling)
    finally:
        table.close()


def _finished(plan: Plan, ledger: DemoLedger, start_s: float, end_s: float) -> Run:
    raw_frames = {}
    for camera, text in plan.sources.items():
        source = parse_source(text)
        if not source.live:
            raw_frames[camera] = SourceFrames(partial(open_source, source)).read
    finished = Run(
        model=ledger.model,
        seconds=end_s - start_s,
        summaries=ledger.summaries(start_s, end_s),
        moments=ledger.moments(),
        raw_frames=raw_frames,
        fields_of_view_deg=ledger.fields_of_view(),
        trained=plan.trained,
    )
    return with_twin(finished, plan.twin, ledger)
