# SPDX-License-Identifier: Apache-2.0
"""Time the codec on this machine, next to JPEG and AV1, on the same photographs in one run.

A preset without an installed model is timed with untrained weights; its bits mean nothing. The
int8 backends are calibrated on the photographs themselves.

--server starts decoder and detector as nodes, in one process and in two, feeds them payloads of
photographs with new stamps for a growing number of cameras, and says at how many cameras persons
arrive for less than 95 % of the frames. --json then gets {"machine", "server": its settings,
"rows": [{"processes", "cameras", "in_fps", "out_fps" (frames/s, all cameras together),
"latency_ms": {"p50", "p95", "p99"} (stamp to persons received), "dropped": {"total" (frames
without persons), "decoder", "detector" (by their own counters)}, "cpu_percent" (of one core),
"memory_mib" (resident, all processes of the server), "saturated"}], "saturates_at": {processes:
cameras or null}}.

example:
  roi-codec bench --images photographs/ --json bench.json --plot bench.png
  roi-codec bench --presets fast --sizes 512x512 --threads 1 --backends onnxruntime torch
  roi-codec bench --entropy --json entropy.json      our entropy coder beside compressai's
  roi-codec bench --server --cameras 1,2,4,8,16 --json server.json
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    image_size,
    outputs,
    positive,
)
from roi_codec_ros.lab.commands import bench_server

if TYPE_CHECKING:
    from roi_codec_ros.common.output_files import Output

DEFAULT_SIZES = ((512, 512), (1280, 720), (1920, 1080))
ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("--entropy", action="store_true", help="measure the entropy coder alone")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="photographs (default: scikit-image's)"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        default=3,
        metavar="N",
        help="maximum number of photographs (default: %(default)s)",
    )
    parser.add_argument(
        "--presets", nargs="+", metavar="PRESET", help="presets to time (default: all)"
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        metavar="BACKEND",
        help="runtimes (default: all installed ones, with onnxruntime-int8 and openvino-int8)",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=image_size,
        metavar="WIDTHxHEIGHT",
        help="frame sizes (default: 512x512 1280x720 1920x1080; --server: 640x360)",
    )
    parser.add_argument(
        "--threads",
        nargs="+",
        type=_threads,
        metavar="N",
        help="numbers of CPU threads (default: 1 all; --server: torch's choice)",
    )
    parser.add_argument(
        "--rounds", type=positive, default=7, help="measuring rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--decode-rounds",
        type=positive,
        default=2,
        help="rounds in which payloads are also decoded (default: %(default)s)",
    )
    parser.add_argument(
        "--persons-every",
        type=int,
        choices=range(1, 5),
        default=2,
        help="persons_every of the encoder, for a camera at 30 fps (default: %(default)s)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="bits against time, as a figure")
    add_json_option(parser)
    add_force_option(parser)
    bench_server.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    files = outputs(args, "json", "plot")
    if args.server:
        bench_server.run(args, files.get("json"))
    elif args.entropy:
        _run_entropy(files.get("json"))
    else:
        _run_encode(args, files)


def _run_encode(args: argparse.Namespace, files: dict[str, Output]) -> None:
    from tqdm import tqdm

    from roi_codec_ros.codec.presets import PRESETS
    from roi_codec_ros.common.machine import describe_machine, usable_cores
    from roi_codec_ros.lab.tools.bench_inputs import codec_backends, codec_photographs
    from roi_codec_ros.lab.tools.encode_bench import EncodeBench, encode_table

    cores = usable_cores()
    threads = tuple(dict.fromkeys(count or cores for count in args.threads or (1, None)))
    bench = EncodeBench(
        presets=tuple(args.presets or PRESETS),
        backends=codec_backends(args.backends),
        sizes=tuple(args.sizes or DEFAULT_SIZES),
        threads=threads,
        cores=cores,
        rounds=args.rounds,
        decode_rounds=args.decode_rounds,
        persons_every=args.persons_every,
    )
    photographs = codec_photographs(args.images, args.limit, partial(print, file=sys.stderr))
    with tqdm(total=bench.steps, desc="rounds", disable=None) as progress:
        rows = bench.run(photographs, progress.update)
    if args.json:
        files["json"].write_json({"machine": describe_machine(), "rows": rows})
    if args.plot:
        from roi_codec_ros.lab.tools.encode_bench import plot_rows

        plot_rows(rows, files["plot"])
    print(encode_table(rows))


def _threads(text: str) -> int | None:
    return None if text == ALL else positive(text)


_threads.__name__ = "number of threads"


def _run_entropy(report: Output | None) -> None:
    from roi_codec_ros.codec.kernels import available_implementations
    from roi_codec_ros.common.machine import describe_machine
    from roi_codec_ros.lab.tools.entropy_bench import entropy_table, measure

    measurements = measure()
    implementation = available_implementations()[0]
    print(f"our {implementation} coder and compressai's, one thread, median CPU time in ms")
    print(entropy_table(measurements))
    if report is not None:
        report.write_json(
            {
                "machine": describe_machine(threads=1),
                "implementation": implementation,
                "entropy": [asdict(row) for row in measurements],
            },
        )
