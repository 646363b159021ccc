# SPDX-License-Identifier: Apache-2.0
"""Run cameras and server for a long time, and check that memory and latency do not grow.

An encoder per camera, the server and the tracker run as processes of their own over DDS. The first
minutes after the warm-up are compared with the last ones. The exit status is 1 if memory grew by
more than 2 % or the latency of the fastest tenth of the frames by more than 10 %. With --burst the
cameras send four times as many frames for ten seconds, halfway through; the exit status is then
also 1 if frames are still late two seconds after the burst.

example:
  roi-codec soak --minutes 30 --cameras 4 --rate 0.5 --json soak.json
  roi-codec soak --source street.mp4 yard.mp4 --minutes 600
  roi-codec soak --minutes 10 --cameras 8 --burst
"""

from __future__ import annotations

import argparse
from pathlib import Path

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    outputs,
    positive,
    positive_real,
)
from roi_codec_ros.common.output_files import RunFolder
from roi_codec_ros.lab.demo.running import Stop, check_ros

BURST = 4.0
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
        default=[],
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
    from roi_codec_ros.lab.tools.burst import burst_line
    from roi_codec_ros.lab.tools.soak import table_lines
    from roi_codec_ros.lab.tools.soak_run import Soak, check_soak

    soak = Soak(
        minutes=args.minutes,
        warmup_minutes=args.warmup,
        window_minutes=args.window,
        cameras=args.cameras,
        rate_hz=args.rate,
        max_width=args.max_width,
        model=args.model,
        detector=args.detector,
        videos=args.source,
        burst=args.burst,
        burst_s=args.burst_s,
    )
    check_ros()
    files = outputs(args, "json", inputs=args.source)
    with RunFolder(args.out, "soak", WRITTEN, force=args.force), Stop() as stop:
        result = soak.run(args.out, stop, print)
    if args.json:
        files["json"].write_json(result)
    print("\n".join(table_lines(result)))
    if result["burst"]:
        print(burst_line(result["burst"]))
    check_soak(result)
