# SPDX-License-Identifier: Apache-2.0
"""Hide the heads in a recording: a bag, a film, a folder of pictures, a picture.

Outside heads pictures stay as they are. What cannot be searched is left out and reported.

example:
  roi-codec anonymize bag/ anonymized_bag/ --report report.html
  roi-codec anonymize drive.mcap anonymized.mcap --topics /front/image_raw --keep /depth/image_raw
  roi-codec anonymize film.mp4 anonymized.mp4 --no-audio
  roi-codec anonymize photos/ anonymized/
  roi-codec anonymize photo.jpg anonymized.jpg
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    not_negative,
    not_negative_real,
    outputs,
    positive,
)
from roi_codec_ros.commands.progress_bar import ProgressBar
from roi_codec_ros.common.errors import RoiCodecError, UsageError

if TYPE_CHECKING:
    from roi_codec_ros.recordings.pipeline import Settings
    from roi_codec_ros.recordings.tally import CameraTally, Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="IN",
        help="bag, film, picture or folder of pictures; -: a pipe",
    )
    parser.add_argument("target", type=Path, metavar="OUT", help="what to write")
    finding = parser.add_argument_group("what is hidden")
    finding.add_argument(
        "--regions",
        default="regions",
        metavar="MODEL",
        help="model that finds what to hide: heads, or whatever it was trained on "
        "(default: %(default)s)",
    )
    finding.add_argument(
        "--backend",
        choices=("onnxruntime", "openvino", "openvino-half"),
        default="onnxruntime",
        help="runtime of that model (default: %(default)s)",
    )
    finding.add_argument(
        "--hide-memory",
        type=not_negative_real,
        default=0.5,
        metavar="S",
        help="seconds before and after a detected head for which its blocks stay hidden, "
        "to cover missed detections (default: %(default)s)",
    )
    finding.add_argument(
        "--judge-every",
        type=positive,
        default=1,
        metavar="N",
        help="search only every Nth frame of a bag or film; in between, hide what is "
        "hidden before or after, with a margin (default: %(default)s)",
    )
    finding.add_argument(
        "--heads-every",
        type=not_negative_real,
        default=0.08,
        metavar="S",
        help="in bags and films, seconds between searches for heads seen from behind (faces are "
        "searched for in every frame); in between, hide what is hidden before or "
        "after; 0: search every frame (default: %(default)s)",
    )
    bags = parser.add_argument_group("bags")
    bags.add_argument(
        "--topics",
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="image topics to rewrite; other image topics are dropped (default: all that "
        "can be rewritten)",
    )
    bags.add_argument(
        "--keep",
        nargs="+",
        default=[],
        metavar="NAME",
        help="topics, and attachments of an MCAP file, to copy unchanged, although they may show "
        "people",
    )
    bags.add_argument(
        "--as",
        dest="form",
        choices=("image", "compressed", "latent", "video"),
        help="format of the rewritten images; latent: what a camera would have sent, "
        "coded by the model fast; video: foxglove_msgs/CompressedVideo, H.264 "
        "(default: unchanged)",
    )
    films = parser.add_argument_group(
        "films (- is a pipe of frames, YUV4MPEG2) and topics of video"
    )
    films.add_argument(
        "--crf",
        type=not_negative,
        default=18,
        metavar="N",
        help="quality of the new video; lower is better (default: %(default)s)",
    )
    films.add_argument("--no-audio", action="store_true", help="drop the sound")
    parser.add_argument(
        "--jobs", type=positive, metavar="N", help="workers (default: one per core)"
    )
    reports = parser.add_argument_group("report")
    reports.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="write a report of what was hidden, for the person responsible",
    )
    reports.add_argument(
        "--report-detector",
        metavar="NAME[=FILE]",
        help="face detector that checks the output: mtcnn, blazeface, haar or yunet=FILE "
        "(default: mtcnn, or haar where that is not installed)",
    )
    reports.add_argument(
        "--report-every",
        type=positive,
        default=10,
        metavar="N",
        help="check every Nth frame (default: %(default)s)",
    )
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    if str(args.source) != "-" and not args.source.exists():
        raise RoiCodecError(f"expected a recording at {args.source}, found none")
    if args.judge_every > 1 and not args.hide_memory:
        raise UsageError("expected a --hide-memory above 0 with --judge-every, found 0")
    files = outputs(args, "json", "report", inputs=[args.source])
    inspector = None
    if args.report:
        from roi_codec_ros.recordings.recording_report import Inspector, default_detector

        inspector = Inspector(args.report_detector or default_detector(), args.report_every)
    with ProgressBar() as progress:
        settings = _settings(args, progress)
        result = _anonymized(args, replace(settings, inspect=inspector))
    for tally in result.cameras:
        _print_tally(tally, args.target)
    for topic, why in result.dropped.items():
        print(f"dropped: {topic} ({why}); --keep {topic} copies it", file=sys.stderr)
    for topic in result.kept:
        print(f"kept as it is, and may show persons: {topic}", file=sys.stderr)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.json:
        files["json"].write_json(result.figures())
    if inspector is not None:
        from roi_codec_ros.recordings.recording_report import report_page

        facts = {
            "source": str(args.source),
            "target": str(args.target),
            "regions": args.regions,
            "hide_memory_s": args.hide_memory,
            "detector": inspector.name,
            "every": inspector.every,
        }
        files["report"].write(report_page(result, facts).encode())


def _settings(args: argparse.Namespace, progress: ProgressBar) -> Settings:
    from roi_codec_ros.common.machine import usable_cores
    from roi_codec_ros.recordings.film_finder import film_finders
    from roi_codec_ros.recordings.pipeline import Settings

    return Settings(
        film_finders(args.regions, backend=args.backend),
        jobs=args.jobs or usable_cores(),
        memory_s=args.hide_memory,
        judge_every=args.judge_every,
        heads_every_s=args.heads_every,
        progress=progress.show,
    )


def _anonymized(args: argparse.Namespace, settings: Settings) -> Result:
    from roi_codec_ros.codec import load_encoder
    from roi_codec_ros.recordings.anonymizing import anonymize_recording
    from roi_codec_ros.recordings.bags import BagOptions

    return anonymize_recording(
        args.source,
        args.target,
        settings,
        BagOptions(
            topics=tuple(args.topics),
            keep=tuple(args.keep),
            form=args.form,
            encoder=partial(load_encoder, "fast", regions=args.regions),
            quality=args.crf,
        ),
        audio=not args.no_audio,
        force=args.force,
        told=f"{args.regions} {args.backend} {args.hide_memory} {args.judge_every} "
        f"{args.heads_every}",
        say=partial(print, file=sys.stderr),
    )


def _print_tally(tally: CameraTally, target: Path) -> None:
    if tally.frames or not tally.left_out:
        print(
            f"{target}: {tally.name}, {tally.frames} frames, {tally.heads} heads hidden in "
            f"{tally.frames_with_heads} of them",
            file=sys.stderr if str(target) == "-" else sys.stdout,
        )
    if tally.left_out:
        print(
            f"left out of {tally.name}: {tally.left_out}, the first: {tally.left_out_first}",
            file=sys.stderr,
        )
