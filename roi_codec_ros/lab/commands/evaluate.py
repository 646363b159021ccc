# SPDX-License-Identifier: Apache-2.0
"""Measure models and standard codecs on annotated photographs; the first row is the originals.

Bits, distortion, persons that YOLO finds, faces that a face detector finds, and time.

example:
  roi-codec evaluate --data DATA --split val --models fast \\
      --baselines jpeg:1,5,10 av1:1,5,10 av1@10:1 --detector yolov8n.pt --json evaluation.json
  roi-codec evaluate --video hall.mp4 --models fast --baselines x264:35,45 blur+x264:45 \\
      --yunet yunet.onnx --detector yolov8n.pt --detector-size 960 --json films.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    image_size,
    positive,
)
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.graph_choice import SERVER_BACKENDS, TORCH
from roi_codec_ros.common.output_files import Output, check_outputs
from roi_codec_ros.lab.commands.evaluate_video import add_video_arguments, evaluate_films, judges
from roi_codec_ros.lab.datasets.annotations_any import choose, read_annotations

if TYPE_CHECKING:
    from roi_codec_ros.lab.evaluation.setup import Setup

ANNOTATED = ("heads", "persons", "both")
FAILURES_SHOWN = 20  # the JSON has them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="a data set: annotation_SPLIT.odgt (CrowdHuman), COCO's JSON, or YOLO's folders",
    )
    parser.add_argument("--split", metavar="NAME", help="split to measure on, such as val")
    parser.add_argument(
        "--models", nargs="*", default=[], metavar="MODEL", help="names or .safetensors files"
    )
    parser.add_argument(
        "--qualities",
        type=qualities,
        default=(0.0,),
        metavar="LIST",
        help="measure the models at each of these, in levels around a model's own, such as "
        "--qualities=-4,-2,0,2,4 (default: 0); models without levels have 0 only",
    )
    parser.add_argument(
        "--annotated-regions",
        nargs="+",
        default=[],
        choices=ANNOTATED,
        metavar="WHICH",
        help="measure the models also with annotated boxes in the place of what the regions model "
        f"finds: {', '.join(ANNOTATED)}. This is what better regions could bring",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        default=[],
        metavar="SPEC",
        help="such as jpeg:1,5,10 (qualities), av1:1,5,10 (speed 6), av1@10:1 (speed 10), "
        "hidden-av1:10 (on pictures whose annotated heads are hidden)",
    )
    parser.add_argument(
        "--detector",
        required=True,
        metavar="WEIGHTS",
        help="ultralytics weights that find persons",
    )
    parser.add_argument(
        "--detector-size",
        type=positive,
        default=640,
        metavar="PX",
        help="input size of the detector (default: 640)",
    )
    parser.add_argument(
        "--server-backend",
        default=TORCH,
        choices=SERVER_BACKENDS,
        help="runtime of the decoder and the detector, as on a server (default: %(default)s)",
    )
    parser.add_argument(
        "--face-detector", default="mtcnn", metavar="SPEC", help="mtcnn (default) or yunet=PATH"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="use only N images, spread evenly over the split",
    )
    parser.add_argument(
        "--all-images",
        action="store_true",
        help="also use images without human-made person boxes; they never count in the "
        "person score",
    )
    parser.add_argument(
        "--resize",
        type=image_size,
        metavar="WxH",
        help="stretch every image to this size first, as the paper does (512x512)",
    )
    parser.add_argument(
        "--plus-one",
        action="store_true",
        help="count a box's last pixel in its width, as the paper's scoring tool does",
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        metavar="N",
        help="timed runs of each codec on each image (default 1; the paper: 10)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument(
        "--model-devices",
        nargs="+",
        metavar="DEVICE",
        help="measure the models on each of these, a row each (default: --device)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads of torch and of AV1 (default: one a core, shared among the workers)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="processes that measure images side by side (default 1); no latency from more than 1",
    )
    add_json_option(parser)
    add_force_option(parser)
    add_video_arguments(parser)
    parser.add_argument(
        "--tables", type=Path, metavar="FILE", help="write the paper's tables as Markdown"
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="write figure4.png (AP over bits) and figure5.png (latency) there",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="write a PNG of the original, ours, AV1 and JPEG at similar bits (Fig. 2)",
    )
    parser.add_argument(
        "--picture-image",
        metavar="ID",
        help="the image of --picture (default: of those measured, the one with the largest heads)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the results that an earlier run stored beside this --json, unless a "
        "model, a setting or the machine has changed since",
    )


def qualities(text: str) -> tuple[float, ...]:
    """``-4,0,4`` as numbers; for argparse's ``type``."""
    return tuple(float(part) for part in text.split(","))


