# SPDX-License-Identifier: Apache-2.0
"""Turn a model's encoder, its decoder or a person detector into an ONNX graph.

The encoder's file holds all that a camera needs: pixels to symbols, entropy tables, and the
identity of the model whose decoder reads what it sends.

example:
  roi-codec export paper-128-2 --onnx paper.onnx
  roi-codec export paper-128-2 --onnx paper-int8.onnx --int8 --calibration photographs/
  roi-codec encode photo.jpg photo.roic --model paper-int8.onnx --backend onnxruntime

  roi-codec export fast --decoder --onnx models/fast-decoder-int8.onnx --int8 \\
      --calibration photographs/
  roi-codec export fast --detector models/person-yolov8n-fast.pt \\
      --onnx models/person-yolov8n-fast-int8.onnx --int8 --calibration photographs/

A server exports the float32 graphs of its decoder and its detector itself; int8 graphs are used if
they lie beside the model and the weights under these names. They are calibrated on what MODEL
makes of the photographs.

With --int8 a graph computes in 8-bit integers, several times as fast where the processor has
instructions for them (VNNI, ARM's dot products), and some symbols come out differently.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import (
    add_force_option,
    image_size,
    outputs,
    positive,
)
from roi_codec_ros.common.errors import RoiCodecError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from roi_codec_ros.codec import Model
    from roi_codec_ros.common.photographs import PhotographError

ANY_SIZE = "dynamic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("model", metavar="MODEL", help="name or file of a model")
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--decoder", action="store_true", help="export the decoder of a model that codes blocks"
    )
    part.add_argument(
        "--detector",
        type=Path,
        metavar="WEIGHTS",
        help="export these YOLOv8 weights, calibrated on what MODEL decodes",
    )
    parser.add_argument(
        "--onnx", required=True, type=Path, metavar="FILE", help="ONNX file to write"
    )
    parser.add_argument(
        "--size",
        type=_graph_size,
        default=ANY_SIZE,
        metavar=f"WIDTHxHEIGHT|{ANY_SIZE}",
        help="accept frames of this coded size only, as some runtimes need (default: any size, "
        "except for presets with a fixed one)",
    )
    parser.add_argument(
        "--int8", action="store_true", help="compute in 8-bit integers, after calibration"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="photographs to calibrate --int8 on"
    )
    parser.add_argument(
        "--calibration-images",
        type=positive,
        default=32,
        metavar="N",
        help="number of these photographs to use, evenly spread (default: %(default)s)",
    )
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.codec import load_model

    if args.int8 != (args.calibration is not None):
        raise UsageError("expected --int8 and --calibration together, or neither")
    server = args.decoder or args.detector
    if server and args.size != ANY_SIZE:
        raise UsageError("expected no --size for a server's graph, which takes any")
    files = outputs(args, "onnx", inputs=[args.model, args.detector])
    model = load_model(args.model)
    photographs = _Photographs(args) if args.int8 else None
    make = _server_graph if server else _encoder
    graph = make(args, model, photographs)
    content = graph.SerializeToString()
    files["onnx"].write(content)
    kind = f"int8, calibrated on {photographs.read} photographs" if photographs else "float32"
    if args.detector:
        what = f"detector {args.detector.name} for pictures"
    else:
        what = "decoder" if args.decoder else "encoder"
    files["onnx"].say(
        f"{args.onnx}: {len(content) / 1e6:.2f} MB, {kind}, {what} of model {model.name} "
        f"({model.id.hex()})"
    )


def _encoder(
    args: argparse.Namespace, model: Model, photographs: _Photographs | None
) -> onnx.ModelProto:
    from roi_codec_ros.codec.onnx_graph import build_graph
    from roi_codec_ros.common.onnx_int8 import quantise

    size = None if args.size == ANY_SIZE else (args.size[1], args.size[0])
    graph = build_graph(model, size)
    if photographs is None:
        return graph
    return quantise(graph, _resized(iter(photographs), model.preset.coded_size or size))


def _server_graph(
    args: argparse.Namespace, model: Model, photographs: _Photographs | None
) -> onnx.ModelProto:
    from roi_codec_ros.codec.synthesis_graph import build_synthesis_graph
    from roi_codec_ros.lab.tools.server_graphs import decoder_int8, detector_int8
    from roi_codec_ros.perception.graph_detector import make_detector_graph

    if args.detector:
        if photographs is None:
            return make_detector_graph(args.detector)
        return detector_int8(args.detector, model, photographs)
    return (
        build_synthesis_graph(model) if photographs is None else decoder_int8(model, photographs)
    )


class _Photographs:
    """Those to calibrate on, once through; what can't be read is said at the end."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._paths = _spread(_photographs(args.calibration), args.calibration_images)
        self.read = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        from roi_codec_ros.common.photographs import left_out, readable

        broken: list[PhotographError] = []
        for photograph in readable(self._paths, broken):
            self.read += 1
            yield photograph
        for sentence in left_out(broken, len(self._paths)):
            print(sentence, file=sys.stderr)


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
