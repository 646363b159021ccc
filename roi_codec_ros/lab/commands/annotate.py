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
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import add_force_option

if TYPE_CHECKING:
    from roi_codec_ros.common.output_files import RunFolder
    from roi_codec_ros.lab.datasets.annotations import Annotation, AnnotationSet

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

    from roi_codec_ros.common.errors import RoiCodecError, UsageError
    from roi_codec_ros.common.files import write
    from roi_codec_ros.common.output_files import RunFolder
    from roi_codec_ros.lab.datasets.annotate import annotate
    from roi_codec_ros.lab.datasets.annotated_images import read_annotated
    from roi_codec_ros.lab.datasets.annotations_any import shortfall
    from roi_codec_ros.lab.datasets.annotations_write import (
        check_links,
        link_photograph,
        odgt_text,
    )
    from roi_codec_ros.lab.evaluation.measurement import failure_reason
    from roi_codec_ros.perception.face_detectors import make_face_detector
    from roi_codec_ros.perception.person_detector import PersonDetector, find_weights

    if args.out.resolve() == args.data.resolve():
        raise UsageError(f"expected --out to be another folder than {args.data}")
    folder = RunFolder(args.out, "annotate", (), force=args.force)
    file = _annotation_file(args, folder)
    photographs = _photographs(args.data, args.split, args.out)
    links = args.out / "images" / args.split
    check_links(photographs, links, replace_links=args.force or folder.marked)
    faces = [make_face_detector(name, device=args.device) for name in args.faces.split(",")]
    persons = None
    if args.detector or all(item.person_boxes == "none" for item in photographs):
        persons = PersonDetector(find_weights(args.detector or ""), device=args.device)
    done: list[Annotation] = []
    failures: list[str] = []
    with folder:
        for item in tqdm(photographs, unit="image", disable=None):
            try:
                found = annotate(item, read_annotated(item), faces, persons)
            except Exception as error:  # noqa: BLE001  # one broken image does not end the work
                failures.append(f"{item.image_id}: {failure_reason(error)}")
                continue
            link_photograph(item, links)
            done.append(found)
        if not done:
            raise RoiCodecError(
                f"expected photographs in {args.data}, found {len(failures)} that failed; the "
                f"first: {failures[0]}"
            )
        content = odgt_text(done).encode()
        write(file, content, durable=True)
        folder.remember(file.name, hashlib.sha256(content).hexdigest())
    before = sum(len(item.heads) for item in photographs)
    print(
        f"{len(done)} of {len(photographs)} photographs: "
        f"{sum(len(item.persons) for item in done)} persons, "
        f"{sum(len(item.heads) for item in done)} heads ({before} before)\nwrote {file}"
    )
    for sentence in shortfall(photographs):
        print(sentence, file=sys.stderr)
    for failure in failures[:FAILURES_SHOWN]:
        print(f"left out: {failure}", file=sys.stderr)


def _annotation_file(args: argparse.Namespace, folder: RunFolder) -> Path:
    """The output file. Raises RoiCodecError if that would overwrite manual work."""
    from roi_codec_ros.common.errors import RoiCodecError, UsageError
    from roi_codec_ros.common.files import same_file
    from roi_codec_ros.common.output_files import Output
    from roi_codec_ros.lab.evaluation.cache import file_digest

    file: Path = args.out / f"annotation_{args.split}.odgt"
    read = args.data / file.name
    if read.exists() and same_file(read, file):
        raise UsageError(f"cannot write over the input {read}")
    there = file.is_file() and file.stat().st_size > 0
    if there and not args.force and folder.remembered(file.name) != file_digest(file):
        raise RoiCodecError(
            f"expected no {file.name} in {args.out}, found one that was not written by annotate, "
            "or was changed since; --force replaces it"
        )
    Output(file, force=True)
    return file


def _photographs(data: Path, split: str, out: Path) -> AnnotationSet:
    """The annotated split, or the photographs in ``data`` without annotations.

    Results of earlier runs in ``out``, which may be inside ``data``, are excluded.
    """
    from roi_codec_ros.common.errors import RoiCodecError
    from roi_codec_ros.common.photographs import photographs_in
    from roi_codec_ros.lab.datasets.annotations_any import (
        has_split,
        is_annotated,
        read_annotations,
        read_unannotated,
    )

    lying_there = photographs_in(data)
    if lying_there and has_split(data, split):
        raise RoiCodecError(
            f"expected photographs or an annotated data set in {data}, found both: "
            f"{lying_there[0].name}, and annotations of {split}"
        )
    if lying_there or not is_annotated(data):
        return read_unannotated(data, without=out)
    return read_annotations(data, split)