qualities.__name__ = "list of qualities"  # what argparse calls it when it refuses one


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from tqdm import tqdm

    from roi_codec_ros.lab.evaluation import image_evaluation
    from roi_codec_ros.lab.evaluation.cache import cache_beside
    from roi_codec_ros.lab.evaluation.comparison import choose_picture, draw_panels, make_panels
    from roi_codec_ros.lab.evaluation.rows import format_table

    if args.video:
        evaluate_films(args)
        return
    if not args.data or not args.split:
        raise UsageError("expected --data and --split, or --video; found neither")
    setup = _setup(args)
    files = _outputs(args, image_evaluation.FIGURES)
    annotated = read_annotations(args.data, args.split)
    chosen = choose(annotated, all_images=args.all_images, limit=args.limit)
    with (
        cache_beside(files.get("json"), setup.context, resume=args.resume) as cache,
        tqdm(total=len(chosen), unit="image", disable=None) as bar,
    ):
        evaluation, bench = image_evaluation.evaluate_setup(
            setup, chosen, workers=args.workers, cache=cache, on_image=lambda _: bar.update()
        )
    # Before anything is printed, which may fail when a pager has ended.
    image_evaluation.write_report(
        image_evaluation.setup_report(setup, evaluation, chosen, Path(args.data), args.split),
        files,
    )
    print(format_table(evaluation.rows))
    print(image_evaluation.summary(evaluation, annotated, len(chosen)))
    if args.workers > 1:
        print(f"no latency: {args.workers} workers shared the machine")
    for failure in evaluation.failures[:FAILURES_SHOWN]:
        print(f"left out: {failure}", file=sys.stderr)
    if args.picture:
        picture = choose_picture(chosen, args.picture_image)
        files["picture"].write(draw_panels(make_panels(bench, picture)))


def _outputs(args: argparse.Namespace, figures: Iterable[str]) -> dict[str, Output]:
    paths = {name: getattr(args, name) for name in ("json", "tables", "picture")}
    for name in figures:
        paths[name] = args.figures / name if args.figures else None
    read = [Path(name) for name in (*args.models, args.detector) if Path(name).is_file()]
    return check_outputs(paths, force=args.force, inputs=read)


def _setup(args: argparse.Namespace) -> Setup:
    from roi_codec_ros.common.machine import usable_cores
    from roi_codec_ros.lab.evaluation.baselines import parse_baselines
    from roi_codec_ros.lab.evaluation.results import EvaluationSettings
    from roi_codec_ros.lab.evaluation.setup import Setup

    if args.picture and not args.models:
        raise UsageError("expected --models for the --picture, found none")
    if args.resume and not args.json:
        raise UsageError("expected --json FILE, beside which --resume finds results; found none")
    if args.repeats and args.workers > 1:
        raise UsageError("expected --repeats with one worker, since it is timing; found more")
    parse_baselines(args.baselines)
    return Setup(
        judges=judges(args, args.threads or max(1, usable_cores() // args.workers)),
        models=tuple(args.models),
        baselines=tuple(args.baselines),
        model_devices=tuple(args.model_devices or [args.device]),
        settings=EvaluationSettings(
            repeats=args.repeats or 1,
            plus_one=args.plus_one,
            resize=args.resize,
            timed=args.workers == 1,
        ),
        qualities=args.qualities,
        annotated=tuple(args.annotated_regions),
    )
