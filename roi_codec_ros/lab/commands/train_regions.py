# SPDX-License-Identifier: Apache-2.0
"""Train the network that recognises heads and persons, and write the regions model.

example:
  roi-codec train-regions --data DATA FACES --yunet yunet.onnx --nanodet nanodet/ --minutes 30 \\
      --out runs/regions

Starts from NanoDet-g's weights (its TensorFlow.js files) and adds YuNet, or continues from a
regions model with --init-from. Writes regions.onnx (float32) and regions-int8.onnx, each with
thresholds chosen on every tenth photograph, which it does not train on. With --no-training the
weights of --init-from are kept.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from roi_codec_ros.commands.arguments import add_force_option, positive, positive_real


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--data", required=True, nargs="+", type=Path, metavar="DIR", help="data sets"
    )
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument(
        "--yunet", required=True, type=Path, metavar="FILE", help="YuNet's ONNX file"
    )
    parser.add_argument(
        "--nanodet",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder of NanoDet-g's TensorFlow.js files",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="run folder")
    parser.add_argument(
        "--minutes", type=positive_real, default=30.0, help="time budget (default: 30)"
    )
    parser.add_argument(
        "--learning-rate",
        type=positive_real,
        help="learning rate of the layers that start at random",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint in --out"
    )
    start.add_argument(
        "--init-from", type=Path, metavar="FILE", help="start from the weights of a regions.onnx"
    )
    parser.add_argument(
        "--no-training",
        action="store_true",
        help="keep the weights of --init-from: only calibrate, choose thresholds, write files",
    )
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    import torch

    from roi_codec_ros.lab.training.region_run import RegionRun

    training = RegionRun(
        data=args.data,
        split=args.split,
        yunet=args.yunet,
        nanodet=args.nanodet,
        out=args.out,
        minutes=args.minutes,
        learning_rate=args.learning_rate,
        device=args.device,
        seed=args.seed,
        resume=args.resume,
        init_from=args.init_from,
        train=not args.no_training,
        force=args.force,
    )
    if args.threads:
        torch.set_num_threads(args.threads)
    training.run(say=print, warn=partial(print, file=sys.stderr))
