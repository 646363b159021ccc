# SPDX-License-Identifier: Apache-2.0
"""`roi-codec audit` of a regions model alone, and what the audit of a codec shares with it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import outputs

if TYPE_CHECKING:
    from roi_codec_ros.codec.models import Model
    from roi_codec_ros.lab.privacy.region_recall import RegionJudge
    from roi_codec_ros.perception.face_detectors import FaceDetector

FAILURES_SHOWN = 20  # the JSON has them all


def is_regions_model(name: str) -> bool:
    """Whether a name or file is a graph, and no codec has that name."""
    from roi_codec_ros.codec.models import find_model
    from roi_codec_ros.common.errors import ModelFileError
    from roi_codec_ros.common.graph_runtime import find_graph

    for find, answer in ((find_model, False), (find_graph, True)):
        try:
            find(name)
        except ModelFileError:
            continue
        return answer
    return False


def make_detectors(args: argparse.Namespace) -> list[FaceDetector]:
    """The face detectors of ``--detectors``. Raises RoiCodecError."""
    from roi_codec_ros.common.errors import UsageError
    from roi_codec_ros.perception.face_detectors import make_face_detector

    names = args.detectors.split(",")
    detectors = [make_face_detector(name, device=args.device) for name in names]
    if len({detector.name for detector in detectors}) < len(detectors):
        raise UsageError(f"expected every detector once, found {args.detectors}")
    return detectors


def region_judge(args: argparse.Namespace, model: Model | None = None) -> RegionJudge:
    """The judge of ``--regions`` beside a codec, or of the regions model that is audited."""
    from roi_codec_ros.codec.policy import model_policy
    from roi_codec_ros.lab.privacy.region_recall import RegionJudge
    from roi_codec_ros.regions import load_regions

    finder = load_regions(args.regions if model else args.model, threads=args.threads)
    return RegionJudge(finder, model_policy(model).person if model else None)


def audit_regions(args: argparse.Namespace) -> None:
    """What a regions model hides and overlooks. Raises RoiCodecError."""
    from tqdm import tqdm

    from roi_codec_ros.common.errors import UsageError
    from roi_codec_ros.common.graph_runtime import find_graph
    from roi_codec_ros.lab.commands.evaluate import choose
    from roi_codec_ros.lab.datasets.annotations_any import read_annotations, shortfall
    from roi_codec_ros.lab.privacy.region_recall import judge_regions, recall_text

    if args.html:
        raise UsageError("expected no --html for regions alone, whose report is a table; found it")
    files = outputs(args, "json", inputs=[args.model])
    annotated = read_annotations(args.data, args.split)
    chosen = choose(annotated, all_images=True, limit=args.limit)
    judge = region_judge(args)
    detectors = make_detectors(args)
    with tqdm(total=len(chosen), unit="image", disable=None) as progress:
        result = judge_regions(chosen, judge, detectors, on_image=lambda _: progress.update())
    report = {
        "regions_model": find_graph(args.model).stem,
        "dataset": Path(args.data).resolve().name,
        "split": args.split,
        "detectors": [detector.name for detector in detectors],
        "failures": [{"image": f.image, "reason": f.reason} for f in result.failures],
        "regions": result.report(),
    }
    if args.json:
        files["json"].write_json(report)
    print(recall_text(report["regions"]))
    print(f"{result.images} of {len(annotated)} images audited")
    for sentence in shortfall(annotated):
        print(sentence, file=sys.stderr)
    for failure in result.failures[:FAILURES_SHOWN]:
        print(f"left out: {failure}", file=sys.stderr)
