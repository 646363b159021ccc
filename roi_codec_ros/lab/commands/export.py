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
from functools import partial
from pathlib import Path

from roi_codec_ros.commands.arguments import (
    add_force_option,
    image_size,
    outputs,
    positive,
)
from roi_codec_ros.common.errors import UsageError

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
    from roi_codec_ros.lab.tools import export_graphs

    if args.int8 != (args.calibration is not None):
        raise UsageError("expected --int8 and --calibration together, or neither")
    if (args.decoder or args.detector) and args.size != ANY_SIZE:
        raise UsageError("expected no --size for a server's graph, which takes any")
    files = outputs(args, "onnx", inputs=[args.model, args.detector])
    model = load_model(args.model)
    photographs = None
    if args.int8:
        photographs = export_graphs.CalibrationPhotographs(
            args.calibration, args.calibration_images, partial(print, file=sys.stderr)
        )
    if args.detector:
        what = f"detector {args.detector.name} for pictures"
        graph = export_graphs.detector_graph(args.detector, model, photographs)
    elif args.decoder:
        what, graph = "decoder", export_graphs.decoder_graph(model, photographs)
    else:
        size = None if args.size == ANY_SIZE else args.size[::-1]
        what, graph = "encoder", export_graphs.encoder_graph(model, size, photographs)
    content = graph.SerializeToString()
    files["onnx"].write(content)
    kind = f"int8, calibrated on {photographs.read} photographs" if photographs else "float32"
    files["onnx"].say(
        f"{args.onnx}: {len(content) / 1e6:.2f} MB, {kind}, {what} of model {model.name} "
        f"({model.id.hex()})"
    )


def _graph_size(text: str) -> str | tuple[int, int]:
    return text if text == ANY_SIZE else image_size(text)


_graph_size.__name__ = "size"
