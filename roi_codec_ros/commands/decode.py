# SPDX-License-Identifier: Apache-2.0
"""Reconstruct the anonymized image of a .roic file.

The model is found among the installed ones by the identity in the file; --model names another.

example:
  roi-codec decode photo.roic photo_anonymized.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from roi_codec_ros.commands.common import add_json_option, read_bytes, write_image, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("roic", type=Path, metavar="IN.roic")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--model", help="name or file (default: any installed model that fits)")
    add_json_option(parser)


def run(args: argparse.Namespace) -> None:
    from roi_codec_ros.codec import Decoder, Payload, list_models, load_model

    data = read_bytes(args.roic)
    payload = Payload.from_bytes(data)
    if args.model:
        models = [load_model(args.model)]
    else:
        installed = [entry.model for entry in list_models() if entry.model is not None]
        # Only what fits is built; where nothing fits, the decoder's own error names what is there.
        models = [m for m in installed if m.id == payload.model_id] or installed
    frame = Decoder(models).decode(data)
    write_image(args.out, frame.image)
    height, width = frame.coded_size
    print(f"{args.out}: {width}×{height}, model {frame.model.name} ({frame.model.id.hex()})")
    if args.json:
        write_json(
            args.json,
            {
                "model": frame.model.name,
                "model_id": frame.model.id.hex(),
                "original_size": frame.original_size,
                "coded_size": frame.coded_size,
                "timings_ms": frame.timings_ms,
            },
        )
