# SPDX-License-Identifier: Apache-2.0
"""Run cameras and server for a long time, and check that memory and latency do not grow.

An encoder per camera, the server and the tracker run as processes of their own over DDS. The first
minutes after the warm-up are compared with the last ones. The exit status is 1 if memory grew by
more than 2 % or the latency of the fastest tenth of the frames by more than 10 %. With --burst the
cameras take four times as many frames for ten seconds, halfway; then it is 1 also if frames come
late for more than two seconds after that.

example:
  roi-codec soak --minutes 30 --cameras 4 --rate 0.5 --json soak.json
  roi-codec soak --source street.mp4 yard.mp4 --minutes 600
  roi-codec soak --minutes 10 --cameras 8 --burst
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    outputs,
    positive,
    positive_real,
)
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.output_files import RunFolder
from roi_codec_ros.lab.demo.running import (
    Stop,
    await_persons,
    camera_names,
    check_ros,
    node_environment,
    private_ros_environment,
    process_name,
)

if TYPE_CHECKING:
    from roi_codec_ros.config.bringup import NodeSpec
    from roi_codec_ros.lab.demo.processes import ProcessGroup
    from roi_codec_ros.lab.tools.burst import Burst
    from roi_codec_ros.lab.tools.camera_rates import CameraRates
    from roi_codec_ros.lab.tools.soak import ProcessSample, Span

SAMPLE_S = 5.0
BURST = 4.0
AROUND_BURST = 3  # times as long as it is the run has to be
WRITTEN = ("log", ".source")  # in --out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--minutes", type=positive_real, default=30.0, help="duration (default: %(default)g)"
    )
    parser.add_argument(
        "--warmup",
        type=positive_real,
        default=2.0,
        metavar="MINUTES",
        help="time at the start that is not evaluated (default: %(default)g)",
    )
    parser.add_argument(
        "--window",
        type=positive_real,
        default=5.0,
        metavar="MINUTES",
        help="length of the first and the last window, which are compared (default: %(default)g)",
    )
    parser.add_argument(
        "--cameras", type=positive, default=4, metavar="N", help="number of cameras (default: 4)"
    )
    parser.add_argument(
        "--source",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="videos that the cameras show in turn (default: installed photographs)",
    )
    parser.add_argument(
        "--rate",
        type=positive_real,
        default=1.0,
        metavar="HZ",
        help="frames per second of a camera (default: %(default)g)",
    )
    parser.add_argument(
        "--burst",
        nargs="?",
        const=BURST,
        type=positive_real,
        metavar="TIMES",
        help="halfway, multiply the frame rate by this (default: %(const)g)",
    )
    parser.add_argument(
        "--burst-s",
        type=positive_real,
        default=10.0,
        metavar="S",
        help="duration of the burst (default: %(default)g)",
    )
    parser.add_argument(
        "--max-width",
        type=positive,
        default=384,
        metavar="PX",
        help="width that frames are coded at (default: %(default)s)",
    )
    parser.add_argument("--model", default="fast", help="name or file (default: %(default)s)")
    parser.add_argument("--detector", default="", metavar="WEIGHTS", help="YOLO weights")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("soak_out"),
        metavar="DIR",
        help="folder for the logs (default: %(default)s)",
    )
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.lab.tools.burst import FORGOTTEN_S, burst_line
    from roi_codec_ros.lab.tools.soak import table_lines

    seconds = 60 * (args.minutes - args.warmup)
    if seconds <= 0:
        raise UsageError(
            f"expected more minutes than the {args.warmup:g} of the warm-up, "
            f"found {args.minutes:g}"
        )
    if args.burst and seconds < AROUND_BURST * args.burst_s:
        raise UsageError(
            f"expected {AROUND_BURST * args.burst_s:g} s or more after the warm-up around a burst "
            f"of {args.burst_s:g} s, found {seconds:g} s"
        )
    check_ros()
    files = outputs(args, "json", inputs=args.source or ())
    with RunFolder(args.out, "soak", WRITTEN, force=args.force), Stop() as stop:
        result = _soak(args, stop)
    if args.json:
        files["json"].write_json(result)
    print("\n".join(table_lines(result)))
    burst = result["burst"]
    if burst:
        print(burst_line(burst))
    if not (result["memory_flat"] and result["latency_steady"]):
        raise RoiCodecError("expected memory and latency to stay, found them to grow")
    if burst and not burst["forgotten"]:
        raise RoiCodecError(
            f"expected a burst to be forgotten within {FORGOTTEN_S:g} s, found frames late for "
            f"{burst['late_s']:.1f} s"
        )


def _graph(args: argparse.Namespace) -> list[NodeSpec]:
    from roi_codec_ros.codec.models import find_model, model_directories
    from roi_codec_ros.config.bringup import demo_graph
    from roi_codec_ros.lab.simulation.photograph_cameras import photograph_cameras
    from roi_codec_ros.perception.person_detector import find_weights

    names = camera_names(args.cameras)
    for path in args.source or ():
        if not path.is_file():
            raise RoiCodecError(f"expected a video at {path}, found none")
    videos = args.source or photograph_cameras(args.cameras, [args.out / ".source"], print)
    return demo_graph(
        {name: str(videos[n % len(videos)].resolve()) for n, name in enumerate(names)},
        model=str(find_model(args.model).resolve()),
        detector=str(find_weights(args.detector, model_directories()).resolve()),
        camera_parameters={"rate_hz": args.rate, "threads": 1, "max_width": args.max_width},
        server_parameters={"threads": 1, "stale_after_s": max(2.0, 3.0 / args.rate)},
    )


def _soak(args: argparse.Namespace, stop: Stop) -> dict[str, Any]:
    from roi_codec_ros.common.machine import describe_machine
    from roi_codec_ros.config.bringup import command, joined
    from roi_codec_ros.lab.demo.processes import ProcessGroup
    from roi_codec_ros.lab.tools.soak import (
        SoakBook,
        Span,
        first_and_last,
        latency_row,
        soak_result,
    )

    specs = _graph(args)
    os.environ.update(private_ros_environment(os.environ, (args.out / "log").resolve()))
    with ProcessGroup(node_environment(1), args.out / "log") as group:
        for spec in joined(specs):
            group.start(process_name(spec.full_name), command(spec))
        # Not before the processes: they are forked from here, and ROS starts threads.
        from roi_codec_ros.lab.demo.monitor import DemoMonitor
        from roi_codec_ros.lab.tools.camera_rates import CameraRates

        names = camera_names(args.cameras)
        book = SoakBook(names)
        with DemoMonitor(names, book), CameraRates(names) as rates:
            await_persons(group, book, stop)
            whole, samples, burst = _watch(args, group, rates, stop)
    between = burst.span if burst else None
    first, last = first_and_last(whole, 60 * args.warmup, 60 * args.window, between)
    if whole.end_s <= first.start_s:
        raise RoiCodecError("ended within the warm-up: nothing to compare")
    result = soak_result(samples, book, first, last)
    settled = Span(first.start_s, whole.end_s)
    result["burst"] = burst and burst.result(book, names, settled, args.rate)
    settings = {
        "machine": describe_machine(threads=1),
        "minutes": whole.minutes,
        "warmup_minutes": args.warmup,
        "window_minutes": first.minutes,
        "cameras": args.cameras,
        "rate_hz": args.rate,
        "max_width": args.max_width,
    }
    minutes = [
        Span(whole.start_s + 60 * minute, whole.start_s + 60 * (minute + 1))
        for minute in range(int(whole.minutes))
    ]
    passages = book.passages()
    series = {
        name: [[s.at_s - whole.start_s, s.rss_mib, s.pss_mib, s.threads, s.files] for s in found]
        for name, found in samples.items()
    }
    by_minute = [latency_row(passages, minute) for minute in minutes]
    return {**settings, **result, "latency_ms_by_minute": by_minute, "samples": series}


def _watch(
    args: argparse.Namespace, group: ProcessGroup, rates: CameraRates, stop: Stop
) -> tuple[Span, dict[str, list[ProcessSample]], Burst | None]:
    """Look at every process, all five seconds or more often if compared spans are short, until
    the time is over or the user ends it."""
    from tqdm import tqdm

    from roi_codec_ros.lab.tools.burst import Burst
    from roi_codec_ros.lab.tools.soak import Span, sample_process

    samples: dict[str, list[ProcessSample]] = {child.name: [] for child in group.children}
    every_s = min(SAMPLE_S, 60 * min(args.window, args.minutes - args.warmup) / 10)
    start_s = time.monotonic()
    end_s = start_s + 60 * args.minutes
    changes: list[tuple[float, float]] = []  # when, and the rate from then on
    if args.burst:
        middle_s = start_s + 30 * (args.minutes + args.warmup)
        changes = [(middle_s, args.burst * args.rate), (middle_s + args.burst_s, args.rate)]
    changed_s: list[float] = []
    with tqdm(total=round(60 * args.minutes), unit="s", disable=None) as progress:
        while (now_s := time.monotonic()) < end_s:
            group.check()
            if len(changed_s) < len(changes) and changes[len(changed_s)][0] <= now_s:
                rates.set(changes[len(changed_s)][1])
                changed_s.append(time.monotonic())
            for child in group.children:
                sample = sample_process(child.process.pid)
                if sample is not None:
                    samples[child.name].append(sample)
            progress.update(round(now_s - start_s) - progress.n)
            moments = [now_s + every_s, end_s, *(at_s for at_s, _ in changes[len(changed_s) :])]
            if stop.wait(max(0.0, min(moments) - time.monotonic())):
                break
    burst = Burst(Span(*changed_s), args.burst) if len(changed_s) == 2 else None
    return Span(start_s, time.monotonic()), samples, burst
