# SPDX-License-Identifier: Apache-2.0
"""Audit a model's privacy on held-out photographs: detectors, inversions, bits per head.

What face detectors still find in decoded images and in cheap inversions of them, beside the
originals and JPEG at the same rate (the ceilings) and originals with erased heads (the floor); and
the bits that can depend on a head, with the bound that follows for any attacker.

example:
  roi-codec audit fast --data DATA --split val --quick \\
      --detectors mtcnn,blazeface,haar,yunet=yunet.onnx --json audit.json --html audit.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from roi_codec_ros.commands.common import (
    add_json_option,
    check_writable,
    positive,
    write_bytes,
    write_json,
)

FAILURES_SHOWN = 20  # the JSON has them all
QUICK_LIMIT = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name or .safetensors file")
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="folder with annotation_SPLIT.odgt and images"
    )
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="one that the model was not trained on"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"inversions on decoded images only, and {QUICK_LIMIT} images unless --limit says "
        "otherwise",
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
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads (default: all)")
    add_json_option(parser)
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write the report as one file; its pictures show faces of the data set",
    )


def run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from roi_codec_ros.codec.devices import torch_device
    from roi_codec_ros.codec.errors import UsageError
    from roi_codec_ros.codec.models import load_model
    from roi_codec_ros.commands.evaluate import choose
    from roi_codec_ros.evaluation.audit import audit, audit_report
    from roi_codec_ros.evaluation.audit_html import audit_html
    from roi_codec_ros.evaluation.leakage import HeadMeter
    from roi_codec_ros.evaluation.machine import describe_machine, usable_cores
    from roi_codec_ros.evaluation.methods import ModelMethod
    from roi_codec_ros.perception.annotations_any import read_annotations
    from roi_codec_ros.perception.faces import make_face_detector

    for path in (args.json, args.html):
        if path:
            check_writable(path)
    model = load_model(args.model)
    annotated = read_annotations(args.data, args.split)
    limit = args.limit or (QUICK_LIMIT if args.quick else None)
    chosen = choose(annotated, all_images=True, limit=limit)
    torch_device(args.device)
    names = args.detectors.split(",")
    detectors = [make_face_detector(name, device=args.device) for name in names]
    if len({detector.name for detector in detectors}) < len(detectors):
        raise UsageError(f"expected every detector once, found {args.detectors}")
    threads = args.threads or usable_cores()
    method = ModelMethod(model, device=args.device, threads=threads)
    meter = HeadMeter(model, device=args.device)
    with tqdm(total=len(chosen), unit="image", disable=None) as progress:
        result = audit(
            chosen,
            method,
            detectors,
            meter,
            quick=args.quick,
            on_image=lambda _: progress.update(),
        )
    report = audit_report(
        result,
        [detector.name for detector in detectors],
        model=model.name,
        model_id=model.id.hex(),
        preset=model.preset.name,
        dataset=Path(args.data).resolve().name,
        split=args.split,
        quick=args.quick,
        receptive_field_px=meter.receptive_field.width_px,
        machine=describe_machine(device=args.device, threads=threads),
    )
    print(_table(report))
    print(f"{result.images} of {len(annotated)} images audited")
    for failure in result.failures[:FAILURES_SHOWN]:
        print(f"left out: {failure}", file=sys.stderr)
    if args.json:
        write_json(args.json, report)
    if args.html:
        write_bytes(args.html, audit_html(report, result.scenes).encode())


def _table(report: dict[str, Any]) -> str:
    rows = {**report["detectors"], "union": report["union"]}
    columns = list(report["union"])
    names = list(rows)
    lines = [" " * 18 + "".join(f"{name:>12}" for name in names)]
    for column in columns:
        cells = "".join(f"{rows[name].get(column, '–'):>12}" for name in names)
        lines.append(f"{column:<18}{cells}")
    bits = report["bits_per_head"]
    if bits["heads"]:
        lines.append(f"bits per head: median {bits['median']:.0f}, p95 {bits['p95']:.0f}")
    return "\n".join(lines)
