# SPDX-License-Identifier: Apache-2.0
"""The drive of `roi-codec simulate --drive`: a robot in the hall, by the whole graph."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from roi_codec_ros.commands.arguments import outputs, positive, positive_real
from roi_codec_ros.common.output_files import RunFolder
from roi_codec_ros.lab.demo.running import Stop, camera_names, check_ros

WRITTEN = ("log", ".source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a drive."""
    group = parser.add_argument_group("drive")
    group.add_argument(
        "--drive",
        action="store_true",
        help="drive a robot through a filmed hall, limited by a collision monitor with the zones "
        "of nav2_persons.yaml, which the real nodes feed; lenses are covered midway",
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
    from roi_codec_ros.lab.demo.drive import Drive
    from roi_codec_ros.lab.demo.drive_report import covers_of, table_lines

    check_ros()
    names = camera_names(args.cameras)
    drive = Drive(
        cameras=names,
        covers=covers_of(args.cover, names, 60.0 * args.minutes),
        minutes=args.minutes,
        pace=args.pace,
        rate_hz=args.rate,
        seed=args.seed,
        model=args.model,
        detector=args.detector,
    )
    files = outputs(args, "json")
    with RunFolder(args.out, "drive", WRITTEN, force=args.force), Stop() as stop:
        result = drive.run(args.out, stop, partial(print, flush=True))
    if args.json:
        files["json"].write_json(result)
    print("\n".join(table_lines(result)))
