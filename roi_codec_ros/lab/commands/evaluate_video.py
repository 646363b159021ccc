# SPDX-License-Identifier: Apache-2.0
"""`roi-codec evaluate --video`: models beside codecs of films."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import outputs, positive, positive_real
from roi_codec_ros.common.errors import UsageError

if TYPE_CHECKING:
    from roi_codec_ros.lab.evaluation.film_setup import FilmSetup
    from roi_codec_ros.lab.evaluation.judges import Judges

FRAMES = 100


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of films."""
    films = parser.add_argument_group("films, in the place of --data")
    films.add_argument(
        "--video",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="films to measure on; --baselines are then of x264:35,45 (rate factors), x265:…, "
        "svtav1:…, x264@medium:… (speeds), blur+x264:… (faces detected and blurred before), and "
        "those of stills",
    )
    films.add_argument(
        "--frames",
        type=positive,
        default=FRAMES,
        metavar="N",
        help="maximum number of frames of each film (default: %(default)s)",
    )
    films.add_argument(
        "--start-s", type=positive_real, metavar="S", help="start each film at this time"
    )
    films.add_argument(
        "--rate", type=positive_real, metavar="HZ", help="reduce the frame rate to this"
    )
    films.add_argument(
        "--judge-every",
        type=positive,
        default=5,
        metavar="N",
        help="search for persons and faces in every Nth frame (default: %(default)s)",
    )
    films.add_argument(
        "--keyframe-s",
        type=positive_real,
        default=1.0,
        metavar="S",
        help="keyframe interval of the baselines (default: %(default)g)",
    )
    films.add_argument(
        "--predict",
        action="store_true",
        help="also measure the models with predict:=true of the encoder",
    )
    films.add_argument(
        "--yunet", metavar="FILE", help="YuNet's ONNX file, for the face detection of blur+x264"
    )
    films.add_argument(
        "--pan",
        type=positive_real,
        metavar="PX_S",
        help="pan across the film to and fro at this speed, as a turning camera would",
    )


def evaluate_films(args: argparse.Namespace) -> None:
    """Measure, write and print. Raises RoiCodecError."""
    from tqdm import tqdm

    from roi_codec_ros.lab.evaluation.film_evaluation import format_film
    from roi_codec_ros.lab.evaluation.film_frames import read_clip

    of_photographs = ("data", "split", "limit", "tables", "annotated_regions")
    if given := [name.replace("_", "-") for name in of_photographs if getattr(args, name)]:
        raise UsageError(f"expected --video or --{given[0]}, found both")
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 tells much about itself otherwise
    files = outputs(args, "json", inputs=[*args.video, *args.models, args.detector])
    setup = _setup(args)
    codecs = setup.codecs()
    clips = [
        read_clip(
            path,
            frames=args.frames,
            start_s=args.start_s or 0.0,
            rate_hz=args.rate,
            size=args.resize,
            pan_px_s=args.pan or 0.0,
        )
        for path in args.video
    ]
    with tqdm(total=setup.steps(clips, codecs), unit="frame", disable=None) as bar:
        bench = setup.bench(bar.update)
        rows = [bench.rows(clip, codecs) for clip in clips]
    if args.json:
        files["json"].write_json(setup.report(clips, rows, args.pan))
    for clip, found in zip(clips, rows, strict=True):
        height, width = clip.size
        print(f"{clip.name}: {len(clip.images)} frames of {width}×{height}, {clip.rate_hz:g} Hz")
        print(format_film(found))


def _setup(args: argparse.Namespace) -> FilmSetup:
    from roi_codec_ros.config.parameters import EncoderParameters
    from roi_codec_ros.lab.evaluation.film_setup import FilmSetup

    return FilmSetup(
        judges=judges(args, args.threads),
        models=args.models,
        qualities=args.qualities,
        baselines=args.baselines,
        hide_memory_s=EncoderParameters.hide_memory_s,
        persons_every=EncoderParameters.persons_every,
        predict=args.predict,
        keyframe_s=args.keyframe_s,
        yunet=args.yunet,
        judge_every=args.judge_every,
    )


def judges(args: argparse.Namespace, threads: int | None) -> Judges:
    """The detectors that the options name, for photographs and for films."""
    from roi_codec_ros.lab.evaluation.judges import Judges

    return Judges(
        detector=args.detector,
        detector_size=args.detector_size,
        face_detector=args.face_detector,
        device=args.device,
        threads=threads,
        server_backend=args.server_backend,
    )
