# SPDX-License-Identifier: Apache-2.0
"""Run the whole graph on one machine and show what it does: frames, bits, latency, persons.

Starts an encoder per camera, decoder, detector and tracker as processes of their own that talk
over DDS, watches them, and leaves a side-by-side video, a contact sheet and report.json behind.
Without --source one camera films photographs that installed packages carry: no camera, no
download. Several cameras film people cut out of one, who walk through a simulated hall: their
places are known, so that the report says how well they were followed.

example:
  roi-codec demo
  roi-codec demo --cameras 3
  roi-codec demo --source street.mp4 --seconds 60 --out street
  roi-codec demo --source /dev/video0 --seconds 0         until Ctrl-C
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, outputs, positive
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import json_bytes, same_file, write
from roi_codec_ros.common.output_files import Output, RunFolder
from roi_codec_ros.lab.commands import demo_twin
from roi_codec_ros.lab.demo.running import (
    Stop,
    await_persons,
    camera_names,
    check_ros,
    node_environment,
    private_ros_environment,
    process_name,
    threads_per_process,
)
from roi_codec_ros.lab.demo.twin_plan import TwinPlan

if TYPE_CHECKING:
    from roi_codec_ros.lab.demo.ledger import DemoLedger
    from roi_codec_ros.lab.demo.outputs import Run
    from roi_codec_ros.lab.demo.processes import ProcessGroup
    from roi_codec_ros.lab.demo.report import Summary
    from roi_codec_ros.stream.sources import Source

RATE_HZ = 10.0
RESULTS = ("report.json", "contact_sheet.png", "side_by_side.mp4")  # in --out
ROLLING_S = 3.0
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--source",
        metavar="SOURCE",
        help="video or picture file, folder of pictures, /dev/videoN or stream address that every "
        "camera shows (default: installed photographs behind a virtual camera, or a hall)",
    )
    parser.add_argument(
        "--detector",
        default="",
        metavar="WEIGHTS",
        help="YOLO weights with a class named person (default: models/person-*.pt, else what "
        "ultralytics fetches)",
    )
    parser.add_argument(
        "--cameras", type=positive, default=1, metavar="N", help="number of cameras (default 1)"
    )
    parser.add_argument(
        "--seconds",
        type=_not_negative,
        default=20.0,
        metavar="S",
        help="how long to run, from the first frame that came through (default 20; 0: until "
        "Ctrl-C)",
    )
    parser.add_argument(
        "--model", default="fast", metavar="NAME", help="model name or file (default fast)"
    )
    parser.add_argument(
        "--rate",
        type=_not_negative,
        default=RATE_HZ,
        metavar="HZ",
        help=f"most frames per second of a camera (default {RATE_HZ:g}; 0: as many as it has)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo_out"),
        metavar="DIR",
        help="folder for the results (default demo_out)",
    )
    demo_twin.add_arguments(parser)
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the demo to its end.

    Raises RoiCodecError for what can't be run, and KeyboardInterrupt when told to stop before the
    first frame came through; later a stop is the regular end.
    """
    check_ros()
    source = Path(args.source) if args.source and Path(args.source).is_file() else None
    files = outputs(args, "json", inputs=[source, args.model])
    if source is not None and any(same_file(source, args.out / name) for name in RESULTS):
        raise UsageError(f"expected --source and --out apart, found {source} among the results")
    with RunFolder(args.out, "demo", (*RESULTS, "log", ".source"), force=args.force):
        plan = _plan(args)
        if not plan.trained:
            _say("note: the model is untrained; what it codes is not anonymized")
        with Stop() as stop:
            finished = _run_graph(args, plan, stop)
        _write_results(finished, plan, args.out, files.get("json"))


# ------------------------------------------------------------------------------------ what to run


@dataclass(frozen=True)
class Plan:
    """What to start. sources: camera name → source; weights: the detector's file."""

    sources: dict[str, str]
    model: Path
    weights: Path
    twin: TwinPlan
    trained: bool = True


def _plan(args: argparse.Namespace) -> Plan:
    from roi_codec_ros.codec.model_file import read_model
    from roi_codec_ros.codec.models import find_model, model_directories
    from roi_codec_ros.perception.person_detector import find_weights

    simulated = demo_twin.simulates(args)
    model = find_model(args.model)
    # Read here, so that a damaged file is refused before anything is started.
    trained = read_model(model).header.get("trained") is not False
    weights = find_weights(args.detector, model_directories())
    names = camera_names(args.cameras)
    sources = dict.fromkeys(names, "topic") if simulated else _sources(args, names)
    twin = demo_twin.plan_twin(args, names)
    return Plan(sources, model.resolve(), weights.resolve(), twin, trained)


