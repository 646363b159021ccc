# SPDX-License-Identifier: Apache-2.0
"""Run the whole graph on one machine and show what it does: frames, bits, latency, persons.

Starts an encoder per camera, decoder, detector and tracker as processes of their own that talk
over DDS, watches them, and leaves a side-by-side video, a contact sheet and report.json behind.
Without --source one camera films bundled photographs: no camera and no download are needed.
Several cameras film people cut out of a photograph, who walk through a simulated hall: their
positions are known, so the report says how well they were tracked.

example:
  roi-codec demo
  roi-codec demo --cameras 3
  roi-codec demo --source street.mp4 --seconds 60 --out street
  roi-codec demo --source /dev/video0 --seconds 0         until Ctrl-C
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    not_negative_real,
    outputs,
    positive,
)
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.files import json_bytes, same_file, write
from roi_codec_ros.common.output_files import Output, RunFolder
from roi_codec_ros.lab.commands import demo_twin
from roi_codec_ros.lab.demo.running import RATE_HZ, Stop, camera_names, check_ros

if TYPE_CHECKING:
    from roi_codec_ros.lab.demo.demo_run import Plan
    from roi_codec_ros.lab.demo.outputs import Run

RESULTS = ("report.json", "contact_sheet.png", "side_by_side.mp4")  # in --out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument(
        "--source",
        metavar="SOURCE",
        help="video or picture file, folder of pictures, /dev/videoN or stream address that every "
        "camera shows (default: installed photographs behind a virtual camera, or a hall)",
    )
    parser.add_argument(
        "--detector",
        default="",
        metavar="WEIGHTS",
        help="YOLO weights with a class named person (default: models/person-*.pt, else what "
        "ultralytics fetches)",
    )
    parser.add_argument(
        "--cameras", type=positive, default=1, metavar="N", help="number of cameras (default: 1)"
    )
    parser.add_argument(
        "--seconds",
        type=not_negative_real,
        default=20.0,
        metavar="S",
        help="how long to run, counted from the first frame that comes through (default: "
        "20; 0: until Ctrl-C)",
    )
    parser.add_argument(
        "--model", default="fast", metavar="NAME", help="model name or file (default: fast)"
    )
    parser.add_argument(
        "--rate",
        type=not_negative_real,
        default=RATE_HZ,
        metavar="HZ",
        help=f"maximum frames per second of each camera (default: {RATE_HZ:g}; 0: no limit)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo_out"),
        metavar="DIR",
        help="folder for the results (default: demo_out)",
    )
    demo_twin.add_arguments(parser)
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the demo to its end.

    Raises RoiCodecError for what can't be run, and KeyboardInterrupt if stopped before the first
    frame has arrived; later a stop is the regular end.
    """
    from roi_codec_ros.lab.demo.demo_run import DemoOptions, run_graph

    check_ros()
    source = Path(args.source) if args.source and Path(args.source).is_file() else None
    files = outputs(args, "json", inputs=[source, args.model])
    if source is not None and any(same_file(source, args.out / name) for name in RESULTS):
        raise UsageError(f"expected --source and --out apart, found {source} among the results")
    with RunFolder(args.out, "demo", (*RESULTS, "log", ".source"), force=args.force):
        plan = _plan(args)
        if not plan.trained:
            _say("note: the model is untrained; what it codes is not anonymized")
        with Stop() as stop:
            finished = run_graph(plan, DemoOptions(args.out, args.seconds, args.rate), stop, _say)
        _write_results(finished, plan, args.out, files.get("json"))


def _plan(args: argparse.Namespace) -> Plan:
    from roi_codec_ros.codec.model_file import read_model
    from roi_codec_ros.codec.models import find_model, model_directories
    from roi_codec_ros.lab.demo.demo_run import Plan
    from roi_codec_ros.lab.demo.demo_sources import photograph_sources, shared_source
    from roi_codec_ros.perception.person_detector import find_weights

    simulated = demo_twin.simulates(args)
    model = find_model(args.model)
    # Read here, so that a damaged file is refused before anything is started.
    trained = read_model(model).header.get("trained") is not False
    weights = find_weights(args.detector, model_directories())
    names, folder = camera_names(args.cameras), args.out / ".source"
    if simulated:
        sources = dict.fromkeys(names, "topic")
    elif args.source is None:
        sources = photograph_sources(names, folder, _say)
    else:
        sources = shared_source(args.source, names, pace=args.pace, folder=folder, say=_say)
    twin = demo_twin.plan_twin(args, names)
    return Plan(sources, model.resolve(), weights.resolve(), twin, trained)


def _say(text: str) -> None:
    print(text, flush=True)


def _write_results(finished: Run, plan: Plan, out: Path, json_file: Output | None) -> None:
    from roi_codec_ros.lab.demo.outputs import write_contact_sheet, write_side_by_side
    from roi_codec_ros.lab.demo.report import report, table_lines
    from roi_codec_ros.lab.demo.truth import truth_lines, with_truth

    content = report(finished.model, finished.seconds, finished.summaries)
    finished, compared = with_truth(finished, plan.twin)
    content.update(compared)
    report_file, sheet, video = RESULTS
    write(out / report_file, json_bytes(content))
    if json_file is not None:
        json_file.write_json(content)
    _say(f"\nover {finished.seconds:.1f} s (latencies: medians in ms; rates in kbit/s):")
    for line in [*table_lines(finished.summaries), *truth_lines(content)]:
        _say(line)
    written = [report_file]
    if finished.cameras:
        _say("\nmaking the pictures")
        write_contact_sheet(finished, out / sheet)
        write_side_by_side(finished, out / video)
        written += [sheet, video]
    _say(f"{out}: {', '.join(written)} (logs in {out / 'log'})")
