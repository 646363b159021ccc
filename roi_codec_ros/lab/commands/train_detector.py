# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a YOLOv8 person detector on images that a codec decoded, with some originals.

example:
  roi-codec train-detector --codec fast --data DATA --weights yolov8n.pt --minutes 30 \\
      --out models/person-yolov8n-fast.pt

DIR is a data set in CrowdHuman's, COCO's or YOLO's layout. Its photographs are coded and decoded
whole, as the evaluation does it, into a folder beside --out, where the next run finds them again.
A few are held out, on which the detector is measured before and after; the card beside the weights
(FILE.json) tells the figures. The weights are under ultralytics' licence, AGPL-3.0.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    not_negative,
    positive,
    positive_real,
)

if TYPE_CHECKING:
    from roi_codec_ros.codec import Model
    from roi_codec_ros.common.output_files import RunFolder
    from roi_codec_ros.lab.datasets.annotations import AnnotationSet
    from roi_codec_ros.lab.training.detector_images import DetectorImages
    from roi_codec_ros.lab.training.detector_training import FineTuned, FineTuning

WORK_SUFFIX = ".work"
RUN, YOLO_FILES = "run", ("data.yaml", "train.txt", "val.txt")  # in that folder
FAILURES_SHOWN = 20
BAR = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--codec", required=True, metavar="MODEL", help="name or .safetensors file"
    )
    parser.add_argument("--data", required=True, type=Path, metavar="DIR")
    parser.add_argument("--split", default="train", help="split to train on (default: train)")
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="YOLO weights to start from"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.pt")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--epochs", type=positive, metavar="N")
    budget.add_argument(
        "--minutes",
        type=positive_real,
        metavar="M",
        help="of training, without decoding before it",
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
        help="first layers that stay as they are (default: 0; 10 is YOLOv8's whole backbone)",
    )
    parser.add_argument(
        "--originals",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="share of the photographs to train on undecoded as well, 0 to 1 (default: 0.25)",
    )
    parser.add_argument(
        "--tuned-share",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of the fine-tuned weights in the result, the rest are those that it started from; "
        "1 forgets most (default: 0.5)",
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only so many photographs")
    parser.add_argument("--seed", type=not_negative, default=1, help="default: %(default)s")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last epoch of a run that was stopped"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: one a core")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    os.environ.setdefault("YOLO_OFFLINE", "1")  # before ultralytics is imported

    from tqdm import tqdm

    from roi_codec_ros.codec import UsageError
    from roi_codec_ros.codec.model_file import read_model
    from roi_codec_ros.codec.models import find_model
    from roi_codec_ros.common.machine import usable_cores
    from roi_codec_ros.common.output_files import check_outputs
    from roi_codec_ros.lab.datasets.annotations_any import read_annotations
    from roi_codec_ros.lab.evaluation.cache import file_digest
    from roi_codec_ros.lab.training.detector_data import divide, write_yolo_data
    from roi_codec_ros.lab.training.detector_images import DetectorImages, held_out_scores
    from roi_codec_ros.lab.training.detector_training import (
        FineTuning,
        fine_tune,
        interpolate,
        weights_bytes,
    )
    from roi_codec_ros.perception.person_detector import APOSTROPHE, find_weights

    for option in ("originals", "tuned_share"):
        if not 0.0 <= (share := getattr(args, option)) <= 1.0:
            name = option.replace("_", "-")
            raise UsageError(f"expected a share of 0 to 1 for --{name}, found {share:g}")
    if args.out.suffix != ".pt":
        raise UsageError(f"expected --out to end in .pt, found {args.out.name}")
    if APOSTROPHE in str(args.out.absolute()):
        raise UsageError(
            "expected --out in folders without an apostrophe in their names, in which ultralytics "
            f"finds what it wrote, found {args.out}"
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
    args.threads = args.threads or usable_cores()
    weights = find_weights(args.weights)
    card_file = args.out.with_suffix(".json")
    codec = find_model(args.codec)
    files = check_outputs(
        {"out": args.out, "card": card_file, "json": args.json},
        force=args.force,
        inputs=[weights, codec],
    )
    folder = _work_folder(args)
    model = read_model(codec)
    annotations = read_annotations(args.data, args.split)
    division = divide(annotations, args.limit)

    with folder:
        work = folder.path
        options = {"device": args.device, "threads": args.threads}
        images = DetectorImages(work, model, division, originals=args.originals, **options)
        before = held_out_scores(images, weights, image_size=args.image_size, **options)
        data = write_yolo_data(work, images.train_files, images.held_out_files)
        started_from = {"file": weights.name, "sha256": file_digest(weights)}
        with tqdm(total=100.0, desc="train", bar_format=BAR, disable=None) as bar:
            tuned = fine_tune(
                weights,
                data,
                config,
                work / RUN,
                **options,
                resume=args.resume,
                identity=f"{started_from['sha256']} {images.digest}",
                on_step=lambda progress: bar.update(100.0 * progress - bar.n),
            )
        share = interpolate(tuned.network, weights, args.tuned_share)
        files["out"].write(weights_bytes(tuned.network, config.image_size))
        after = held_out_scores(images, args.out, image_size=args.image_size, **options)
        card = {
            "name": args.out.stem,
            "sha256": file_digest(args.out),
            **_provenance(model, started_from, args),
            "images": images.summary,
            **_training(tuned, config, args),
            "tuned_share": share,
            "held_out_person_ap50": {
                kind: {"before": before[kind], "after": after[kind]} for kind in before
            },
        }
        files["card"].write_json(card)
        if args.json:
            files["json"].write_json(card)
    _report(card, annotations, images, args.out, card_file)


def _work_folder(args: argparse.Namespace) -> RunFolder:
    """The folder beside --out. Raises RoiCodecError where an earlier run would be lost."""
    from roi_codec_ros.common.errors import RoiCodecError
    from roi_codec_ros.common.output_files import RunFolder
    from roi_codec_ros.lab.training.detector_training import STATE_FILE

    work = args.out.with_name(args.out.stem + WORK_SUFFIX)
    earlier = work / RUN / STATE_FILE
    if args.resume:
        return RunFolder(work, "train-detector", ())
    if earlier.exists() and not args.force:
        raise RoiCodecError(
            f"expected no earlier run in {work}, found {earlier}; --resume goes on with it, "
            "--force starts over in its place"
        )
    return RunFolder(work, "train-detector", (RUN, *YOLO_FILES), force=args.force)


def _provenance(
    model: Model, started_from: dict[str, str], args: argparse.Namespace
) -> dict[str, Any]:
    from datetime import date

    from roi_codec_ros.lab.training.detector_training import LICENCE

    return {
        "licence": LICENCE,
        "date": date.today().isoformat(),
        "started_from": started_from,
        "codec": {"name": model.name, "preset": model.preset.name, "id": model.id.hex()},
        "data": {"name": args.data.resolve().name, "split": args.split},
    }


def _training(tuned: FineTuned, config: FineTuning, args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict
    from importlib.metadata import version

    from roi_codec_ros.common.machine import describe_machine
    from roi_codec_ros.lab.training.detector_training import AUGMENTATION

    return {
        "image_size": config.image_size,
        "epochs": round(tuned.epochs, 2),
        "steps": tuned.steps,
        "minutes": round(tuned.minutes, 1),
        "settings": {
            **asdict(config),
            "originals": args.originals,
            "limit": args.limit,
            "optimizer": "AdamW",
            **AUGMENTATION,
        },
        "machine": describe_machine(device=args.device, threads=args.threads),
        "ultralytics": version("ultralytics"),
    }


def _report(
    card: dict[str, Any],
    annotations: AnnotationSet,
    images: DetectorImages,
    out: Path,
    card_file: Path,
) -> None:
    from roi_codec_ros.lab.datasets.annotations_any import shortfall

    summary = card["images"]
    print(
        f"{summary['decoded']} decoded images and {summary['originals']} originals to train on, "
        f"{summary['held_out']} held out; {images.made} decoded now, the others before"
    )
    unknown = summary["left_out_persons_unknown"]
    if unknown:
        print(f"left out: {unknown} photographs whose persons nobody has marked")
    for sentence in shortfall(annotations):
        print(sentence, file=sys.stderr)
    for image_id, reason in images.failures[:FAILURES_SHOWN]:
        print(f"left out: {image_id}: {reason}", file=sys.stderr)
    print(f"{card['steps']} steps, {card['epochs']} epochs, {card['minutes']} minutes")
    for kind, score in card["held_out_person_ap50"].items():
        print(f"person AP@0.5, held out, {kind}: {score['before']} before, {score['after']} after")
    print(f"wrote {out} and {card_file}")
