# SPDX-License-Identifier: Apache-2.0
"""How many cameras a server serves: real node processes over DDS, fed with replayed payloads.

Used by `roi-codec bench --server`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from roi_codec_ros.commands.arguments import not_negative, positive, positive_real
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.common.graph_choice import AUTO, SERVER_BACKENDS
from roi_codec_ros.common.output_files import Output

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
    from roi_codec_ros.lab.demo.running import check_ros
    from roi_codec_ros.lab.tools.bench_inputs import server_photographs
    from roi_codec_ros.lab.tools.server_bench import server_table
    from roi_codec_ros.lab.tools.server_trial import ServerBench
    from roi_codec_ros.perception.person_detector import find_weights

    check_ros()
    bench = ServerBench(
        model=find_model(args.model),
        weights=find_weights(args.weights, model_directories()),
        size=_only(args.sizes, DEFAULT_SIZE, "--sizes"),
        rate_hz=args.rate,
        seconds=args.seconds,
        processes=args.processes,
        cameras=args.cameras,
        backend=args.server_backend,
        device=args.device,
        max_batch=args.max_batch,
        threads=_only(args.threads, 0, "--threads") or 0,
    )
    photographs = server_photographs(args.images, args.limit, partial(print, file=sys.stderr))
    with tqdm(total=bench.steps, unit="s", disable=None) as progress:
        result = bench.run(photographs, progress)
    print(server_table(result["rows"], result["saturates_at"], args.rate))
    if report is not None:
        report.write_json(result)


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
