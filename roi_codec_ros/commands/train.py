# SPDX-License-Identifier: Apache-2.0
"""Train a codec, freeze its entropy tables and write its model file.

example:
  roi-codec train --preset fast --data ../data --minutes 90 --out runs/fast

DIR is a data set in CrowdHuman's, COCO's or YOLO's layout. The run keeps a checkpoint in
--out; the same command with --resume goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="fast", help="architecture (default: %(default)s)")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR")
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=60.0, help="time budget (default: 60)")
    parser.add_argument(
        "--objective",
        default="fill",
        choices=("paper", "fill"),
        help="what becomes of heads: their negative (paper) or a thumbnail (default: fill)",
    )
    parser.add_argument(
        "--head-cells",
        type=int,
        default=3,
        metavar="N",
        help="with fill: N×N mean colours are what a head keeps (default: %(default)s)",
    )
    parser.add_argument(
        "--code-weight",
        type=float,
        default=0.01,
        help="with fill: price of what the code itself says of a head (default: %(default)s)",
    )
    parser.add_argument("--lambda-rate", type=float, default=0.04, help="default: the paper's")
    parser.add_argument(
        "--lambda-background", type=float, default=1.0, help="default: the paper's"
    )
    parser.add_argument("--lambda-head", type=float, default=0.6, help="default: the paper's")
    parser.add_argument("--lambda-person", type=float, default=1.0, help="default: the paper's")
    parser.add_argument(
        "--feature-detector",
        metavar="WEIGHTS",
        help="YOLOv8 weights whose features and persons the reconstruction should keep",
    )
    parser.add_argument("--feature-weight", type=float, default=0.02, help="default: %(default)s")
    parser.add_argument(
        "--detection-weight", type=float, default=0.02, help="default: %(default)s"
    )
    parser.add_argument("--learning-rate", type=float, default=4e-4, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")


def run(args: argparse.Namespace) -> None:
    import torch

    from roi_codec_ros.perception.annotations_any import read_annotations
    from roi_codec_ros.training.data import CropSampler
    from roi_codec_ros.training.features import DetectorDistance
    from roi_codec_ros.training.freeze import freeze
    from roi_codec_ros.training.losses import LossWeights
    from roi_codec_ros.training.progress import ProgressLog
    from roi_codec_ros.training.trainer import Trainer, TrainingConfig

    if args.threads:
        torch.set_num_threads(args.threads)
    config = TrainingConfig(
        preset=args.preset,
        objective=args.objective,
        weights=LossWeights(
            rate=args.lambda_rate,
            background=args.lambda_background,
            head=args.lambda_head,
            person=args.lambda_person,
        ),
        minutes=args.minutes,
        head_cells=args.head_cells,
        code_weight=args.code_weight,
        feature_weight=args.feature_weight if args.feature_detector else 0.0,
        detection_weight=args.detection_weight if args.feature_detector else 0.0,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    annotations = read_annotations(args.data, args.split)
    trainer = Trainer(
        config,
        CropSampler(annotations, config.crops),
        checkpoint=args.out / "checkpoint.pt",
        device=args.device,
        detector_distance=(
            DetectorDistance(args.feature_detector, args.device) if args.feature_detector else None
        ),
        about={
            "data": annotations_summary(args.data, args.split, len(annotations)),
            "feature_detector": os.path.basename(args.feature_detector or "") or None,
        },
    )
    if args.resume:
        trainer.resume()
    with ProgressLog(args.out / "log.jsonl", config.minutes * 60.0) as log:
        trainer.run(log)
    model = freeze(trainer.checkpoint)
    path = args.out / f"{args.preset}.safetensors"
    model.save(path)
    print(f"wrote {path}\n{json.dumps(model.header, indent=2)}")


def annotations_summary(data: Path, split: str, images: int) -> dict[str, object]:
    """What the model card says of the training data."""
    return {"name": data.resolve().name, "split": split, "images": images}
