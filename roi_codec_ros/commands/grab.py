# SPDX-License-Identifier: Apache-2.0
"""Take one picture with a camera, on the camera itself, with heads hidden.

For `roi-codec calibrate-ground` and lens calibration, where no topic carries raw pictures. Heads
are found and hidden as in coded frames; --raw writes the picture as it is, faces included. The
encoder must not hold the camera meanwhile:
`ros2 service call /front/encoder/enable std_srvs/srv/SetBool "{data: false}"`.

example:
  roi-codec grab /dev/video0 floor.png
  roi-codec grab rtsp://10.0.0.7/stream floor.png --skip 30
  roi-codec grab /dev/video0 chessboard_01.png --raw --size 1280x720
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.commands.arguments import add_force_option, image_size, not_negative, outputs
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.images import picture_bytes

if TYPE_CHECKING:
    from roi_codec_ros.common.images import ImageArray

FRAMES_TO_SETTLE = 10  # of a device, whose exposure begins anywhere


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("camera", help="as the encoder's `source`, but not a topic")
    parser.add_argument("out", type=Path, help="image file to write (.png, .jpg)")
    parser.add_argument(
        "--skip",
        type=not_negative,
        metavar="N",
        help=f"frames to skip first (default: {FRAMES_TO_SETTLE} for a device, else 0)",
    )
    parser.add_argument(
        "--size", type=image_size, metavar="WxH", help="resolution to request from a device"
    )
    parser.add_argument("--regions", default="regions", help="regions model that finds the heads")
    parser.add_argument("--raw", action="store_true", help="hide nothing: the file shows faces")
    add_force_option(parser)


def run(args: argparse.Namespace) -> None:
    """Run the verb. Raises RoiCodecError for whatever a user can cause."""
    from roi_codec_ros.regions import hidden_blocks, load_regions, paint_over

    files = outputs(args, "out")
    finder = None if args.raw else load_regions(args.regions)
    image = _frame(args)
    hidden = 0
    if finder is not None:
        blocks = hidden_blocks(finder.find(image), finder.thresholds)
        image, hidden = paint_over(image, blocks), int(blocks.sum())
    files["out"].write(picture_bytes(image, args.out.suffix))
    what = "as the camera gave it, nothing hidden" if args.raw else f"{hidden} blocks hidden"
    files["out"].say(f"{args.out}: {image.shape[1]}×{image.shape[0]}, {what}")
    if args.raw:
        print("raw: whoever is in this picture can be recognised", file=sys.stderr)


def _frame(args: argparse.Namespace) -> ImageArray:
    """A frame of the camera, uint8 [H, W, 3] RGB. Raises RoiCodecError."""
    from roi_codec_ros.stream.frame_readers import open_source
    from roi_codec_ros.stream.sources import CaptureFormat, SourceKind, parse_source

    source = parse_source(args.camera)
    if source.kind is SourceKind.TOPIC:
        raise UsageError(f"expected a device, file or stream, found {args.camera!r}")
    skip = args.skip
    if skip is None:
        skip = FRAMES_TO_SETTLE if source.kind is SourceKind.DEVICE else 0
    reader = open_source(source, CaptureFormat(*(args.size or (0, 0))))
    try:
        for _ in range(skip + 1):
            if not reader.advance():
                raise RoiCodecError(f"expected {skip + 1} frames from {source.text}, found fewer")
        image = reader.image()
    finally:
        reader.close()
    if image is None:
        raise RoiCodecError(f"expected a frame from {source.text}, found one that is broken")
    return image
