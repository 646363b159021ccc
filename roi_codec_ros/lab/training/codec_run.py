# SPDX-License-Identifier: Apache-2.0
"""A training from the data set to the frozen model, in a folder that another run picks up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.models import SUFFIX
from roi_codec_ros.common.errors import RoiCodecError, UsageError, reason_of
from roi_codec_ros.common.files import same_file, write
from roi_codec_ros.common.graph_runtime import find_graph, read_graph
from roi_codec_ros.common.output_files import RunFolder
from roi_codec_ros.common.photographs import left_out
from roi_codec_ros.lab.datasets.annotations import AnnotationSet
from roi_codec_ros.lab.datasets.annotations_any import has_split, read_annotations, shortfall
from roi_codec_ros.lab.training.block_batches import BlockBatches, constant_head
from roi_codec_ros.lab.training.block_config import BlockTrainingConfig
from roi_codec_ros.lab.training.block_freeze import freeze_blocks
from roi_codec_ros.lab.training.block_trainer import BlockTrainer
from roi_codec_ros.lab.training.checkpoints import (
    initial_weights,
    run_folder,
    synthesis_weights,
)
from roi_codec_ros.lab.training.config import TrainingConfig
from roi_codec_ros.lab.training.data import CropSampler, check_apart, check_classes
from roi_codec_ros.lab.training.engine import is_first_process, start_engine
from roi_codec_ros.lab.training.face_likeness import FaceLikeness
from roi_codec_ros.lab.training.features import DetectorDistance
from roi_codec_ros.lab.training.freeze import freeze
from roi_codec_ros.lab.training.objectives import hidden_classes
from roi_codec_ros.lab.training.picture_strip import PictureStrip, write_strip
from roi_codec_ros.lab.training.progress import LOG_NAME, ProgressLog, open_board
from roi_codec_ros.lab.training.region_model import stored_arrays
from roi_codec_ros.lab.training.teaching import Teacher
from roi_codec_ros.lab.training.trainer import Trainer
from roi_codec_ros.lab.training.training_run import StepReport
from roi_codec_ros.perception.detector_graph import STRIDES
from roi_codec_ros.regions.finder import open_regions

CHECKPOINT, STRIP, BOARD = "checkpoint.pt", "strip.png", "tensorboard"  # in the run's folder

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunOptions:
    """What a run is told beside its configuration.

    data, split: to train on; no photograph of them may be in val_split. out: the folder. resume:
    go on from its checkpoint. init_from: checkpoints or models to begin with; several, of the
    paper's networks, are set side by side. force: replace what
    somebody else left in the folder. detector: YOLOv8 weights whose features the reconstruction
    should keep. regions: name or path of the regions model, for block codecs. tensorboard: write
    curves and pictures.
    """

    data: Path
    split: str
    val_split: str
    out: Path
    device: str = "cpu"
    resume: bool = False
    init_from: Sequence[Path] = ()
    force: bool = False
    detector: str | None = None
    regions: str = "regions"
    tensorboard: bool = False

    def about(self, images: int) -> dict[str, Any]:
        """What the model's card says of the data."""
        data = {"name": self.data.resolve().name, "split": self.split, "images": images}
        return {"data": data, "feature_detector": os.path.basename(self.detector or "") or None}

    def detector_distance(
        self, config: TrainingConfig | BlockTrainingConfig, device: str
    ) -> DetectorDistance | None:
        """The loss of a detector's features, where there is a detector and it has a price.

        Raises UsageError where crops don't suit it.
        """
        stages = getattr(config, "stages", ())
        priced = any(c.feature_weight or c.detection_weight for c in (config, *stages))
        if self.detector is None or not priced:
            return None
        _check_crops(config.crops.size, "--feature-detector")
        return DetectorDistance(self.detector, device)

    def teacher(self, config: TrainingConfig, device: str) -> Teacher | None:
        """Whose features a normalized network foretells, if the configuration wants that.

        Raises UsageError where it does and there is no detector, or crops don't suit it.
        """
        settings = config.normalized
        if not settings.analysis or settings.teaching_weight == 0:
            return None
        if self.detector is None:
            raise UsageError(
                "expected --feature-detector for normalized.teaching_weight = "
                f"{settings.teaching_weight:g}, found none"
            )
        _check_crops(config.crops.size, "normalized.teaching_weight")
        return Teacher(self.detector, device)


def _check_crops(size: int, wanted_by: str) -> None:
    """Check that a YOLOv8 takes images of this side. Raises UsageError."""
    if size % STRIDES[-1]:
        raise UsageError(
            f"expected crops.size to be a multiple of {STRIDES[-1]} for {wanted_by}, found {size}"
        )


def train_network(config: TrainingConfig, options: RunOptions, say: Say) -> Model | None:
    """Train a preset of one network; the frozen model, None in all processes but the first.

    say: takes lines for people. Raises RoiCodecError for whatever a user can cause.
    """
    folder = _folder(config.preset, options)
    annotations = _photographs(options, config.regions)
    hidden = hidden_classes(config.regions)
    sampler = CropSampler(
        annotations,
        config.crops,
        centre_on=[*hidden, *(name for name in config.regions if name not in hidden)],
    )
    with folder if is_first_process() else contextlib.nullcontext():
        engine = start_engine(options.device)
        sampler.read_ahead()
        trainer = Trainer(
            config,
            sampler,
            options.out / CHECKPOINT,
            detector_distance=options.detector_distance(config, str(engine.device)),
            about=options.about(len(sampler.annotations)),
            engine=engine,
            teacher=options.teacher(config, str(engine.device)),
        )
        if trainer.leads:
            _report(annotations, sampler, say)
        known = sampler.left_out
        if options.resume:
            trainer.resume()
        elif options.init_from:
            trainer.start_from(*initial_weights(options.init_from, config))
        if trainer.leads and not options.resume:
            _clear(options.out, config.preset)
        _run_network(trainer, sampler, options)
        if not trainer.leads:
            return None
        found = [error for error in sampler.left_out if error not in known]
        for sentence in left_out(found, len(annotations)):
            say(f"while training: {sentence}")
        return _written(freeze(trainer.checkpoint, photographs=_readable(sampler)), options.out)


