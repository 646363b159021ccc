# SPDX-License-Identifier: Apache-2.0
"""Compress an image with a model; the file holds what a camera would send.

example:
  roi-codec encode photo.jpg photo.roic --model fast
  roi-codec encode photo.jpg photo.roic --model paper-int8.onnx --backend onnxruntime
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from roi_codec_ros.codec.backends import AUTO, BACKENDS
from roi_codec_ros.codec.bitstream import DEFAULT_MAX_PIXELS
from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    outputs,
    positive,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="photograph to encode")
    parser.add_argument("out", type=Path, metavar="OUT.roic", help="file to write")
    parser.add_argument("--model", default="fast", help="name or file (default: %(default)s)")
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default=AUTO,
        help="runtime of the network on the camera: onnxruntime or openvino for the regions of a "
        "model that codes blocks; torch for the analysis of other models, or the former two for "
        "its exported graph (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="device to run on (default: %(default)s)")
    parser.add_argument(
        "--regions",
        default="regions",
        metavar="MODEL",
        help="regions model, which decides what is hidden (default: regions)",
    )
    parser.add_argument(
        "--quality",
        type=float,
        default=0.0,
        metavar="LEVELS",
        help="quality offset: finer above 0, coarser below; 4 levels halve the quantiser "
        "steps (default: 0)",
    )
    parser.add_argument(
        "--max-width", type=positive, metavar="PX", help="scale wider images down to this width"
    )
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.codec import load_encoder
    from roi_codec_ros.common.photographs import read_photograph

    files = outputs(args, "out", "json", inputs=[args.image, args.model])
    image = read_photograph(args.image)
    encoder = load_encoder(
        args.model,
        backend=args.backend,
        device=args.device,
        regions=args.regions,
        quality=args.quality,
    )
    model = encoder.model
    frame = encoder.encode(image, max_width=args.max_width)
    files["out"].write(frame.data)
    height, width = frame.coded_size
    files["out"].say(
        f"{args.out}: {len(frame.data)} bytes, {frame.bits_per_pixel:.4f} bits per pixel at "
        f"{width}×{height}, model {model.name} ({model.id.hex()})"
    )
    if width * height > DEFAULT_MAX_PIXELS:
        print(
            f"{width}×{height} is larger than what is decoded by default (3840×2160): "
            f"roi-codec decode takes it with --max-megapixels {math.ceil(width * height / 1e6)}, "
            f"decoder nodes with max_pixels:={width * height}; --max-width makes it smaller",
            file=sys.stderr,
        )
    if args.json:
        files["json"].write_json(
            {
                "model": model.name,
                "model_id": model.id.hex(),
                "backend": encoder.backend_name,
                "quality": encoder.quality,
                "hidden_share": frame.hidden_share,
                "bytes": len(frame.data),
                "bits_per_pixel": frame.bits_per_pixel,
                "original_size": frame.original_size,
                "coded_size": frame.coded_size,
                "timings_ms": frame.timings_ms,
            },
        )
