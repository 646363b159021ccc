# SPDX-License-Identifier: Apache-2.0
"""The options of a demo in a map. Used by `roi-codec demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from roi_codec_ros.commands.arguments import not_negative, positive_real
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.demo.twin_plan import HFOV_DEG, TwinPlan, hall_plan, pose_plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a demo in a map."""
    parser.add_argument(
        "--simulate",
        action=argparse.BooleanOptionalAction,
        help="film people who walk through a simulated hall, so that their places are known "
        "(default: with two cameras or more and without --source)",
    )
    parser.add_argument(
        "--pace",
        type=positive_real,
        default=1.0,
        metavar="X",
        help="playback speed of the hall or of a video file: below 1 for slow machines "
        "(default: 1)",
    )
    parser.add_argument(
        "--seed",
        type=not_negative,
        default=0,
        metavar="N",
        help="random seed of how people walk in the hall (default: 0)",
    )
    parser.add_argument(
        "--pose",
        action="append",
        default=[],
        metavar="POSE",
        help='pose of a camera of --source, as "camera: x y z roll pitch yaw" (metres, '
        'radians) or "camera: pose.yaml" as written by calibrate-ground; without a '
        "name: pose of all cameras",
    )
    lens = parser.add_mutually_exclusive_group()
    lens.add_argument(
        "--calibration",
        metavar="FILE",
        help="lens of --source, as written by the camera_calibration package",
    )
    lens.add_argument(
        "--hfov",
        type=positive_real,
        metavar="DEG",
        help="horizontal field of view of --source in degrees, without distortion "
        f"(default: {HFOV_DEG:g})",
    )


def simulates(args: argparse.Namespace) -> bool:
    """Whether the hall is what the demo films. Raises UsageError for options that don't fit."""
    chosen = args.simulate
    if chosen is None:
        chosen = args.source is None and args.cameras > 1 and not args.pose
    if chosen and args.source is not None:
        raise UsageError(f"expected --simulate or --source, found both ({args.source})")
    if args.source is None and (args.pose or args.calibration or args.hfov):
        raise UsageError("expected --pose, --calibration and --hfov with --source, found none")
    if not args.pose and (args.calibration or args.hfov):
        raise UsageError("expected --pose with --calibration or --hfov, found none")
    return bool(chosen)


def plan_twin(args: argparse.Namespace, names: Sequence[str]) -> TwinPlan:
    """What the options say of a map. Raises RoiCodecError."""
    if simulates(args):
        folder = args.out / ".source"
        return hall_plan(names, seed=args.seed, pace=args.pace, folder=folder)
    if not args.pose:
        return TwinPlan({}, {}, {})
    return pose_plan(args.pose, names, calibration=args.calibration, hfov_deg=args.hfov)
