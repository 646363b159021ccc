# SPDX-License-Identifier: Apache-2.0
"""A detector's fine-tuning from the data set to the weights and their card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from roi_codec_ros.codec.model_file import Model, read_model
from roi_codec_ros.codec.models import find_model
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.machine import describe_machine
from roi_codec_ros.common.output_files import RunFolder, check_outputs
from roi_codec_ros.lab.datasets.annotations import AnnotationSet
from roi_codec_ros.lab.datasets.annotations_any import read_annotations
from roi_codec_ros.lab.evaluation.cache import file_digest
from roi_codec_ros.lab.training.detector_data import divide, write_yolo_data
from roi_codec_ros.lab.training.detector_images import DetectorImages, held_out_scores
from roi_codec_ros.lab.training.detector_training import (
    AUGMENTATION,
    LICENCE,
    STATE_FILE,
    FineTuned,
    FineTuning,
    fine_tune,
    interpolate,
    weights_bytes,
)
from roi_codec_ros.perception.person_detector import APOSTROPHE, find_weights

WORK_SUFFIX = ".work"
RUN, YOLO_FILES = "run", ("data.yaml", "train.txt", "val.txt")  # in that folder


@dataclass(frozen=True)
class DetectorOptions:
    """What is fine-tuned on what.

    codec: name or path of the model whose decoded images are learnt. weights: to start from.
    out: the weights that come out, `.pt`; their card goes beside them. originals: share of the
    photographs to train on undecoded as well. tuned_share: of the fine-tuned weights in the
    result. limit: of photographs. resume: go on with a run that was stopped. force: replace what
    is there. json: where the card goes, too.
    """

    codec: str
    data: Path
    split: str
    weights: str
    out: Path
    originals: float
    tuned_share: float
    device: str
    threads: int
    limit: int | None = None
    resume: bool = False
    force: bool = False
    json: Path | None = None

    @property
    def card_file(self) -> Path:
        """Where the card goes."""
        return self.out.with_suffix(".json")

    def check(self) -> None:
        """Raise UsageError for what cannot be."""
        for name, share in (("originals", self.originals), ("tuned-share", self.tuned_share)):
            if not 0.0 <= share <= 1.0:
                raise UsageError(f"expected a share of 0 to 1 for --{name}, found {share:g}")
        if self.out.suffix != ".pt":
            raise UsageError(f"expected --out to end in .pt, found {self.out.name}")
        if APOSTROPHE in str(self.out.absolute()):
            raise UsageError(
                "expected --out in folders without an apostrophe in their names, in which "
                f"ultralytics finds what it wrote, found {self.out}"
            )


@dataclass(frozen=True, eq=False)
class DetectorResult:
    """The card of the weights, and what they were made of."""

    card: dict[str, Any]
    annotations: AnnotationSet
    images: DetectorImages


def train_detector(
    options: DetectorOptions, config: FineTuning, on_progress: Callable[[float], None]
) -> DetectorResult:
    """Decode the data set, fine-tune on it, and write weights and card.

    on_progress: is told the share of the training that is done, 0 to 1. Raises RoiCodecError for
    whatever a user can cause.
    """
    options.check()
    weights, codec = find_weights(options.weights), find_model(options.codec)
    files = check_outputs(
        {"out": options.out, "card": options.card_file, "json": options.json},
        force=options.force,
        inputs=[weights, codec],
    )
    folder = _work_folder(options)
    model = read_model(codec)
    annotations = read_annotations(options.data, options.split)
    division = divide(annotations, options.limit)
    runs_on: dict[str, Any] = {"device": options.device, "threads": options.threads}
    scored = {**runs_on, "image_size": config.image_size}
    with folder:
        work = folder.path
        images = DetectorImages(work, model, division, originals=options.originals, **runs_on)
        before = held_out_scores(images, weights, **scored)
        data = write_yolo_data(work, images.train_files, images.held_out_files)
        started_from = {"file": weights.name, "sha256": file_digest(weights)}
        tuned = fine_tune(
            weights,
            data,
            config,
            work / RUN,
            **runs_on,
            resume=options.resume,
            identity=f"{started_from['sha256']} {images.digest}",
            on_step=on_progress,
        )
        share = interpolate(tuned.network, weights, options.tuned_share)
        files["out"].write(weights_bytes(tuned.network, config.image_size))
        after = held_out_scores(images, options.out, **scored)
        card = {
            "name": options.out.stem,
            "sha256": file_digest(options.out),
            **_provenance(model, started_from, options),
            "images": images.summary,
            **_training(tuned, config, options),
            "tuned_share": share,
            "held_out_person_ap50": {
                kind: {"before": before[kind], "after": after[kind]} for kind in before
            },
        }
        files["card"].write_json(card)
        if options.json:
            files["json"].write_json(card)
    return DetectorResult(card, annotations, images)


def _work_folder(options: DetectorOptions) -> RunFolder:
    """The folder beside --out. Raises RoiCodecError where an earlier run would be lost."""
    work = options.out.with_name(options.out.stem + WORK_SUFFIX)
    earlier = work / RUN / STATE_FILE
    if options.resume:
        return RunFolder(work, "train-detector", ())
    if earlier.exists() and not options.force:
        raise RoiCodecError(
            f"expected no earlier run in {work}, found {earlier}; --resume goes on with it, "
            "--force starts over in its place"
        )
    return RunFolder(work, "train-detector", (RUN, *YOLO_FILES), force=options.force)


def _provenance(
    model: Model, started_from: dict[str, str], options: DetectorOptions
) -> dict[str, Any]:
    return {
        "licence": LICENCE,
        "date": date.today().isoformat(),
        "started_from": started_from,
        "codec": {"name": model.name, "preset": model.preset.name, "id": model.id.hex()},
        "data": {"name": options.data.resolve().name, "split": options.split},
    }


def _training(tuned: FineTuned, config: FineTuning, options: DetectorOptions) -> dict[str, Any]:
    return {
        "image_size": config.image_size,
        "epochs": round(tuned.epochs, 2),
        "steps": tuned.steps,
        "minutes": round(tuned.minutes, 1),
        "settings": {
            **asdict(config),
            "originals": options.originals,
            "limit": options.limit,
            "optimizer": "AdamW",
            **AUGMENTATION,
        },
        "machine": describe_machine(device=options.device, threads=options.threads),
        "ultralytics": version("ultralytics"),
    }
