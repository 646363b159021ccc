# SPDX-License-Identifier: Apache-2.0
"""Audit a model's privacy on held-out photographs: detectors, attackers, recognition, bits.

Reports what face detectors still find in decoded images and in cheap inversions of them, next to
the originals and JPEG at the same rate (the ceilings) and originals with erased heads (the floor);
the bits that can depend on a head, with the resulting bound for any attacker; and, for models that
hide heads, which heads the regions miss. Without --quick it also trains two attackers, and checks
whether a face recogniser still identifies faces that were pasted into scenes. A regions model
(.onnx) is audited by itself, without coding anything.

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
from pathlib import Path

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    outputs,
    positive,
    positive_real,
)

FAILURES_SHOWN = 20  # the JSON has them all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "model", metavar="MODEL", help="name or .safetensors file, or a regions model"
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="data set of photographs with person and head boxes",
    )
    parser.add_argument(
        "--split", required=True, metavar="NAME", help="a split that the model was not trained on"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="no attackers, no recognition, inversions of decoded images only, and 32 images "
        "unless --limit is given",
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="use only N images, spread evenly over the split",
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
        help="regions model that hides the heads: name or .onnx file (default: %(default)s)",
    )
    parser.add_argument(
        "--inversions",
        metavar="LIST",
        help="try only these inversions of decoded images; negated is always among them "
        "(default: all)",
    )
    parser.add_argument(
        "--attack-minutes",
        type=positive_real,
        default=10.0,
        metavar="M",
        help="minutes to train each of the two attackers (default: %(default)g)",
    )
    parser.add_argument(
        "--attack-steps",
        type=positive,
        metavar="N",
        help="train for N steps instead, which is reproducible on the same machine",
    )
    parser.add_argument(
        "--attack-split",
        default="train",
        metavar="NAME",
        help="split to train the attackers on, other than the audited one (default: %(default)s)",
    )
    parser.add_argument("--no-attack", action="store_true", help="skip the attackers")
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
        help="maximum number of faces to tell apart (default: %(default)s)",
    )
    parser.add_argument(
        "--placements",
        type=positive,
        default=5,
        metavar="N",
        help="how often each of them is pasted, at each size (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: all)")
    add_json_option(parser)
    add_force_option(parser)
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write the report as one HTML file; its pictures show faces from the data set",
    )


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from dataclasses import fields

    from roi_codec_ros.common.errors import UsageError
    from roi_codec_ros.lab.privacy.audit_page import audit_page
    from roi_codec_ros.lab.privacy.audit_report import summary_text
    from roi_codec_ros.lab.privacy.model_audit import (
        AuditOptions,
        audit_model,
        audit_regions,
        is_regions_model,
    )
    from roi_codec_ros.lab.privacy.region_recall import recall_text

    options = AuditOptions(
        **{field.name: getattr(args, field.name) for field in fields(AuditOptions)}
    )
    regions_alone = is_regions_model(args.model)
    if regions_alone and args.html:
        raise UsageError("expected no --html for regions alone, whose report is a table; found it")
    files = outputs(args, "json", "html", inputs=[args.model])
    done = audit_regions(options) if regions_alone else audit_model(options)
    if args.json:
        files["json"].write_json(done.report)
    if args.html and done.audit is not None:
        probes = done.reid.shown if done.reid else []
        page = audit_page(done.report, done.audit.scenes, done.audit.shown_heads, probes)
        files["html"].write(page.encode())
    print(recall_text(done.report["regions"]) if regions_alone else summary_text(done.report))
    print(f"{done.images} of {len(done.annotations)} images audited")
    notes = [*done.notes, *(f"left out: {failure}" for failure in done.failures[:FAILURES_SHOWN])]
    if not args.quick:  # which implies that sections are missing
        notes += [f"left out: {section}: {reason}" for section, reason in done.left_out.items()]
    for note in notes:
        print(note, file=sys.stderr)
