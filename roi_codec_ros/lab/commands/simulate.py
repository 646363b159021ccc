# SPDX-License-Identifier: Apache-2.0
"""Track simulated people through a hall with four cameras, and score the tracks.

The cameras overlap, miss people, report false detections, drop frames, deliver late and have
clocks that are up to 50 ms off. Tracks are scored live, as they stand at each moment.

With --drive a robot drives through a hall that real nodes watch, slows down for people and stops
when cameras fail.

example:
  roi-codec simulate --json simulation.json
  roi-codec simulate --drive --pace 0.25
  roi-codec simulate --seed 3 --minutes 5 --video hall.mp4
  roi-codec simulate --minutes 0.2 --film hall.avi
"""

from __future__ import annotations

import argparse
from pathlib import Path

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    not_negative,
    number,
    outputs,
)
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.commands import simulate_drive

MINUTES = number(
    float, "number of minutes from 1/60 to a day", lambda value: 1 / 60 <= value <= 24 * 60
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--seed",
        type=not_negative,
        default=0,
        help="random seed",
    )
    parser.add_argument(
        "--minutes", type=MINUTES, default=1.0, help="simulated time (default: %(default)g)"
    )
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="draw the hall from above into an MP4 file"
    )
    parser.add_argument(
        "--film",
        type=Path,
        metavar="FILE.avi",
        help="instead film four people in a hall with a camera on its wall, at 10 frames/s",
    )
    simulate_drive.add_arguments(parser)
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    if args.drive:
        if args.video or args.film:
            raise UsageError("expected --video and --film without --drive, found one with it")
        simulate_drive.run_drive(args)
        return
    files = outputs(args, "json", "video", "film")
    if args.film:
        from roi_codec_ros.lab.simulation.filmed_hall import write_film

        if args.json or args.video:
            raise UsageError("expected --film without options for tracking, found others")
        write_film(files["film"].path, args.seed, 60.0 * args.minutes)
        return
    from roi_codec_ros.lab.demo.hall_video import filmed
    from roi_codec_ros.lab.evaluation import tracking_scores
    from roi_codec_ros.lab.simulation.measured_hall import simulate_hall
    from roi_codec_ros.perception.tracking import Tracker

    hall = simulate_hall(args.seed, 60.0 * args.minutes)
    moments = tracking_scores.live_samples(hall, Tracker(coverage=hall.cameras))
    if args.video:
        moments = filmed(moments, hall, files["video"].path)
    scores = tracking_scores.score(sample for sample, _ in moments)
    result = tracking_scores.hall_result(scores, hall, seed=args.seed, minutes=args.minutes)
    if args.json:
        files["json"].write_json(result)
    print("\n".join(tracking_scores.result_lines(result, scores)))