def _sources(args: argparse.Namespace, names: list[str]) -> dict[str, str]:
    if args.source is None:
        from roi_codec_ros.lab.simulation.photograph_cameras import photograph_cameras

        folders = [_cache_folder(), args.out / ".source"]
        videos = photograph_cameras(args.cameras, folders, _say)
        return dict(zip(names, map(str, videos), strict=True))
    from roi_codec_ros.stream.sources import SourceKind, parse_source

    # FFmpeg would write its own opinion of a broken file beside our one line.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    source = parse_source(args.source)
    if source.kind is SourceKind.DEVICE and args.cameras > 1:
        raise UsageError(
            f"expected --cameras 1 for the device {args.source}, found {args.cameras}"
        )
    if source.target.startswith("/dev/") and not Path(source.target).exists():
        raise RoiCodecError(f"expected a camera at {source.target}, found no such device")
    if not source.live:
        _check_frames(source)  # says now, on one line, what the encoder would say later
    if source.kind is SourceKind.VIDEO and args.pace != 1:
        return dict.fromkeys(names, str(_at_another_pace(source, args)))
    text = args.source if source.live else str(Path(source.target).resolve())
    return dict.fromkeys(names, text)


def _check_frames(source: Source) -> None:
    """Raises RoiCodecError where no frame of a file or a folder can be read."""
    from roi_codec_ros.common.photographs import PhotographError
    from roi_codec_ros.stream.frame_readers import open_source

    reader = open_source(source)
    reason = ""
    try:
        while reader.advance():
            try:
                if reader.image() is not None:
                    return
            except PhotographError as error:
                reason = reason or f"; the first: {error}"
    finally:
        reader.close()
    raise RoiCodecError(f"expected frames in {source.text}, found none to read{reason}")


def _at_another_pace(source: Source, args: argparse.Namespace) -> Path:
    """The same video, faster or slower: encoders play files in real time."""
    from roi_codec_ros.common.films import FALLBACK_RATE_HZ, Film
    from roi_codec_ros.lab.simulation.photograph_cameras import render_film

    path = (args.out / ".source" / "paced.avi").resolve()
    path.parent.mkdir(exist_ok=True)
    _say(f"playing {source.target} at {args.pace:g} of its speed")
    with Film(source.target) as film:
        size = film.properties.height, film.properties.width
        rate_hz = (film.properties.frame_rate_hz or FALLBACK_RATE_HZ) * args.pace
        frames = (frame.image[..., ::-1] for frame in film)
        render_film(path, frames, frame_size=size, frames_per_second=rate_hz)
    return path


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "roi_codec_ros"
    except RuntimeError:  # no home
        return Path("/nonexistent")


# ---------------------------------------------------------------------------------------- running


def _run_graph(args: argparse.Namespace, plan: Plan, stop: Stop) -> Run:
    from roi_codec_ros.common.machine import usable_cores
    from roi_codec_ros.config.bringup import command, demo_graph, joined
    from roi_codec_ros.lab.demo.ledger import DemoLedger
    from roi_codec_ros.lab.demo.processes import ProcessGroup

    logs = args.out / "log"
    # The monitor in this process must meet the nodes, so it lives in the same ROS environment.
    os.environ.update(private_ros_environment(os.environ, logs.resolve()))
    threads = threads_per_process(usable_cores(), args.cameras)
    graph = demo_graph(
        plan.sources,
        model=str(plan.model),
        detector=str(plan.weights),
        camera_parameters={
            "rate_hz": args.rate,
            "threads": threads,
            **plan.twin.camera_parameters,
        },
        server_parameters={"threads": threads, **plan.twin.server_parameters},
    )
    with ProcessGroup(node_environment(threads), logs) as group:
        for spec in joined(graph):
            group.start(process_name(spec.full_name), command(spec))
        filming = plan.twin.filming(args.rate or RATE_HZ)
        if filming is not None:
            group.start("hall", filming)
        # Not before the processes: they are forked from here, and ROS starts threads.
        from roi_codec_ros.lab.demo.monitor import DemoMonitor

        ledger = DemoLedger(list(plan.sources))
        with DemoMonitor(list(plan.sources), ledger):
            _say(f"starting {', '.join(child.name for child in group.children)}")
            await_persons(group, ledger, stop)
            start_s = ledger.restart()
            end_s = _watch(args, group, ledger, stop, start_s)
    return _finished(plan, ledger, start_s, end_s)


