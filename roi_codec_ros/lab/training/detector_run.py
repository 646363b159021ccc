# SPDX-License-Identifier: Apache-2.0
"""A detector's training from the data set to the weights and their card."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from roi_codec_ros.codec.model_file import read_model
from roi_codec_ros.codec.models import find_model
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.machine import describe_machine
from roi_codec_ros.common.output_files import RunFolder, check_outputs
from roi_codec_ros.lab.datasets.annotations import AnnotationSet
from roi_codec_ros.lab.datasets.annotations_any import read_annotations
from roi_codec_ros.lab.evaluation.cache import file_digest
from roi_codec_ros.lab.training.checkpoints import run_folder
from roi_codec_ros.lab.training.detector_data import PairBatches, divide
from roi_codec_ros.lab.training.detector_images import DetectorImages, held_out_scores
from roi_codec_ros.lab.training.detector_training import (
    LICENCE,
    DetectorTrainer,
    DetectorTrainingConfig,
)
from roi_codec_ros.lab.training.progress import LOG_NAME, ProgressLog
from roi_codec_ros.perception.person_detector import find_weights

WORK_SUFFIX = ".work"
RUN, CHECKPOINT = "run", "checkpoint.pt"  # in that folder, and in RUN


@dataclass(frozen=True)
class DetectorOptions:
    """What is taught on what.

    codec: name or path of the model whose decoded images are learnt. weights: to start from.
    teacher: weights of the same size that know originals; empty: those of ``weights``. out: the
    weights that come out, `.pt`; their card goes beside them. limit: of photographs. resume: go on
    with a run that was stopped. force: replace what is there. json: where the card goes, too.
    """

    codec: str
    data: Path
    split: str
    weights: str
    out: Path
    device: str
    threads: int
    teacher: str = ""
    limit: int | None = None
    resume: bool = False
    force: bool = False
    json: Path | None = None

    @property
    def card_file(self) -> Path:
        """Where the card goes."""
        return self.out.with_suffix(".json")


@dataclass(frozen=True, eq=False)
class DetectorResult:
    """The card of the weights, and what they were made of."""

    card: dict[str, Any]
    annotations: AnnotationSet
    images: DetectorImages


def train_detector(options: DetectorOptions, config: DetectorTrainingConfig) -> DetectorResult:
    """Decode the data set, teach the detector, and write weights and card.

    Raises RoiCodecError for whatever a user can cause.
    """
    if options.out.suffix != ".pt":
        raise UsageError(f"expected --out to end in .pt, found {options.out.name}")
    weights, codec = find_weights(options.weights), find_model(options.codec)
    teacher = find_weights(options.teacher) if options.teacher else weights
    files = check_outputs(
        {"out": options.out, "card": options.card_file, "json": options.json},
        force=options.force,
        inputs=[weights, teacher, codec],
    )
    folder = _work_folder(options)
    model = read_model(codec)
    annotations = read_annotations(options.data, options.split, needs_persons=False)
    division = divide(annotations, options.limit)
    runs_on: dict[str, Any] = {"device": options.device, "threads": options.threads}
    with folder:
        images = DetectorImages(folder.path, model, division, **runs_on)
        before = held_out_scores(images, weights, **runs_on)
        about = {
            "started_from": {"file": weights.name, "sha256": file_digest(weights)},
            "teacher": {"file": teacher.name, "sha256": file_digest(teacher)},
            "codec": {"name": model.name, "preset": model.preset.name, "id": model.id.hex()},
            "data": {"name": options.data.resolve().name, "split": options.split},
            "images": {**images.summary, "digest": images.digest},
        }
        trainer = DetectorTrainer(
            config,
            PairBatches(images.pairs, config.crops),
            folder.path / RUN / CHECKPOINT,
            weights,
            teacher,
            options.device,
            about,
        )
        _run(trainer, options)
        files["out"].write(trainer.weights_file())
        after = held_out_scores(images, options.out, **runs_on)
        card = {
            "name": options.out.stem,
            "sha256": file_digest(options.out),
            "licence": LICENCE,
            "date": date.today().isoformat(),
            **about,
            "steps": trainer.step,
            "minutes": round(trainer.elapsed_s / 60.0, 1),
            "history": trainer.history,
            "machine": describe_machine(device=options.device, threads=options.threads),
            "ultralytics": version("ultralytics"),
            "held_out_person_ap50": {
                kind: {"before": before[kind], "after": after[kind]} for kind in before
            },
        }
        files["card"].write_json(card)
        if options.json:
            files["json"].write_json(card)
    return DetectorResult(card, annotations, images)


def _run(trainer: DetectorTrainer, options: DetectorOptions) -> None:
    if options.resume and trainer.checkpoint.is_file():
        trainer.resume()
    torch.set_num_threads(options.threads)  # ultralytics has set them to its own taste
    with ProgressLog(trainer.checkpoint.with_name(LOG_NAME), start=trainer.progress()) as log:
        trainer.run(log)


def _work_folder(options: DetectorOptions) -> RunFolder:
    """The folder beside --out. Raises RoiCodecError where an earlier run would be lost."""
    work = options.out.with_name(options.out.stem + WORK_SUFFIX)
    kept = work / RUN / CHECKPOINT
    return run_folder(
        work, "train-detector", kept, (RUN,), resume=options.resume, force=options.force
    )
