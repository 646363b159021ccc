# SPDX-License-Identifier: Apache-2.0
"""How many cameras a server serves: real node processes over DDS, fed with replayed payloads.

Used by `roi-codec bench --server`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from roi_codec_ros.commands.arguments import not_negative, positive, positive_real
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.graph_choice import AUTO, SERVER_BACKENDS
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.common.photographs import PhotographError, left_out, photographs_in, readable

DEFAULT_SIZE = (640, 360)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a server's bench."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server", action="store_true", help="measure decoder and detector as running nodes"
    )
    group.add_argument(
        "--cameras",
        type=_counts,
        default=(1, 2, 4, 8, 16),
        metavar="N,N,…",
        help="numbers of cameras to try (default: 1,2,4,8,16)",
    )
    group.add_argument(
        "--rate",
        type=positive_real,
        default=10.0,
        metavar="HZ",
        help="frames per second of each camera (default: 10)",
    )
    group.add_argument(
        "--seconds",
        type=positive_real,
        default=10.0,
        metavar="S",
        help="measuring time in seconds, from when persons of every camera arrive (default: 10)",
    )
    group.add_argument("--model", default="fast", metavar="NAME", help="default: fast")
    group.add_argument(
        "--weights", default="", metavar="FILE", help="person detector weights (default: search)"
    )
    group.add_argument("--device", default="cpu", metavar="DEVICE", help="default: cpu")
    group.add_argument(
        "--server-backend",
        default=AUTO,
        choices=SERVER_BACKENDS,
        help="runtime of decoder and detector (default: %(default)s)",
    )
    group.add_argument(
        "--max-batch",
        type=not_negative,
        default=0,
        metavar="N",
        help="max_batch of the nodes (default: 0)",
    )
    group.add_argument(
        "--processes",
        nargs="+",
        type=int,
        choices=(1, 2),
        default=(1, 2),
        help="decoder and detector in one process, in two (default: both)",
    )


def run(args: argparse.Namespace, report: Output | None = None) -> None:
    """Measure, and write ``report``. Raises RoiCodecError for what can't be run."""
    from tqdm import tqdm

    from roi_codec_ros.codec.models import find_model, model_directories
    from roi_codec_ros.common.machine import describe_machine
    from roi_codec_ros.lab.demo.running import check_ros, private_ros_environment
    from roi_codec_ros.lab.tools.server_bench import arrangement, saturates_at, server_table
    from roi_codec_ros.lab.tools.server_trial import ServerTrial, write_payloads
    from roi_codec_ros.perception.person_detector import find_weights

    check_ros()
    size, threads = _only(args.sizes, DEFAULT_SIZE, "--sizes"), _only(args.threads, 0, "--threads")
    model, weights = find_model(args.model), find_weights(args.weights, model_directories())
    rows = []
    with tempfile.TemporaryDirectory(prefix="roi-codec-bench-") as name:
        folder = Path(name)
        os.environ.update(private_ros_environment(os.environ, folder / "log"))
        bits_per_pixel = write_payloads(folder, model, size, _photographs(args))
        rounds = [(count, cameras) for count in args.processes for cameras in args.cameras]
        with tqdm(total=round(len(rounds) * args.seconds), unit="s", disable=None) as progress:
            for processes, cameras in rounds:
                progress.set_description(f"{cameras} cameras, {arrangement(processes)}")
                parameters = {
                    "models": [str(model.resolve())],
                    "detector": str(weights.resolve()),
                    "backend": args.server_backend,
                    "device": args.device,
                    "max_batch": args.max_batch,
                    "threads": threads or 0,
                }
                trial = ServerTrial(
                    folder, processes, cameras, args.rate, args.seconds, parameters
                )
                rows.append({"processes": processes, **trial.run(progress.update)})
    saturation = {
        str(count): saturates_at([row for row in rows if row["processes"] == count])
        for count in args.processes
    }
    print(server_table(rows, saturation, args.rate))
    if report is not None:
        settings = {
            "rate_hz": args.rate,
            "seconds": args.seconds,
            "size": "{}x{}".format(*size),
            "model": model.name,
            "weights": weights.name,
            "bits_per_pixel": bits_per_pixel,
            "backend": args.server_backend,
            "max_batch": args.max_batch,
            "threads": threads or 0,
        }
        report.write_json(
            {
                "machine": describe_machine(device=args.device, threads=threads or None),
                "server": settings,
                "rows": rows,
                "saturates_at": saturation,
            },
        )


def _photographs(args: argparse.Namespace) -> list[ImageArray]:
    """Those of --images, else the bundled ones, --limit of them; what is left out is said."""
    from roi_codec_ros.lab.simulation.photograph_cameras import installed_shots

    if args.images is not None:
        paths = photographs_in(args.images)
    else:
        paths = list(dict.fromkeys(shot.photograph for shot in installed_shots()))
    broken: list[PhotographError] = []
    photographs = list(islice(readable(paths, broken), args.limit))
    for sentence in left_out(broken, len(paths)):
        print(sentence, file=sys.stderr)
    if not photographs:
        raise RoiCodecError(f"expected photographs in {args.images}, found none that can be read")
    return photographs


def _only(values: Sequence[Any] | None, default: Any, option: str) -> Any:
    """The one value of an option that elsewhere takes several."""
    if values is None:
        return default
    if len(values) != 1:
        raise UsageError(f"expected one value for {option} with --server, found {len(values)}")
    return values[0]


def _counts(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


_counts.__name__ = "list of numbers of cameras"
