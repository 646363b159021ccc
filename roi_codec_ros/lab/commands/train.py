# SPDX-License-Identifier: Apache-2.0
"""Train a codec, freeze its entropy tables and write its model file.

example:
  roi-codec train --preset fast --data ../data --minutes 90 --out runs/fast
  roi-codec train --config site.yaml --data ../data --steps 20000 --out runs/site --device cuda

DIR is a data set in CrowdHuman's, COCO's or YOLO's layout. Options that are not given come from
the configuration, by default the one that ships for the preset. The run keeps a checkpoint in
--out; the same command with --resume continues from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import (
    add_force_option,
    not_negative,
    positive,
    positive_real,
)

if TYPE_CHECKING:
    from roi_codec_ros.lab.training.block_config import BlockTrainingConfig
    from roi_codec_ros.lab.training.config import TrainingConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML; default: the preset's")
    parser.add_argument("--preset", help="architecture (default: the configuration's, or fast)")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="data set")
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument(
        "--val-split",
        default="val",
        help="split for validation; it must not share a photograph with --split (default: val)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="run folder")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_real, help="time budget")
    budget.add_argument(
        "--steps", type=positive, metavar="N", help="number of steps, instead of a time budget"
    )
    budget.add_argument(
        "--epochs",
        type=positive_real,
        metavar="N",
        help="passes over the data, instead of a time budget",
    )
    parser.add_argument(
        "--objective",
        help="what becomes of heads: paper (their negative), invert or fill",
    )
    parser.add_argument(
        "--head-cells", type=int, metavar="N", help="a hidden head keeps N×N colours"
    )
    for name in ("rate", "background", "head", "person"):
        parser.add_argument(f"--lambda-{name}", type=float, metavar="λ", help=f"weight of {name}")
    parser.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="set any key of the configuration, as in regions.head.fill.cells=3",
    )
    parser.add_argument(
        "--feature-detector",
        metavar="WEIGHTS",
        help="YOLOv8 weights whose features and persons the reconstruction should keep",
    )
    parser.add_argument(
        "--regions",
        default="regions",
        metavar="MODEL",
        help="regions model that hides heads, for codecs of blocks (default: regions)",
    )
    parser.add_argument(
        "--feature-weight", type=float, metavar="W", help="weight of that detector's features"
    )
    parser.add_argument(
        "--detection-weight", type=float, metavar="W", help="weight of that detector's persons"
    )
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="peak learning rate")
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="batch size of each process"
    )
    parser.add_argument("--seed", type=int, help="random seed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all)")
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write curves and pictures for TensorBoard below --out",
    )
    parser.add_argument(
        "--pictures-every",
        type=not_negative,
        metavar="N",
        help="steps between picture strips; 0: none",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint in --out"
    )
    start.add_argument(
        "--init-from",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="start from the weights of a checkpoint or of a model file; several of the paper's "
        "networks are set side by side in a wider one, which adds up what they reconstruct",
    )
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    import torch

    from roi_codec_ros.lab.training.codec_run import (
        RunOptions,
        model_path,
        train_blocks,
        train_network,
    )

    if args.threads:
        torch.set_num_threads(args.threads)
    options = RunOptions(
        data=args.data,
        split=args.split,
        val_split=args.val_split,
        out=args.out,
        device=args.device,
        resume=args.resume,
        init_from=args.init_from,
        force=args.force,
        detector=args.feature_detector,
        regions=args.regions,
        tensorboard=args.tensorboard,
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    model = (
        train_blocks(block_configuration(args), options, say)
        if codes_blocks(args)
        else train_network(configuration(args), options, say)
    )
    if model is not None:
        print(f"wrote {model_path(model, args.out)}\n{json.dumps(model.header, indent=2)}")


def codes_blocks(args: argparse.Namespace) -> bool:
    """Whether the options ask for a block codec. Raises UsageError."""
    from roi_codec_ros.codec.presets import get_preset

    return get_preset(str(_values(args).get("preset", "fast"))).architecture == "blocks"


def _values(args: argparse.Namespace) -> dict[str, Any]:
    """The keys and values that the options ask for, not yet checked."""
    from roi_codec_ros.lab.training.config import preset_config, read_mapping
    from roi_codec_ros.lab.training.overrides import overridden

    file = args.config or preset_config(args.preset or "fast")
    values = overridden(read_mapping(file), vars(args))
    if not args.feature_detector:
        values |= {"feature_weight": 0.0, "detection_weight": 0.0}
    return values


def configuration(args: argparse.Namespace) -> TrainingConfig:
    """The configuration that the options ask for. Raises UsageError."""
    from roi_codec_ros.lab.training.config import parse_config

    return parse_config(_values(args))


def block_configuration(args: argparse.Namespace) -> BlockTrainingConfig:
    """The same for a preset that codes blocks. Raises UsageError."""
    from roi_codec_ros.lab.training.block_config import parse_block_config

    return parse_block_config(_values(args))
