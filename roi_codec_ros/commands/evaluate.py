# SPDX-License-Identifier: Apache-2.0
"""Measure models and standard codecs on annotated photographs; the first row is the originals.

Bits, distortion, persons that YOLO finds, faces that a face detector finds, and time.

example:
  roi-codec evaluate --data DATA --split val --models fast \\
      --baselines jpeg:1,5,10 av1:1,5,10 av1@10:1 --detector yolov8n.pt --json evaluation.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.commands.common import add_json_option, write_json
from roi_codec_ros.perception.annotations import Annotation, AnnotationSet, read_odgt

if TYPE_CHECKING:
    from roi_codec_ros.perception.detector import PersonDetector

FAILURES_SHOWN = 20  # the JSON has them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="folder with annotation_SPLIT.odgt and images/SPLIT/, or CrowdHuman's Images/",
    )
    parser.add_argument("--split", required=True, metavar="NAME", help="for example val")
    parser.add_argument(
        "--models", nargs="*", default=[], metavar="MODEL", help="names or .safetensors files"
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        default=[],
        metavar="SPEC",
        help="such as jpeg:1,5,10 (qualities), av1:1,5,10 (speed 6), av1@10:1 (speed 10)",
    )
    parser.add_argument(
        "--detector",
        required=True,
        metavar="WEIGHTS",
        help="ultralytics weights that find persons",
    )
    parser.add_argument(
        "--detector-size", type=int, default=640, metavar="PX", help="its input size (default 640)"
    )
    parser.add_argument(
        "--face-detector", default="mtcnn", metavar="SPEC", help="mtcnn (default) or yunet=PATH"
    )
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="only N images, spread evenly over the split"
    )
    parser.add_argument(
        "--all-images",
        action="store_true",
        help="also images without human-made person boxes; they never count in the person score",
    )
    parser.add_argument(
        "--resize",
        type=_size,
        metavar="WxH",
        help="stretch every image to this size first, as the paper does to 512x512",
    )
    parser.add_argument(
        "--plus-one",
        action="store_true",
        help="count a box's last pixel in its width, as the paper's scoring tool does",
    )
    parser.add_argument(
        "--repeats",
        type=_positive,
        default=1,
        metavar="N",
        help="timed runs of each codec on each image (default 1; the paper: 10)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument(
        "--threads", type=_positive, metavar="N", help="threads of torch (default: one a core)"
    )
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from roi_codec_ros.codec.models import load_model
    from roi_codec_ros.evaluation.baselines import parse_baselines
    from roi_codec_ros.evaluation.evaluate import EvaluationSettings, evaluate, report
    from roi_codec_ros.evaluation.faces import make_face_detector
    from roi_codec_ros.evaluation.machine import describe_machine, usable_cores
    from roi_codec_ros.evaluation.methods import ModelMethod
    from roi_codec_ros.evaluation.tables import format_table
    from roi_codec_ros.perception.detector import PersonDetector

    settings = EvaluationSettings(repeats=args.repeats, plus_one=args.plus_one, resize=args.resize)
    baselines = parse_baselines(args.baselines)
    annotated = read_odgt(args.data, args.split)
    chosen = choose(annotated, all_images=args.all_images, limit=args.limit)
    loaded = [load_model(name) for name in args.models]
    check_device(args.device)
    detector = PersonDetector(args.detector, image_size=args.detector_size, device=args.device)
    face_detector = make_face_detector(args.face_detector, device=args.device)
    threads = args.threads or usable_cores()
    _set_threads(threads, detector)
    models = [ModelMethod(model, device=args.device, threads=threads) for model in loaded]
    with tqdm(total=len(chosen), unit="image", disable=None) as progress:
        evaluation = evaluate(
            chosen,
            [*models, *baselines],
            detector,
            face_detector,
            settings,
            on_image=lambda _: progress.update(),
        )
    print(format_table(evaluation.rows))
    print(_summary(annotated, len(chosen), evaluation.images))
    for failure in evaluation.failures[:FAILURES_SHOWN]:
        print(f"left out: {failure}", file=sys.stderr)
    if args.json:
        write_json(
            args.json,
            report(
                evaluation,
                dataset=Path(args.data).resolve().name,
                split=args.split,
                machine=describe_machine(device=args.device, threads=threads),
                detector=f"{Path(args.detector).name} at {args.detector_size} px",
                face_detector=args.face_detector.partition("=")[0],
                settings=settings,
            ),
        )


def choose(
    annotated: AnnotationSet, *, all_images: bool, limit: int | None
) -> Sequence[Annotation]:
    """The images to measure, in file order; `limit` of them spread evenly, ends included.

    Raises RoiCodecError where the split has no image with human-made person boxes.
    """
    usable = [item for item in annotated if all_images or item.person_boxes == "human"]
    if not usable:
        raise RoiCodecError(
            "expected images with human-made person boxes, found none; --all-images takes the rest"
        )
    if limit is None or limit >= len(usable):
        return usable
    if limit == 1:
        return usable[:1]
    return [usable[round(index * (len(usable) - 1) / (limit - 1))] for index in range(limit)]


def _summary(annotated: AnnotationSet, chosen: int, measured: int) -> str:
    parts = [f"{measured} of {len(annotated)} images measured"]
    if measured < chosen:
        parts.append(f"{chosen - measured} failed and count in no row")
    if annotated.unreadable:
        image_id, reason = annotated.unreadable[0]
        parts.append(
            f"{len(annotated.unreadable)} of unknown size left out, first {image_id}: {reason}"
        )
    if annotated.dropped_boxes:
        parts.append(f"{annotated.dropped_boxes} boxes outside their image dropped")
    return "; ".join(parts)


def check_device(device: str) -> None:
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch is built without it
        reason = str(error).splitlines()[0]
        raise RoiCodecError(f"expected a usable device, found {device!r}: {reason}") from error


def _set_threads(threads: int, detector: PersonDetector) -> None:
    import torch

    # ultralytics sets torch's threads to its own taste when it first predicts.
    detector.detect(np.zeros((32, 32, 3), np.uint8))
    torch.set_num_threads(threads)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


_positive.__name__ = "positive number"


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    return _positive(width), _positive(height)


_size.__name__ = "size"
