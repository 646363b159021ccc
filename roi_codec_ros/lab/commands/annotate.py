# SPDX-License-Identifier: Apache-2.0
"""Annotate photographs for training: persons and heads by detectors, or heads made to cover faces.

example:
  roi-codec annotate ../data --split train --faces mtcnn,yunet=yunet.onnx --out data_covered
  roi-codec annotate site_photographs --detector yolov8n.pt --faces mtcnn --out data_site

DIR is an annotated data set, whose persons stay as they are and whose head boxes are stretched
over (or joined by) every face that a detector finds; or a folder of photographs, whose persons
--detector finds. --out becomes a data set: annotation_SPLIT.odgt, and links to the photographs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from roi_codec_ros.commands.arguments import add_force_option

FAILURES_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "data", type=Path, metavar="DIR", help="data set, or folder of photographs"
    )
    parser.add_argument("--split", default="train", help="split to annotate (default: train)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="data set to write")
    parser.add_argument(
        "--faces",
        default="mtcnn",
        metavar="LIST",
        help="of mtcnn, blazeface, haar and yunet=PATH (default: %(default)s)",
    )
    parser.add_argument(
        "--detector", metavar="WEIGHTS", help="YOLO weights, for photographs without person boxes"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from tqdm import tqdm

    from roi_codec_ros.lab.datasets.annotate_folder import FolderToAnnotate
    from roi_codec_ros.lab.datasets.annotations_any import shortfall
    from roi_codec_ros.perception.face_detectors import make_face_detector
    from roi_codec_ros.perception.person_detector import PersonDetector, find_weights

    folder = FolderToAnnotate(args.data, args.split, args.out, force=args.force)
    photographs = folder.photographs
    faces = [make_face_detector(name, device=args.device) for name in args.faces.split(",")]
    persons = None
    if args.detector or folder.needs_persons:
        persons = PersonDetector(find_weights(args.detector or ""), device=args.device)
    with tqdm(total=len(photographs), unit="image", disable=None) as bar:
        written = folder.write(faces, persons, bar.update)
    before = sum(len(item.heads) for item in photographs)
    print(
        f"{len(written.done)} of {len(photographs)} photographs: "
        f"{sum(len(item.persons) for item in written.done)} persons, "
        f"{sum(len(item.heads) for item in written.done)} heads ({before} before)\n"
        f"wrote {written.file}"
    )
    for sentence in shortfall(photographs):
        print(sentence, file=sys.stderr)
    for failure in written.failures[:FAILURES_SHOWN]:
        print(f"left out: {failure}", file=sys.stderr)
