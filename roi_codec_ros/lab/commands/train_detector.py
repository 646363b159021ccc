# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a YOLOv8 person detector on images that a codec decoded, with some originals.

example:
  roi-codec train-detector --codec fast --data DATA --weights yolov8n.pt --minutes 30 \\
      --out models/person-yolov8n-fast.pt

DIR is a data set in CrowdHuman's, COCO's or YOLO's layout. Its photographs are coded and decoded
whole, as the evaluation does it, into a folder beside --out, where the next run finds them again.
A few are held out, on which the detector is measured before and after; the card beside the weights
(FILE.json) has the figures. The weights are under ultralytics' licence, AGPL-3.0.
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
from roi_codec_ros.commands.progress_bar import ProgressBar

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
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.pt", help="to write")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--epochs", type=positive, metavar="N", help="passes over the images")
    budget.add_argument(
        "--minutes",
        type=positive_real,
        metavar="M",
        help="minutes of training, not counting the decoding before it",
    )
    parser.add_argument(
        "--image-size", type=positive, default=640, metavar="PX", help="default: 640"
    )
    parser.add_argument("--batch-size", type=positive, default=8, metavar="N", help="default: 8")
    parser.add_argument(
        "--learning-rate", type=positive_real, default=2e-4, metavar="RATE", help="default: 0.0002"
    )
    parser.add_argument(
        "--freeze",
        type=int,
        default=0,
        metavar="N",
        help="number of first layers to freeze (default: 0; 10 is YOLOv8's whole backbone)",
    )
    parser.add_argument(
        "--originals",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="share of the photographs, 0 to 1, to train on undecoded as well (default: 0.25)",
    )
    parser.add_argument(
        "--tuned-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of the fine-tuned weights in the result, the rest being those that "
        "it started from; 1 forgets most (default: 0.5)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="use only N photographs")
    parser.add_argument("--seed", type=not_negative, default=1, help="default: %(default)s")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last epoch of a run that was stopped",
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

    from roi_codec_ros.common.machine import usable_cores
    from roi_codec_ros.lab.training.detector_run import DetectorOptions, train_detector
    from roi_codec_ros.lab.training.detector_training import FineTuning

    options = DetectorOptions(
        codec=args.codec,
        data=args.data,
        split=args.split,
        weights=args.weights,
        out=args.out,
        originals=args.originals,
        tuned_share=args.tuned_share,
        device=args.device,
        threads=args.threads or usable_cores(),
        limit=args.limit,
        resume=args.resume,
        force=args.force,
        json=args.json,
    )
    config = FineTuning(
        epochs=args.epochs,
        minutes=args.minutes,
        image_size=args.image_size,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        freeze=args.freeze,
        seed=args.seed,
    )
    with ProgressBar() as bar:
        result = train_detector(options, config, lambda share: bar.show(100.0 * share, 100.0, "%"))
    _report(result, options)


def _report(result: DetectorResult, options: DetectorOptions) -> None:
    from roi_codec_ros.lab.datasets.annotations_any import shortfall

    card, images = result.card, result.images
    summary = card["images"]
    print(
        f"{summary['decoded']} decoded images and {summary['originals']} originals to train on, "
        f"{summary['held_out']} held out; {images.made} decoded now, the others before"
    )
    unknown = summary["left_out_persons_unknown"]
    if unknown:
        print(f"left out: {unknown} photographs whose persons nobody has marked")
    for sentence in shortfall(result.annotations):
        print(sentence, file=sys.stderr)
    for image_id, reason in images.failures[:FAILURES_SHOWN]:
        print(f"left out: {image_id}: {reason}", file=sys.stderr)
    print(f"{card['steps']} steps, {card['epochs']} epochs, {card['minutes']} minutes")
    for kind, score in card["held_out_person_ap50"].items():
        print(f"person AP@0.5, held out, {kind}: {score['before']} before, {score['after']} after")
    print(f"wrote {options.out} and {options.card_file}")
