# SPDX-License-Identifier: Apache-2.0
"""List the installed models, with their sizes and measured figures.

example:
  roi-codec models
  roi-codec models fast                                   the whole model card
  roi-codec models fast --curve learning.png              how its training went
  roi-codec models fast --measured evaluation.json        write measured figures into the card
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roi_codec_ros.commands.arguments import add_force_option, add_json_option, outputs
from roi_codec_ros.common.files import read_json

if TYPE_CHECKING:
    from roi_codec_ros.codec import Model
    from roi_codec_ros.common.output_files import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("model", nargs="?", help="print the full card of this model")
    parser.add_argument(
        "--measured",
        type=Path,
        metavar="REPORT",
        help="write the figures that `roi-codec evaluate --json REPORT` measured into "
        "the card of this model",
    )
    parser.add_argument(
        "--curve", type=Path, metavar="FILE", help="draw the learning curve from this model's card"
    )
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.codec import UsageError, find_model, list_models
    from roi_codec_ros.codec.card import with_figures
    from roi_codec_ros.codec.model_file import read_model
    from roi_codec_ros.common.output_files import Output

    if args.measured and not args.model:
        raise UsageError("expected the model that --measured belongs to, found none")
    if args.curve and not args.model:
        raise UsageError("expected the model that --curve belongs to, found none")
    path = find_model(args.model) if args.model else None
    files = outputs(args, "curve", "json", inputs=[path, args.measured])
    if path is not None:
        model = read_model(path)
        if args.measured:
            card_of = Output(path, inputs=[args.measured])
            model = with_figures(model, read_json(args.measured))
            card_of.write(model.content)
        if args.curve:
            _draw_curve(model, files["curve"])
        print(json.dumps(model.header, indent=2))
        if args.json:
            files["json"].write_json(dict(model.header))
        return
    rows = []
    for entry in list_models():
        row: dict[str, Any] = {"name": entry.path.stem, "path": str(entry.path)}
        if entry.model is None:
            row["error"] = entry.error
        else:
            row.update(
                model_id=entry.model.id.hex(),
                preset=entry.model.preset.name,
                bytes=len(entry.model.content),
                figures=dict(entry.model.figures),
            )
        rows.append(row)
        print(_line(row))
    if not rows:
        print(
            "no models found; train one with: roi-codec train --preset fast --data DIR --out DIR"
        )
    if args.json:
        files["json"].write_json({"models": rows})


def _draw_curve(model: Model, output: Output) -> None:
    from roi_codec_ros.codec import RoiCodecError
    from roi_codec_ros.common.plotting import plot_curve

    curve = model.header.get("training", {}).get("curve")
    if not curve:
        raise RoiCodecError(f"expected a learning curve in the card of {model.name}, found none")
    plot_curve(curve, f"{model.name} ({model.id.hex()})", output)


def _line(row: Mapping[str, Any]) -> str:
    if "error" in row:
        return f"{row['name']:<16} unreadable: {row['error']}"
    size = f"{row['bytes'] / 1e6:.1f} MB"
    line = f"{row['name']:<16} {row['model_id']}  {row['preset']:<12} {size:>8}"
    figures = row["figures"]
    if figures:
        line += (
            f"  {figures['bpp']:.3f} bpp, person AP50 {figures['person_ap50']:.3f} "
            f"of {figures['original_person_ap50']:.3f}, "
            f"MTCNN faces {figures['faces']} of {figures['original_faces']}"
        )
    return line
