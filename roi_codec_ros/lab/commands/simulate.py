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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    not_negative,
    outputs,
)
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.commands import simulate_drive

if TYPE_CHECKING:
    from roi_codec_ros.lab.evaluation.tracking_scores import Sample, TrackingScores
    from roi_codec_ros.lab.simulation.measured_hall import Hall
    from roi_codec_ros.perception.tracking import Tracks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--seed",
        type=not_negative,
        default=0,
        help="random seed",
    )
    parser.add_argument(
        "--minutes", type=_minutes, default=1.0, help="simulated time (default: %(default)g)"
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


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 1 / 60 <= minutes <= 24 * 60:
        raise ValueError(text)
    return minutes


_minutes.__name__ = "number of minutes from 1/60 to a day"


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    if args.drive:
        if args.video or args.film:
            raise UsageError("expected --video and --film without --drive, found one with it")
        simulate_drive.run_drive(args)
        return
    from roi_codec_ros.lab.evaluation.tracking_scores import live_samples, score
    from roi_codec_ros.lab.simulation.measured_hall import simulate_hall
    from roi_codec_ros.perception.tracking import Tracker

    files = outputs(args, "json", "video", "film")
    if args.film:
        from roi_codec_ros.lab.simulation.filmed_hall import write_film

        if args.json or args.video:
            raise UsageError("expected --film without options for tracking, found others")
        write_film(files["film"].path, args.seed, 60.0 * args.minutes)
        return
    hall = simulate_hall(args.seed, 60.0 * args.minutes)
    tracker = Tracker(coverage=hall.cameras)
    moments: Iterable[tuple[Sample, Tracks]] = live_samples(hall, tracker)
    if args.video:
        moments = _filmed(moments, hall, files["video"].path)
    scores = score(sample for sample, _ in moments)
    result = _result(scores, hall, args)
    if args.json:
        files["json"].write_json(result)
    _print_table(result, scores)


def _filmed(
    moments: Iterable[tuple[Sample, Tracks]], hall: Hall, path: Path
) -> Iterator[tuple[Sample, Tracks]]:
    """The same moments, each drawn into the video on its way."""
    import cv2

    from roi_codec_ros.common.videos import video_file
    from roi_codec_ros.lab.demo.map_picture import hall_picture, marks_of
    from roi_codec_ros.lab.demo.outputs import open_writer

    picture = hall_picture(hall.settings.floor, hall.cameras)
    height, width = picture.size
    with video_file(path, lambda file: open_writer(file, (width, height))) as add:
        for sample, tracks in moments:
            drawn = picture.draw(
                marks_of(tracks),
                truth=sample.person_xy,
                title=f"{sample.stamp:.1f} s",
                note="rings: persons · dots: tracks with 95 % ellipses and a second's way",
            )
            add(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            yield sample, tracks


def _result(scores: TrackingScores, hall: Hall, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "idf1": scores.idf1,
        "mota": scores.mota,
        "position_error_m": {
            "p50": scores.position_error_p50_m,
            "p95": scores.position_error_p95_m,
        },
        "false_tracks_per_minute": scores.false_tracks_per_minute,
        "persons": hall.settings.persons,
        "cameras": len(hall.cameras),
        "seed": args.seed,
        "minutes": args.minutes,
    }


def _print_table(result: dict[str, Any], scores: TrackingScores) -> None:
    error = result["position_error_m"]
    print(
        f"{result['persons']} persons, {result['cameras']} cameras, "
        f"{result['minutes']:g} min, seed {result['seed']}"
    )
    rows = [
        ("IDF1", f"{scores.idf1:.3f}"),
        ("MOTA", f"{scores.mota:.3f}"),
        ("position error, median", _metres(error["p50"])),
        ("position error, 95 %", _metres(error["p95"])),
        ("false tracks per minute", f"{scores.false_tracks_per_minute:.2f}"),
        ("identity switches", f"{scores.switches}"),
    ]
    for name, figure in rows:
        print(f"{name:<26}{figure:>8}")


def _metres(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} m"
