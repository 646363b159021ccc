# SPDX-License-Identifier: Apache-2.0
"""Audit a model's privacy on held-out photographs: detectors, attackers, recognition, bits.

What face detectors still find in decoded images and in cheap inversions of them, beside the
originals and JPEG at the same rate (the ceilings) and originals with erased heads (the floor); the
bits that can depend on a head, with the bound that follows for any attacker; and for models that
hide heads which of these the regions miss. Without --quick also what two attackers restore who
train decoders of their own, and whether a face recognizer still names faces that were pasted into
scenes. A regions model (.onnx) is audited alone: nothing is coded then.

example:
  roi-codec audit regions --data DATA --split val --detectors mtcnn,yunet=yunet.onnx
  roi-codec audit fast --data DATA --split val --quick \\
      --detectors mtcnn,blazeface,haar,yunet=yunet.onnx --json audit.json --html audit.html
  roi-codec audit fast --data DATA --split val --attack-minutes 30 --embedder dlib \\
      --json audit.json --html audit.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    outputs,
    positive,
    positive_real,
)

if TYPE_CHECKING:
    from roi_codec_ros.codec.models import Model
    from roi_codec_ros.lab.datasets.annotations import Annotation
    from roi_codec_ros.lab.evaluation.methods import Method
    from roi_codec_ros.lab.faces.face_embedders import FaceEmbedder
    from roi_codec_ros.lab.privacy.attackers import TrainedAttacker
    from roi_codec_ros.lab.privacy.reidentification import Reidentification
    from roi_codec_ros.perception.face_detectors import FaceDetector

FAILURES_SHOWN = 20  # the JSON has them all
QUICK_LIMIT = 32
IDENTITY_DETECTOR = "mtcnn"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "model", metavar="MODEL", help="name or .safetensors file; or a regions model"
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="folder with annotation_SPLIT.odgt and images"
    )
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="one that the model was not trained on"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="no attackers, no recognition, inversions on decoded images only, and "
        f"{QUICK_LIMIT} images unless --limit says otherwise",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="only N images, spread evenly over the split"
    )
    parser.add_argument(
        "--detectors",
        default="mtcnn,haar",
        metavar="LIST",
        help="of mtcnn, blazeface, haar and yunet=PATH (default: %(default)s)",
    )
    parser.add_argument(
        "--regions",
        default="regions",
        metavar="NAME",
        help="regions that hide heads, by name or .onnx file (default: %(default)s)",
    )
    parser.add_argument(
        "--inversions",
        metavar="LIST",
        help="only these inversions of decoded images; negated is always among them "
        "(default: all)",
    )
    parser.add_argument(
        "--attack-minutes",
        type=positive_real,
        default=10.0,
        metavar="M",
        help="how long each of the two attackers is trained (default: %(default)g)",
    )
    parser.add_argument(
        "--attack-steps",
        type=positive,
        metavar="N",
        help="train for N steps instead, which comes out the same again on the same machine",
    )
    parser.add_argument(
        "--attack-split",
        default="train",
        metavar="NAME",
        help="what the attackers are trained on: not the audited split (default: %(default)s)",
    )
    parser.add_argument("--no-attack", action="store_true", help="leave the attackers out")
    parser.add_argument(
        "--embedder",
        metavar="NAME",
        help="dlib or facenet=PATH, or none (default: dlib where it is installed)",
    )
    parser.add_argument(
        "--identities",
        type=positive,
        default=60,
        metavar="N",
        help="at most N faces to tell apart (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads (default: all)")
    add_json_option(parser)
    add_force_option(parser)
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write the report as one file; its pictures show faces of the data set",
    )


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from tqdm import tqdm

    from roi_codec_ros.codec.models import load_model
    from roi_codec_ros.common.devices import torch_device
    from roi_codec_ros.common.machine import describe_machine, usable_cores
    from roi_codec_ros.lab.commands.audit_regions import (
        audit_regions,
        is_regions_model,
        make_detectors,
        region_judge,
    )
    from roi_codec_ros.lab.commands.evaluate import choose
    from roi_codec_ros.lab.datasets.annotations_any import read_annotations, shortfall
    from roi_codec_ros.lab.evaluation.methods import ModelMethod
    from roi_codec_ros.lab.privacy.audit import audit
    from roi_codec_ros.lab.privacy.audit_page import audit_page
    from roi_codec_ros.lab.privacy.audit_report import audit_report, summary_text
    from roi_codec_ros.lab.privacy.leakage import HeadMeter
    from roi_codec_ros.lab.privacy.reidentification import reid_report
    from roi_codec_ros.lab.privacy.versions import chosen_inversions

    if is_regions_model(args.model):
        audit_regions(args)
        return
    files = outputs(args, "json", "html", inputs=[args.model])
    model = load_model(args.model)
    annotated = read_annotations(args.data, args.split)
    limit = args.limit or (QUICK_LIMIT if args.quick else None)
    chosen = choose(annotated, all_images=True, limit=limit)
    torch_device(args.device)
    inversions = chosen_inversions(args.inversions)
    detectors = make_detectors(args)
    left_out: dict[str, str] = {}
    recognizer = _make_recognizer(args, left_out)
    threads = args.threads or usable_cores()
    judge = region_judge(args, model) if model.codes_blocks else None
    method = ModelMethod(
        model, device=args.device, threads=threads, regions=judge.finder if judge else None
    )
    meter = HeadMeter(model, device=args.device, regions=judge.finder if judge else None)
    attackers, minutes = _train_attackers(args, model, left_out)
    with tqdm(total=len(chosen), unit="image", disable=None) as progress:
        result = audit(
            chosen,
            method,
            detectors,
            meter,
            attackers=attackers,
            regions=judge,
            inversions=inversions,
            quick=args.quick,
            on_image=lambda _: progress.update(),
        )
    reid = None
    if recognizer is not None:
        reid = _reidentify(args, annotated, method, *recognizer, attackers, left_out)
    report = audit_report(
        result,
        [detector.name for detector in detectors],
        attackers=attackers,
        attack_minutes=minutes,
        reid=reid_report(reid) if reid else None,
        left_out=left_out,
        model=model.name,
        model_id=model.id.hex(),
        preset=model.preset.name,
        dataset=Path(args.data).resolve().name,
        split=args.split,
        quick=args.quick,
        codes_blocks=model.codes_blocks,
        receptive_field_px=meter.receptive_field.width_px,
        machine=describe_machine(device=args.device, threads=threads),
    )
    if args.json:
        files["json"].write_json(report)
    if args.html:
        probes = reid.shown if reid else []
        html = audit_page(report, result.scenes, result.shown_heads, probes)
        files["html"].write(html.encode())
    print(summary_text(report))
    print(f"{result.images} of {len(annotated)} images audited")
    for sentence in shortfall(annotated):
        print(sentence, file=sys.stderr)
    for failure in result.failures[:FAILURES_SHOWN]:
        print(f"left out: {failure}", file=sys.stderr)
    if not args.quick:  # which says already what it does not do
        for section, reason in left_out.items():
            print(f"left out: {section}: {reason}", file=sys.stderr)


def _make_recognizer(
    args: argparse.Namespace, left_out: dict[str, str]
) -> tuple[FaceDetector, FaceEmbedder] | None:
    """What re-identification needs; None, and the reason, where it is to be left out."""
    from roi_codec_ros.common.errors import RoiCodecError
    from roi_codec_ros.lab.faces.face_embedders import make_face_embedder
    from roi_codec_ros.perception.face_detectors import make_face_detector

    if args.quick or args.embedder == "none":
        left_out["reid"] = "not part of --quick" if args.quick else "--embedder none"
        return None
    try:
        embedder = make_face_embedder(args.embedder or "dlib", device=args.device)
        return make_face_detector(IDENTITY_DETECTOR, device=args.device), embedder
    except RoiCodecError as error:
        if args.embedder:
            raise
        left_out["reid"] = str(error)
        return None


def _train_attackers(
    args: argparse.Namespace, model: Model, left_out: dict[str, str]
) -> tuple[list[TrainedAttacker], float | None]:
    """The attackers, and the minutes that each was trained for."""
    if args.quick or args.no_attack:
        left_out["attacker"] = "not part of --quick" if args.quick else "--no-attack"
        return [], None

    from tqdm import tqdm

    from roi_codec_ros.common.errors import UsageError
    from roi_codec_ros.common.photographs import left_out
    from roi_codec_ros.lab.datasets.annotations_any import read_annotations, shortfall
    from roi_codec_ros.lab.privacy.attackers import (
        ATTACKERS,
        AttackConfig,
        AttackStep,
        AttackTrainer,
        FrozenCodec,
    )
    from roi_codec_ros.lab.training.data import CropSampler

    if args.attack_split == args.split:
        raise UsageError(
            f"expected attackers trained on another split than the audited, found {args.split}"
        )
    config = AttackConfig(minutes=args.attack_minutes, steps=args.attack_steps)
    annotated = read_annotations(args.data, args.attack_split)
    sampler = CropSampler(annotated, config.crops)
    codec = FrozenCodec(model, args.device)
    attackers, seconds = [], []
    for name in ATTACKERS:
        bar = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
        with tqdm(total=1.0, desc=f"attacker {name}", bar_format=bar, disable=None) as progress:

            def show(step: AttackStep, progress: tqdm[Any] = progress) -> None:
                progress.n = step.progress
                progress.set_postfix(step=step.step, loss=f"{step.loss:.4f}")

            attackers.append(AttackTrainer(name, codec, config).run(sampler, show))
            seconds.append(attackers[-1].elapsed_s)
    for sentence in [*shortfall(annotated), *left_out(sampler.left_out, len(annotated))]:
        print(f"{args.attack_split}: {sentence}", file=sys.stderr)
    return attackers, args.attack_minutes if args.attack_steps is None else min(seconds) / 60.0


def _reidentify(
    args: argparse.Namespace,
    annotated: Sequence[Annotation],
    method: Method,
    detector: FaceDetector,
    embedder: FaceEmbedder,
    attackers: Sequence[TrainedAttacker],
    left_out: dict[str, str],
) -> Reidentification | None:
    """What was measured; None, and the reason, where the images do not give enough faces."""
    from tqdm import tqdm

    from roi_codec_ros.common.errors import RoiCodecError
    from roi_codec_ros.lab.privacy.probes import find_identities
    from roi_codec_ros.lab.privacy.reidentification import reidentify

    with tqdm(total=len(annotated), desc="identities", unit="image", disable=None) as progress:
        identities, scenes = find_identities(
            annotated,
            detector,
            embedder,
            limit=args.identities,
            on_image=lambda _: progress.update(),
        )
    try:
        with tqdm(total=len(identities), desc="probes", unit="scene", disable=None) as progress:
            return reidentify(
                identities,
                scenes,
                method,
                embedder,
                attackers=attackers,
                on_scene=lambda: progress.update(),
            )
    except RoiCodecError as error:
        left_out["reid"] = str(error)
        return None