def train_blocks(config: BlockTrainingConfig, options: RunOptions, say: Say) -> Model:
    """Train the synthesis of a block codec; the frozen model. Otherwise as `train_network`."""
    folder = _folder(config.preset, options)
    annotations = _photographs(options, ("person", "head"))
    with folder:
        sampler = CropSampler(annotations, config.crops, centre_on=["person", "head"])
        sampler.read_ahead()
        _report(annotations, sampler, say)
        content = read_graph(where := find_graph(options.regions))
        regions = open_regions(content, where=str(where), threads=1)
        head = constant_head(sampler, sampler.annotations)
        trainer = BlockTrainer(
            config,
            BlockBatches(sampler, regions, config.levels, head),
            options.out / CHECKPOINT,
            options.device,
            options.detector_distance(config, options.device),
            FaceLikeness(stored_arrays(content)),
            about={
                **options.about(len(sampler.annotations)),
                "regions": Path(options.regions).name,
            },
        )
        if options.resume:
            trainer.resume()
        elif options.init_from:
            trainer.start_from(*synthesis_weights(_only(options.init_from), config.preset))
        if not options.resume:
            _clear(options.out, config.preset)
        board = open_board(options.out / BOARD) if options.tensorboard else None
        with ProgressLog(options.out / LOG_NAME, board=board, start=trainer.progress()) as log:
            trainer.run(log)
        model = freeze_blocks(trainer.checkpoint, regions, _readable(sampler))
        return _written(model, options.out)


def model_path(model: Model, out: Path) -> Path:
    """Where a run leaves its model."""
    return out / f"{model.preset.name}{SUFFIX}"


def _names(preset: str) -> tuple[str, ...]:
    """What a run leaves in its folder."""
    return CHECKPOINT, LOG_NAME, STRIP, f"{preset}{SUFFIX}", BOARD


def _folder(preset: str, options: RunOptions) -> RunFolder:
    """Where the run goes.

    Raises RoiCodecError where there is an earlier one, or what it would replace of somebody else.
    """
    out, names = options.out, _names(preset)
    if any(same_file(start, out / name) for start in options.init_from for name in names):
        raise UsageError(f"expected --init-from of another folder than --out, found {out}")
    return run_folder(
        out, "train", out / CHECKPOINT, names, resume=options.resume, force=options.force
    )


def _only(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise UsageError(f"expected one --init-from for a codec of blocks, found {len(paths)}")
    return paths[0]


def _clear(out: Path, preset: str) -> None:
    """Remove what an earlier run left, so that no log or model is made of two."""
    for name in _names(preset):
        for path in out.glob(f"{BOARD}/events.*") if name == BOARD else [out / name]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise RoiCodecError(f"cannot remove {path}: {reason_of(error)}") from error


def _photographs(options: RunOptions, classes: Iterable[str]) -> AnnotationSet:
    """The split to train on, of which no photograph is in the one to judge by, if there is one."""
    annotations = read_annotations(options.data, options.split, needs_persons=False)
    check_classes(classes, annotations)
    if options.split != options.val_split and has_split(options.data, options.val_split):
        judged = read_annotations(options.data, options.val_split, needs_persons=False)
        check_apart(annotations, judged)
    return annotations


def _report(annotations: AnnotationSet, sampler: CropSampler, say: Say) -> None:
    """What is trained on, and what could not be used."""
    used, kept = sampler.annotations, sampler.photographs.kept
    counts = {name: 0 for item in used for name in item.classes()}
    for name in counts:
        counts[name] = sum(len(item.boxes(name)) for item in used)
    boxes = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    say(f"{len(used)} photographs ({kept} in memory) with boxes: {boxes}")
    for sentence in [*shortfall(annotations), *left_out(sampler.left_out, len(annotations))]:
        say(sentence)


def _run_network(trainer: Trainer, sampler: CropSampler, options: RunOptions) -> None:
    board = open_board(options.out / BOARD) if options.tensorboard and trainer.leads else None
    spent = trainer.progress()  # every process asks: they agree on it
    if not trainer.leads:
        trainer.run(lambda report: None)
        return
    every = trainer.config.pictures_every
    strip = PictureStrip(sampler) if every else None
    with ProgressLog(options.out / LOG_NAME, board=board, start=spent) as log:

        def show(report: StepReport) -> None:
            log(report)
            if strip is not None and report.step % every == 0:
                picture = strip.draw(trainer.model, trainer.device)
                write_strip(options.out / STRIP, picture)
                log.picture(picture, report.step)

        trainer.run(show)


def _readable(sampler: CropSampler) -> list[Path]:
    """The photographs that could be read so far."""
    broken = {error.path for error in sampler.left_out}
    return [a.image_path for a in sampler.annotations if a.image_path not in broken]


def _written(model: Model, out: Path) -> Model:
    write(model_path(model, out), model.content, durable=True)
    return model
