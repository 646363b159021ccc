# SPDX-License-Identifier: Apache-2.0
"""Train a codec, freeze its entropy tables and write its model file.

example:
  roi-codec train --preset fast --data ../data --minutes 90 --out runs/fast
  roi-codec train --config site.yaml --data ../data --steps 20000 --out runs/site --device cuda

DIR is a data set in CrowdHuman's, COCO's or YOLO's layout. What is not said here stands in the
configuration, by default the one that ships for the preset. The run keeps a checkpoint in --out;
the same command with --resume goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.codec.models import SUFFIX
from roi_codec_ros.commands.arguments import (
    add_force_option,
    not_negative,
    positive,
    positive_real,
)
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import same_file, write
from roi_codec_ros.common.output_files import RunFolder

CHECKPOINT, STRIP, BOARD = "checkpoint.pt", "strip.png", "tensorboard"  # in --out

if TYPE_CHECKING:
    from roi_codec_ros.codec.model_file import Model
    from roi_codec_ros.lab.datasets.annotations import AnnotationSet
    from roi_codec_ros.lab.training.block_config import BlockTrainingConfig
    from roi_codec_ros.lab.training.config import TrainingConfig
    from roi_codec_ros.lab.training.data import CropSampler
    from roi_codec_ros.lab.training.trainer import Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML; default: the preset's")
    parser.add_argument("--preset", help="architecture (default: the configuration's, or fast)")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR")
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument(
        "--val-split",
        default="val",
        help="split to judge by: a photograph of it in --split is an error (default: val)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=positive_real, help="time budget")
    budget.add_argument("--steps", type=positive, metavar="N", help="a number of steps instead")
    budget.add_argument("--epochs", type=positive_real, metavar="N", help="passes over the data")
    parser.add_argument(
        "--objective",
        help="what becomes of heads: paper (their negative), invert or fill",
    )
    parser.add_argument("--head-cells", type=int, metavar="N", help="N×N colours a head keeps")
    for name in ("rate", "background", "head", "person"):
        parser.add_argument(f"--lambda-{name}", type=float, metavar="λ")
    parser.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="any key, as in regions.head.fill.cells=3",
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
        help="for a block codec: the regions model that hides heads (default: regions)",
    )
    parser.add_argument("--feature-weight", type=float)
    parser.add_argument("--detection-weight", type=float)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--batch-size", type=positive, metavar="N", help="of each process")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=positive, help="CPU threads (default: all)")
    parser.add_argument(
        "--tensorboard", action="store_true", help="curves and pictures, below --out"
    )
    parser.add_argument(
        "--pictures-every",
        type=not_negative,
        metavar="N",
        help="steps between picture strips, 0: none",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    start.add_argument(
        "--init-from",
        type=Path,
        metavar="FILE",
        help="begin with the weights of a checkpoint or of a model file",
    )
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    import torch

    from roi_codec_ros.common.photographs import left_out
    from roi_codec_ros.lab.training.checkpoints import initial_weights
    from roi_codec_ros.lab.training.data import CropSampler
    from roi_codec_ros.lab.training.engine import is_first_process, start_engine
    from roi_codec_ros.lab.training.features import DetectorDistance
    from roi_codec_ros.lab.training.objectives import hidden_classes
    from roi_codec_ros.lab.training.progress import open_board
    from roi_codec_ros.lab.training.trainer import Trainer

    if args.threads:
        torch.set_num_threads(args.threads)
    if codes_blocks(args):
        _run_blocks(args)
        return
    config = configuration(args)
    folder = _run_folder(args, config)
    annotations = _photographs(args, config.regions)
    hidden = hidden_classes(config.regions)
    sampler = CropSampler(
        annotations,
        config.crops,
        centre_on=[*hidden, *(name for name in config.regions if name not in hidden)],
    )
    with folder if is_first_process() else contextlib.nullcontext():
        engine = start_engine(args.device)
        sampler.read_ahead()
        detector = args.feature_detector
        trainer = Trainer(
            config,
            sampler,
            args.out / CHECKPOINT,
            detector_distance=DetectorDistance(detector, str(engine.device)) if detector else None,
            about={
                "data": annotations_summary(args.data, args.split, len(sampler.annotations)),
                "feature_detector": os.path.basename(detector or "") or None,
            },
            engine=engine,
        )
        if trainer.leads:
            _print_report(annotations, sampler)
        known = sampler.left_out
        if args.resume:
            trainer.resume()
        elif args.init_from:
            trainer.start_from(*initial_weights(args.init_from, config.preset))
        if trainer.leads and not args.resume:
            _clear(args.out, config)
        board = open_board(args.out / BOARD) if args.tensorboard and trainer.leads else None
        _train(trainer, sampler, args.out, board)
        if trainer.leads:
            found = [error for error in sampler.left_out if error not in known]
            for sentence in left_out(found, len(annotations)):
                print(f"while training: {sentence}", file=sys.stderr)
            broken = {error.path for error in sampler.left_out}
            photographs = [a.image_path for a in sampler.annotations if a.image_path not in broken]
            _freeze(trainer, photographs, args.out)


def _written(config: TrainingConfig | BlockTrainingConfig) -> tuple[str, ...]:
    """What a run leaves in its folder."""
    from roi_codec_ros.lab.training.progress import LOG_NAME

    return CHECKPOINT, LOG_NAME, STRIP, f"{config.preset}{SUFFIX}", BOARD


def _run_folder(
    args: argparse.Namespace, config: TrainingConfig | BlockTrainingConfig
) -> RunFolder:
    """Where the run goes.

    Raises RoiCodecError where there is an earlier one, or what it would replace of somebody else.
    """
    names = _written(config)
    if args.init_from and any(same_file(args.init_from, args.out / name) for name in names):
        raise UsageError(f"expected --init-from of another folder than --out, found {args.out}")
    earlier = args.out / CHECKPOINT
    if args.resume:
        names = ()  # the checkpoint says itself whose they are
    elif earlier.exists() and not args.force:
        raise RoiCodecError(
            f"expected no earlier run in {args.out}, found {earlier}; --resume goes on with it, "
            "--force starts over in its place"
        )
    return RunFolder(args.out, "train", names, force=args.force)


def _clear(out: Path, config: TrainingConfig | BlockTrainingConfig) -> None:
    """Remove what an earlier run left, so that no log or model is made of two."""
    for name in _written(config):
        for path in out.glob(f"{BOARD}/events.*") if name == BOARD else [out / name]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise RoiCodecError(
                    f"expected to remove {path}, found: {error.strerror}"
                ) from error


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


def _run_blocks(args: argparse.Namespace) -> None:
    """Train the synthesis of a block codec."""
    from roi_codec_ros.codec.policy import StepPolicy
    from roi_codec_ros.lab.training.block_batches import BlockBatches, constant_head
    from roi_codec_ros.lab.training.block_freeze import freeze_blocks
    from roi_codec_ros.lab.training.block_trainer import BlockTrainer
    from roi_codec_ros.lab.training.checkpoints import synthesis_weights
    from roi_codec_ros.lab.training.data import CropSampler
    from roi_codec_ros.lab.training.features import DetectorDistance
    from roi_codec_ros.lab.training.progress import LOG_NAME, ProgressLog, open_board
    from roi_codec_ros.regions import load_regions

    config = block_configuration(args)
    folder = _run_folder(args, config)
    annotations = _photographs(args, ("person", "head"))
    with folder:
        sampler = CropSampler(annotations, config.crops, centre_on=["person", "head"])
        sampler.read_ahead()
        _print_report(annotations, sampler)
        detector = args.feature_detector
        regions = load_regions(args.regions, threads=1)
        trainer = BlockTrainer(
            config,
            BlockBatches(
                sampler,
                regions,
                StepPolicy(),
                config.levels,
                constant_head(sampler, sampler.annotations),
            ),
            args.out / CHECKPOINT,
            args.device,
            DetectorDistance(detector, args.device) if detector else None,
            about={
                "data": annotations_summary(args.data, args.split, len(sampler.annotations)),
                "feature_detector": os.path.basename(detector or "") or None,
                "regions": Path(args.regions).name,
            },
        )
        if args.resume:
            trainer.resume()
        elif args.init_from:
            trainer.start_from(*synthesis_weights(args.init_from))
        if not args.resume:
            _clear(args.out, config)
        board = open_board(args.out / BOARD) if args.tensorboard else None
        with ProgressLog(args.out / LOG_NAME, board=board, start=trainer.progress()) as log:
            trainer.run(log)
        broken = {error.path for error in sampler.left_out}
        photographs = [a.image_path for a in sampler.annotations if a.image_path not in broken]
        model = freeze_blocks(trainer.checkpoint, regions, photographs)
        _write_model(model, args.out)


def _photographs(args: argparse.Namespace, classes: Iterable[str]) -> AnnotationSet:
    """The split to train on, of which no photograph is in the one to judge by, if there is one."""
    from roi_codec_ros.lab.datasets.annotations_any import has_split, read_annotations
    from roi_codec_ros.lab.training.data import check_apart, check_classes

    annotations = read_annotations(args.data, args.split, needs_persons=False)
    check_classes(classes, annotations)
    if args.split != args.val_split and has_split(args.data, args.val_split):
        judged = read_annotations(args.data, args.val_split, needs_persons=False)
        check_apart(annotations, judged)
    return annotations


def _print_report(annotations: AnnotationSet, sampler: CropSampler) -> None:
    """What is trained on, and what could not be used."""
    from roi_codec_ros.common.photographs import left_out
    from roi_codec_ros.lab.datasets.annotations_any import shortfall

    used, kept = sampler.annotations, sampler.photographs.kept
    counts = {name: 0 for item in used for name in item.classes()}
    for name in counts:
        counts[name] = sum(len(item.boxes(name)) for item in used)
    boxes = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(f"{len(used)} photographs ({kept} in memory) with boxes: {boxes}", file=sys.stderr)
    for sentence in [*shortfall(annotations), *left_out(sampler.left_out, len(annotations))]:
        print(sentence, file=sys.stderr)


def _train(trainer: Trainer, sampler: CropSampler, out: Path, board: Any) -> None:
    from roi_codec_ros.lab.training.picture_strip import PictureStrip, write_strip
    from roi_codec_ros.lab.training.progress import LOG_NAME, ProgressLog
    from roi_codec_ros.lab.training.training_run import StepReport

    spent = trainer.progress()  # every process asks: they agree on it
    if not trainer.leads:
        trainer.run(lambda report: None)
        return
    every = trainer.config.pictures_every
    strip = PictureStrip(sampler) if every else None
    with ProgressLog(out / LOG_NAME, board=board, start=spent) as log:

        def show(report: StepReport) -> None:
            log(report)
            if strip is not None and report.step % every == 0:
                picture = strip.draw(trainer.model, trainer.device)
                write_strip(out / STRIP, picture)
                log.picture(picture, report.step)

        trainer.run(show)


def _freeze(trainer: Trainer, photographs: list[Path], out: Path) -> None:
    from roi_codec_ros.lab.training.freeze import freeze

    _write_model(freeze(trainer.checkpoint, photographs=photographs), out)


def _write_model(model: Model, out: Path) -> None:
    path = out / f"{model.preset.name}.safetensors"
    write(path, model.content, durable=True)
    print(f"wrote {path}\n{json.dumps(model.header, indent=2)}")


def annotations_summary(data: Path, split: str, images: int) -> dict[str, object]:
    """What the model card says of the training data."""
    return {"name": data.resolve().name, "split": split, "images": images}
