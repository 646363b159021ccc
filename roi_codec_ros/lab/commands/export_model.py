# SPDX-License-Identifier: Apache-2.0
"""Freeze a training checkpoint to a model file, its card filled from a measurement.

The integer entropy tables are made here, once; nothing recomputes them later.

example:
  roi-codec export-model runs/fast/checkpoint.pt --out models/fast.safetensors --count-on DATA
  roi-codec export-model runs/fast/checkpoint.pt --out models/fast.safetensors --count-on DATA \\
      --data DATA --split val --detector yolov8n.pt

With --count-on the entropy coder learns how symbols depend on those around them, from latents of
photographs of the training split: a fifth to a third fewer bits for the same pictures.
--blend averages two checkpoints of one run, for a model between their objectives.
With --data, --split and --detector the model is measured on those photographs as `roi-codec
evaluate` does, and its figures are written into its card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import add_force_option, outputs, positive

if TYPE_CHECKING:
    from roi_codec_ros.codec import Model

LEVEL_NAMES = ("background", "near", "person", "small_person")  # of `StepSettings`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="checkpoint of `roi-codec train`, or a model file of blocks to give other levels to",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="model file to write"
    )
    parser.add_argument("--name", help="the model's name (default: that of its preset)")
    parser.add_argument(
        "--blend",
        nargs=2,
        metavar=("CHECKPOINT", "SHARE"),
        help="another checkpoint, and the share (0 to 1) of its weights in the model",
    )
    parser.add_argument(
        "--eight-bits",
        action="store_true",
        help="store the kernels as int8 instead of 16 bits, which halves the file",
    )
    parser.add_argument(
        "--count-on",
        type=Path,
        metavar="DIR",
        help="training photographs, to count the entropy coder's contexts on",
    )
    parser.add_argument(
        "--count-split",
        default="train",
        metavar="SPLIT",
        help="split of --count-on (default: train)",
    )
    parser.add_argument(
        "--regions",
        default="regions",
        metavar="MODEL",
        help="regions model that hides heads, for a model that codes blocks (default: regions)",
    )
    parser.add_argument(
        "--levels",
        nargs=4,
        type=float,
        metavar="LEVEL",
        help="quantiser levels of background, surroundings of persons, persons and small persons, "
        "for a model that codes blocks (default: those of the checkpoint or model)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="photographs to measure it on")
    parser.add_argument("--split", default="val", help="split of --data (default: val)")
    parser.add_argument(
        "--detector", metavar="WEIGHTS", help="ultralytics weights, to measure persons on --data"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="measure on N images only")
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.codec import UsageError
    from roi_codec_ros.codec.presets import BLOCKS
    from roi_codec_ros.lab.training.block_batches import StepSettings
    from roi_codec_ros.lab.training.block_freeze import freeze_blocks
    from roi_codec_ros.lab.training.checkpoints import is_model_file, source_preset
    from roi_codec_ros.lab.training.freeze import freeze
    from roi_codec_ros.lab.training.settings import read_settings
    from roi_codec_ros.regions import load_regions

    if bool(args.data) != bool(args.detector):
        raise UsageError("expected --data and --detector together, or neither")
    blend = None
    if args.blend:
        try:
            blend = Path(args.blend[0]), float(args.blend[1])
        except ValueError:
            raise UsageError(f"expected a share of 0 to 1, found {args.blend[1]}") from None
    out = outputs(args, "out", inputs=[args.checkpoint, blend and blend[0]])["out"]
    photographs = _counted_on(args)
    if source_preset(args.checkpoint).architecture == BLOCKS:
        if blend or args.eight_bits or not photographs:
            raise UsageError(
                "expected --count-on, and neither --blend nor --eight-bits, for a model that "
                "codes blocks"
            )
        regions = load_regions(args.regions)
        policy = None
        if args.levels:
            steps = dict(zip(LEVEL_NAMES, args.levels, strict=True))
            policy = read_settings(StepSettings, steps, "--levels").policy()
        model = freeze_blocks(args.checkpoint, regions, photographs, policy, args.name)
    elif is_model_file(args.checkpoint):
        raise UsageError(
            f"expected a training checkpoint, or a model that codes blocks, found the model file "
            f"{args.checkpoint}, which codes no blocks"
        )
    elif args.levels:
        raise UsageError(f"expected no --levels for {args.checkpoint}, which codes no blocks")
    else:
        model = freeze(args.checkpoint, args.name, blend, args.eight_bits, photographs)
    out.write(model.content)
    if args.data:
        model = _measured(model, args)
        out.write(model.content)
    print(f"wrote {args.out}\n{json.dumps(model.header, indent=2)}")


def _counted_on(args: argparse.Namespace) -> list[Path]:
    """The photographs of --count-on, none of which is of the split that it is measured on."""
    if not args.count_on:
        return []
    from roi_codec_ros.lab.datasets.annotations_any import read_annotations
    from roi_codec_ros.lab.training.data import check_apart

    counted = read_annotations(args.count_on, args.count_split, needs_persons=False)
    if args.data:
        check_apart(counted, read_annotations(args.data, args.split, needs_persons=False))
    return [annotation.image_path for annotation in counted.annotations]


def _measured(model: Model, args: argparse.Namespace) -> Model:
    """The model with its figures on ``args.data`` in its card."""
    import tempfile

    from roi_codec_ros.codec.card import with_figures
    from roi_codec_ros.common.files import read_json
    from roi_codec_ros.lab.commands import evaluate

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "evaluation.json"
        arguments = ["--data", str(args.data), "--split", args.split]
        arguments += ["--models", str(args.out), "--detector", args.detector]
        arguments += ["--json", str(report)]
        arguments += ["--limit", str(args.limit)] if args.limit else []
        parser = argparse.ArgumentParser()
        evaluate.add_arguments(parser)
        evaluate.run(parser.parse_args(arguments))
        return with_figures(model, read_json(report))
