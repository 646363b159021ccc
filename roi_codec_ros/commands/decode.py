# SPDX-License-Identifier: Apache-2.0
"""Reconstruct the anonymized images of a .roic file, a folder of them, or the latents in a bag.

The model is found among the installed ones by the identity in the file; --model names another. The
files of a folder are frames of one camera, in the order of their names: blocks that a static
camera did not send again are taken from earlier frames, and are grey where those are missing.

example:
  roi-codec decode photo.roic photo_anonymized.png
  roi-codec decode bag/ pictures.mcap --as video
  roi-codec decode bag/ front.mp4 --topic /front/latent
  roi-codec decode frames/ pictures/
"""

from __future__ import annotations

import argparse
import math
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.codec.bitstream import DEFAULT_MAX_PIXELS, MAX_SIDE
from roi_codec_ros.commands.arguments import (
    add_force_option,
    add_json_option,
    outputs,
    positive_real,
)
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import read_bytes
from roi_codec_ros.common.images import picture_bytes

if TYPE_CHECKING:
    from roi_codec_ros.codec import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("roic", type=Path, metavar="IN", help=".roic file, folder of them, or bag")
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="picture, folder, bag or video file to write"
    )
    parser.add_argument("--model", help="name or file (default: any installed model that fits)")
    parser.add_argument(
        "--max-megapixels",
        type=positive_real,
        default=DEFAULT_MAX_PIXELS / 1e6,
        metavar="N",
        help="refuse larger frames (default: %(default).1f, which is 3840×2160)",
    )
    bags = parser.add_argument_group("bags")
    bags.add_argument(
        "--as",
        dest="form",
        choices=("video", "image", "compressed"),
        default="video",
        help="message type of decoded latents: foxglove_msgs/CompressedVideo, which "
        "Foxglove shows, or images (default: %(default)s)",
    )
    bags.add_argument("--topic", help="topic to decode when OUT is a video file")
    add_json_option(parser)
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.codec import Decoder, Payload
    from roi_codec_ros.recordings.bag_reading import is_bag

    if is_bag(args.roic):
        _decode_bag(args)
        return
    if args.roic.is_dir():
        _decode_folder(args)
        return
    files = outputs(args, "out", "json", inputs=[args.roic, args.model])
    data = read_bytes(args.roic)
    payload = Payload.from_bytes(data, max_pixels=MAX_SIDE**2)
    max_pixels = round(1e6 * args.max_megapixels)
    pixels = payload.coded_height * payload.coded_width
    if pixels > max_pixels:
        raise RoiCodecError(
            f"expected a frame of at most {args.max_megapixels:.1f} megapixels, found "
            f"{payload.coded_width}×{payload.coded_height} pixels: "
            f"--max-megapixels {math.ceil(pixels / 1e6)} takes it"
        )
    models = _models(args.model)
    # Only matching models are loaded; without one, the decoder's error lists what is installed.
    models = [m for m in models if args.model or m.id == payload.model_id] or models
    frame = Decoder(models, backend="auto", max_pixels=max_pixels).decode(data)
    files["out"].write(picture_bytes(frame.image, args.out.suffix))
    height, width = frame.coded_size
    files["out"].say(
        f"{args.out}: {width}×{height}, model {frame.model.name} ({frame.model.id.hex()})"
    )
    if args.json:
        files["json"].write_json(
            {
                "model": frame.model.name,
                "model_id": frame.model.id.hex(),
                "original_size": frame.original_size,
                "coded_size": frame.coded_size,
                "known_share": frame.known_share,
                "timings_ms": frame.timings_ms,
            },
        )


def _models(given: str | None) -> list[Model]:
    """The model that was given, else all that are installed."""
    from roi_codec_ros.codec import list_models, load_model

    if given:
        return [load_model(given)]
    return [entry.model for entry in list_models() if entry.model is not None]


def _decode_folder(args: argparse.Namespace) -> None:
    from roi_codec_ros.codec import Decoder
    from roi_codec_ros.recordings.payload_folders import decode_folder

    files = outputs(args, "json", inputs=[args.model])
    decoder = Decoder(
        _models(args.model), backend="auto", max_pixels=round(1e6 * args.max_megapixels)
    )
    say = partial(print, file=sys.stderr)
    done = decode_folder(args.roic, args.out, decoder, say, force=args.force)
    count = len(done.known_shares)
    print(f"{args.out}: {count} of {count + done.refused} frames, {done.whole} of them whole")
    if args.json:
        frames = [
            {"file": name, "known_share": share} for name, share in done.known_shares.items()
        ]
        files["json"].write_json({"frames": frames, "refused": done.refused})


def _decode_bag(args: argparse.Namespace) -> None:
    from roi_codec_ros.codec import Decoder, load_model
    from roi_codec_ros.commands.progress_bar import ProgressBar
    from roi_codec_ros.recordings.bag_decoding import decode_bag, decode_film
    from roi_codec_ros.recordings.film_files import is_film
    from roi_codec_ros.recordings.latents import installed_models

    files = outputs(args, "json", inputs=[args.roic, args.model])
    models = [load_model(args.model)] if args.model else installed_models()
    decoder = Decoder(models, max_pixels=round(1e6 * args.max_megapixels))
    with ProgressBar() as bar:
        if is_film(args.out):
            decoded = decode_film(
                args.roic, args.out, decoder, args.topic, bar.show, force=args.force
            )
        else:
            decoded = decode_bag(
                args.roic, args.out, decoder, args.form, bar.show, force=args.force
            )
    print(f"{args.out}: {decoded.pictures} pictures")
    if decoded.left_out:
        print(f"{decoded.left_out} left out, the first: {decoded.first}", file=sys.stderr)
    if args.json:
        files["json"].write_json({"pictures": decoded.pictures, "left_out": decoded.left_out})
