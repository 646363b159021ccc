# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a YOLOv8 person detector to see in decoded photographs what it sees in the originals.

example:
  roi-codec train-detector --codec fast --data DATA --weights yolov8n.pt --minutes 30 \\
      --out models/person-yolov8n-fast.pt

DIR is a data set in CrowdHuman's, COCO's or YOLO's layout. Its photographs are coded and decoded
whole, as in the evaluation, into a folder beside --out, where the next run finds them again.
The detector learns to find in them what a teacher, by default its own initial weights, finds in
the originals, and the persons in human-made boxes. It is measured on a few held-out photographs,
before and after; the card beside the weights (FILE.json) has the figures. The weights are under
ultralytics' licence, AGPL-3.0.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    not_negative,
    positive,
    positive_real,
)
from roi_codec_ros.perception.detector_graph import STRIDES

if TYPE_CHECKING:
    from roi_codec_ros.lab.training.detector_run import DetectorOptions, DetectorResult

FAILURES_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--codec", required=True, metavar="MODEL", help="name or .safetensors file"
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="data set")
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="YOLO weights to start from"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE.pt", help="weights file to write"
    )
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--epochs", type=positive, metavar="N", help="passes over the images")
    budget.add_argument(
        "--minutes",
        type=positive_real,
        metavar="M",
        help="minutes of training, not counting the decoding before it",
    )
    parser.add_argument(
        "--teacher",
        default="",
        metavar="FILE",
        help="YOLO weights of the same size, trained on originals (default: those of --weights)",
    )
    parser.add_argument(
        "--crop-size",
        type=positive,
        default=416,
        metavar="PX",
        help="size of the crops to learn from, a multiple of 32 (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=positive, default=4, metavar="N", help="default: 4")
    parser.add_argument(
        "--learning-rate", type=positive_real, default=1e-4, metavar="RATE", help="default: 0.0001"
    )
    parser.add_argument(
        "--originals",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="share of the crops, 0 to 1, to learn from undecoded, so as not to forget what "
        "a clear picture looks like (default: %(default)s)",
    )
    parser.add_argument(
        "--teacher-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the teacher's weights in the written file (default: %(default)s)",
    )
    parser.add_argument(
        "--box-weight",
        type=float,
        default=0.5,
        metavar="WEIGHT",
        help="weight of the loss against human-made boxes, beside that against the teacher's "
        "detections; 0 to learn from the teacher alone (default: %(default)s)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="use only N photographs")
    parser.add_argument("--seed", type=not_negative, default=1, help="default: %(default)s")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the checkpoint of a run that was stopped",
    )
    parser.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: one per core)"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    os.environ.setdefault("YOLO_OFFLINE", "1")  # before ultralytics is imported

    from roi_codec_ros.common.errors import UsageError
    from roi_codec_ros.common.machine import usable_cores
    from roi_codec_ros.lab.training.detector_run import DetectorOptions, train_detector
    from roi_codec_ros.lab.training.detector_training import DetectorTrainingConfig
    from roi_codec_ros.lab.training.settings import read_settings

    for name in ("originals", "teacher_share"):
        if not 0.0 <= (share := getattr(args, name)) <= 1.0:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"expected a share of 0 to 1 for {option}, found {share:g}")
    if args.crop_size % STRIDES[-1]:
        raise UsageError(
            f"expected a multiple of {STRIDES[-1]} for --crop-size, found {args.crop_size}"
        )
    options = DetectorOptions(
        codec=args.codec,
        data=args.data,
        split=args.split,
        weights=args.weights,
        teacher=args.teacher,
        out=args.out,
        device=args.device,
        threads=args.threads or usable_cores(),
        limit=args.limit,
        resume=args.resume,
        force=args.force,
        json=args.json,
    )
    settings = {
        "epochs": args.epochs,
        "minutes": args.minutes,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "seed": args.seed,
        "teacher_share": args.teacher_share,
        "box_weight": args.box_weight,
        "crops": {"size": args.crop_size, "originals": args.originals},
    }
    config = read_settings(DetectorTrainingConfig, settings)
    _report(train_detector(options, config), options)


def _report(result: DetectorResult, options: DetectorOptions) -> None:
    from roi_codec_ros.lab.datasets.annotations_any import shortfall

    card, images = result.card, result.images
    summary = card["images"]
    print(
        f"{summary['decoded']} decoded images to train on, {summary['held_out']} held out; "
        f"{images.made} decoded now, the others before"
    )
    for sentence in shortfall(result.annotations):
        print(sentence, file=sys.stderr)
    for image_id, reason in images.failures[:FAILURES_SHOWN]:
        print(f"left out: {image_id}: {reason}", file=sys.stderr)
    print(f"{card['steps']} steps, {card['minutes']} minutes")
    for kind, score in card["held_out_person_ap50"].items():
        print(f"person AP@0.5, held out, {kind}: {score['before']} before, {score['after']} after")
    print(f"wrote {options.out} and {options.card_file}")
