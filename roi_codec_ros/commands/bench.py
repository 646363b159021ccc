# SPDX-License-Identifier: Apache-2.0
"""Time the codec on this machine.

example:
  roi-codec bench --entropy --json entropy.json      our entropy coder beside compressai's
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from roi_codec_ros.codec.errors import UsageError
from roi_codec_ros.commands.common import add_json_option, write_json

if TYPE_CHECKING:
    from roi_codec_ros.evaluation.entropy_bench import EntropyMeasurement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--entropy", action="store_true", help="time and size of the entropy coder alone"
    )
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    if not args.entropy:
        raise UsageError("expected what to measure (--entropy), found nothing")
    from roi_codec_ros.codec.rans import available_implementations
    from roi_codec_ros.evaluation.entropy_bench import measure
    from roi_codec_ros.evaluation.machine import describe_machine

    measurements = measure()
    implementation = available_implementations()[0]
    print(f"our {implementation} coder and compressai's, one thread, median CPU time in ms")
    print(_line("symbols", "bit", "encode", "decode", "theirs", "theirs", "faster", "excess"))
    for row in measurements:
        print(_row(row))
    if args.json:
        write_json(
            args.json,
            {
                "machine": describe_machine(threads=1),
                "implementation": implementation,
                "entropy": [asdict(row) for row in measurements],
            },
        )


def _row(row: EntropyMeasurement) -> str:
    encode = row.compressai_encode_ms / row.ours_encode_ms
    decode = row.compressai_decode_ms / row.ours_decode_ms
    return _line(
        "x".join(map(str, row.shape)),
        f"{row.bits_per_symbol:g}",
        f"{row.ours_encode_ms:.2f}",
        f"{row.ours_decode_ms:.2f}",
        f"{row.compressai_encode_ms:.1f}",
        f"{row.compressai_decode_ms:.1f}",
        f"{encode:.0f}x, {decode:.0f}x",
        f"{100 * row.excess_over_shannon:.2f} %",
    )


def _line(*cells: str) -> str:
    widths = (10, 4, 7, 7, 7, 7, 10, 7)
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