def _watch(
    args: argparse.Namespace,
    group: ProcessGroup,
    ledger: DemoLedger,
    stop: Stop,
    start_s: float,
) -> float:
    """Show the table until the time is over or the user has seen enough; when that was."""
    end_s = start_s + args.seconds if args.seconds else float("inf")
    with _table(args, ledger.model) as show:
        while True:
            now_s = time.monotonic()
            if now_s >= end_s:
                return end_s
            if stop.wait(min(0.1, end_s - now_s)):
                break
            group.check()
            now_s = time.monotonic()
            rolling = ledger.summaries(max(start_s, now_s - ROLLING_S), now_s)
            show(now_s - start_s, rolling)
    _say(f"ended by {stop.reason}")
    return time.monotonic()


def _finished(plan: Plan, ledger: DemoLedger, start_s: float, end_s: float) -> Run:
    from roi_codec_ros.lab.demo.outputs import Run
    from roi_codec_ros.lab.demo.truth import with_twin
    from roi_codec_ros.lab.simulation.photograph_cameras import SourceFrames
    from roi_codec_ros.stream.frame_readers import open_source
    from roi_codec_ros.stream.sources import parse_source

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


# ---------------------------------------------------------------------------------------- showing


def _say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def _table(args: argparse.Namespace, model: str) -> Iterator:
    """A function of (elapsed seconds, summaries) that shows them: in place or, piped, as lines."""
    table = _LiveTable(args.seconds, model) if sys.stdout.isatty() else _LineTable()
    try:
        yield table.show
    finally:
        table.close()


class _LiveTable:
    """Redraws itself in place twice a second."""

    def __init__(self, seconds: float, model: str) -> None:
        self._seconds = seconds
        self._model = model
        self._lines = 0
        self._next_s = 0.0

    def show(self, elapsed_s: float, summaries: list[Summary]) -> None:
        if elapsed_s < self._next_s:
            return
        from roi_codec_ros.lab.demo.report import table_lines

        self._next_s = elapsed_s + 0.5
        total = f" of {self._seconds:g}" if self._seconds else ""
        header, *rows = table_lines(summaries)
        width = shutil.get_terminal_size().columns - 1  # a line that wraps spoils the redrawing
        title = f"roi-codec demo   model {self._model}   {elapsed_s:.0f}{total} s   Ctrl-C ends it"
        lines = [
            _BOLD + title[:width] + _PLAIN,
            _DIM + header[:width] + _PLAIN,
            *(row[:width] for row in rows),
        ]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        body = "".join(f"\x1b[2K{line}\n" for line in lines)
        sys.stdout.write(f"{_HIDE_CURSOR}{up}{body}")
        sys.stdout.flush()
        self._lines = len(lines)

    def close(self) -> None:
        sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()


class _LineTable:
    """Writes a line per camera every two seconds."""

    def __init__(self) -> None:
        self._next_s = 2.0
        self._started = False

    def show(self, elapsed_s: float, summaries: list[Summary]) -> None:
        if elapsed_s < self._next_s:
            return
        from roi_codec_ros.lab.demo.report import table_lines

        self._next_s += 2.0
        header, *rows = table_lines(summaries)
        if not self._started:
            _say(f"  time  {header}")
            self._started = True
        for row in rows:
            _say(f"{elapsed_s:4.0f} s  {row}")

    def close(self) -> None:
        """Nothing to do."""


# ---------------------------------------------------------------------------------------- results


def _write_results(finished: Run, plan: Plan, out: Path, json_file: Output | None) -> None:
    from roi_codec_ros.lab.demo.outputs import write_contact_sheet, write_side_by_side
    from roi_codec_ros.lab.demo.report import report, table_lines
    from roi_codec_ros.lab.demo.truth import truth_lines, with_truth

    content = report(finished.model, finished.seconds, finished.summaries)
    finished, compared = with_truth(finished, plan.twin)
    content.update(compared)
    report_file, sheet, video = RESULTS
    write(out / report_file, json_bytes(content))
    if json_file is not None:
        json_file.write_json(content)
    _say(f"\nover {finished.seconds:.1f} s (latencies: medians in ms; rates in kbit/s):")
    for line in [*table_lines(finished.summaries), *truth_lines(content)]:
        _say(line)
    written = [report_file]
    if finished.cameras:
        _say("\nmaking the pictures")
        write_contact_sheet(finished, out / sheet)
        write_side_by_side(finished, out / video)
        written += [sheet, video]
    _say(f"{out}: {', '.join(written)} (logs in {out / 'log'})")


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


_not_negative.__name__ = "number of 0 or more"
