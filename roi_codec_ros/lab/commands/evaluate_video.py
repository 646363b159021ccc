# SPDX-License-Identifier: Apache-2.0
"""`roi-codec evaluate --video`: models beside codecs of films."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import outputs, positive, positive_real

if TYPE_CHECKING:
    from roi_codec_ros.lab.evaluation.film_evaluation import FilmBench
    from roi_codec_ros.lab.evaluation.film_frames import Clip
    from roi_codec_ros.lab.evaluation.film_protocols import FilmCodec

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
        help="also measure the models with predicted blocks, as with predict:=true of the encoder",
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

    from roi_codec_ros.common.errors import UsageError
    from roi_codec_ros.common.machine import describe_machine
    from roi_codec_ros.lab.evaluation.film_evaluation import format_film
    from roi_codec_ros.lab.evaluation.film_frames import read_clip

    if given := [name for name in ("data", "split", "limit", "tables") if getattr(args, name)]:
        raise UsageError(f"expected --video or --{given[0]}, found both")
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 tells much about itself otherwise
    read = [*args.video, *args.models, args.detector]
    files = outputs(args, "json", inputs=read)
    codecs = _codecs(args)
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
    bench = _bench(args)
    judged = sum(-(-len(clip.images) // args.judge_every) for clip in clips)
    with tqdm(total=judged * (1 + len(codecs)), unit="frame", disable=None) as bar:
        bench.on_frame = bar.update
        rows = [bench.rows(clip, codecs) for clip in clips]
    threads = args.threads or 1
    if args.json:
        report: dict[str, Any] = {
            "machine": describe_machine(device=args.device, threads=threads),
            "detector": f"{Path(args.detector).name} at {args.detector_size} px",
            "face_detector": args.face_detector.partition("=")[0],
            "server_backend": args.server_backend,
            "keyframe_s": args.keyframe_s,
            "judge_every": args.judge_every,
            "pan_px_s": args.pan,
            "videos": [
                {**_about(clip), "rows": found} for clip, found in zip(clips, rows, strict=True)
            ],
        }
        files["json"].write_json(report)
    for clip, found in zip(clips, rows, strict=True):
        height, width = clip.size
        print(f"{clip.name}: {len(clip.images)} frames of {width}×{height}, {clip.rate_hz:g} Hz")
        print(format_film(found))


def _about(clip: Clip) -> dict[str, Any]:
    height, width = clip.size
    size = {"width": width, "height": height}
    return {"file": clip.name, "frames": len(clip.images), "rate_hz": clip.rate_hz, **size}


def _codecs(args: argparse.Namespace) -> list[FilmCodec]:
    from roi_codec_ros.codec.models import load_model
    from roi_codec_ros.config.parameters import EncoderParameters
    from roi_codec_ros.lab.evaluation.av_codecs import require_av
    from roi_codec_ros.lab.evaluation.film_baselines import parse_film_baselines
    from roi_codec_ros.lab.evaluation.film_codecs import ModelFilm

    baselines = parse_film_baselines(args.baselines, keyframe_s=args.keyframe_s, yunet=args.yunet)
    if baselines:
        require_av()
    models = [load_model(name) for name in args.models]
    live = EncoderParameters
    return [
        *(
            ModelFilm(
                model,
                quality,
                live.hide_memory_s if model.codes_blocks else 0.0,
                live.persons_every,
                args.threads or 1,
                args.server_backend,
                predict,
            )
            for model in models
            for quality in args.qualities
            for predict in ((False, True) if args.predict and model.codes_blocks else (False,))
        ),
        *baselines,
    ]


def _bench(args: argparse.Namespace) -> FilmBench:
    from roi_codec_ros.lab.evaluation.film_evaluation import FilmBench
    from roi_codec_ros.perception.face_detectors import make_face_detector
    from roi_codec_ros.perception.graph_detector import open_detector

    return FilmBench(
        open_detector(
            args.detector,
            args.server_backend,
            device=args.device,
            threads=args.threads,
            image_size=args.detector_size,
        ),
        make_face_detector(args.face_detector, device=args.device),
        every=args.judge_every,
    )
