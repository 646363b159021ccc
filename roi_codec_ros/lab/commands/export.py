# SPDX-License-Identifier: Apache-2.0
"""Turn a model's encoder into an ONNX graph, for cameras without torch.

The file holds all that a camera needs: pixels to symbols, entropy tables, and the identity of the
model whose decoder reads what it sends.

example:
  roi-codec export paper-128-2 --onnx paper.onnx
  roi-codec export paper-128-2 --onnx paper-int8.onnx --int8 --calibration photographs/
  roi-codec encode photo.jpg photo.roic --model paper-int8.onnx --backend onnxruntime

With --int8 it computes in 8-bit integers, several times as fast where the processor has
instructions for them (VNNI, ARM's dot products), and some symbols come out differently.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.common import (
    add_force_option,
    image_size,
    outputs,
    positive,
)
from roi_codec_ros.common.errors import RoiCodecError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from roi_codec_ros.common.photographs import PhotographError

ANY_SIZE = "dynamic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("model", metavar="MODEL", help="name or file of a model")
    parser.add_argument("--onnx", required=True, type=Path, metavar="FILE", help="to write")
    parser.add_argument(
        "--size",
        type=_graph_size,
        default=ANY_SIZE,
        metavar=f"WIDTHxHEIGHT|{ANY_SIZE}",
        help="take frames of this coded size only, which some runtimes want; default: any size, "
        "but for presets that have one of their own",
    )
    parser.add_argument("--int8", action="store_true", help="in 8-bit integers, calibrated")
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="photographs to calibrate on, for --int8"
    )
    parser.add_argument(
        "--calibration-images",
        type=positive,
        default=32,
        metavar="N",
        help="take so many of them, evenly spread (default: %(default)s)",
    )
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.codec import load_model
    from roi_codec_ros.codec.onnx_graph import build_graph

    if args.int8 != (args.calibration is not None):
        raise UsageError("expected --int8 and --calibration together, or neither")
    files = outputs(args, "onnx", inputs=[args.model])
    model = load_model(args.model)
    size = None if args.size == ANY_SIZE else (args.size[1], args.size[0])
    graph = build_graph(model, size)
    if args.int8:
        from roi_codec_ros.common.onnx_int8 import quantise
        from roi_codec_ros.common.photographs import left_out, readable

        photographs = _spread(_photographs(args.calibration), args.calibration_images)
        broken: list[PhotographError] = []
        images = _resized(readable(photographs, broken), model.preset.coded_size or size)
        graph = quantise(graph, images)
        for sentence in left_out(broken, len(photographs)):
            print(sentence, file=sys.stderr)
    content = graph.SerializeToString()
    files["onnx"].write(content)
    kind = (
        f"int8, calibrated on {len(photographs) - len(broken)} photographs"
        if args.int8
        else "float32"
    )
    files["onnx"].say(
        f"{args.onnx}: {len(content) / 1e6:.2f} MB, {kind}, encoder of model {model.name} "
        f"({model.id.hex()})"
    )


def _graph_size(text: str) -> str | tuple[int, int]:
    return text if text == ANY_SIZE else image_size(text)


_graph_size.__name__ = "size"


def _photographs(folder: Path) -> list[Path]:
    from roi_codec_ros.common.photographs import photographs_in

    found = photographs_in(folder, recursive=True)
    if not found:
        raise RoiCodecError(f"expected photographs in {folder}, found none")
    return found


def _spread(paths: list[Path], count: int) -> list[Path]:
    return paths if len(paths) <= count else [paths[i * len(paths) // count] for i in range(count)]


def _resized(images: Iterator[np.ndarray], size: tuple[int, int] | None) -> Iterator[np.ndarray]:
    import cv2

    for image in images:
        yield (
            image if size is None else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        )
