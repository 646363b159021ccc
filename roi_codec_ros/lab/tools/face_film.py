# SPDX-License-Identifier: Apache-2.0
"""A film in which faces are seen: a camera that glides over photographs of people.

Photographs with heads of a data set, spread evenly over it, each for some seconds; every frame is
a JPEG of its own.

example:
  python -m roi_codec_ros.lab.tools.face_film DATA val faces.avi --shots 20
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.datasets.annotations_any import read_annotations
from roi_codec_ros.lab.simulation.photograph_cameras import Shot, View, film, render_film

SMALLEST_HEAD_PX = 24  # of those that a photograph is chosen for
CLOSEST = 0.75  # part of the photograph that is seen at the end


def shots(annotations: Sequence[Annotation], count: int, seconds: float) -> list[Shot]:
    """Glides from whole photographs to their heads. Raises RoiCodecError where none has any."""
    with_heads = [
        a for a in annotations if ((a.heads[:, 3] - a.heads[:, 1]) >= SMALLEST_HEAD_PX).any()
    ]
    if not with_heads:
        raise RoiCodecError("expected photographs with heads, found none")
    places = np.linspace(0, len(with_heads) - 1, min(count, len(with_heads))).round().astype(int)
    return [_shot(with_heads[place], seconds) for place in places]


def _shot(annotation: Annotation, seconds: float) -> Shot:
    x = float(annotation.heads[:, [0, 2]].mean()) / annotation.width
    y = float(annotation.heads[:, [1, 3]].mean()) / annotation.height
    views = (View(0.5, 0.5, 1.0), View((0.5 + x) / 2, (0.5 + y) / 2, 0.9), View(x, y, CLOSEST))
    return Shot(annotation.image_path, views, seconds)


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("split")
    parser.add_argument("film", type=Path, metavar="FILM.avi")
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a shot")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=float, default=15.0, help="frames per second")
    args = parser.parse_args()
    chosen = shots(read_annotations(args.data, args.split), args.shots, args.seconds)
    size = (args.height, args.width)
    frames = film(chosen, frame_size=size, frames_per_second=args.rate)
    count = render_film(args.film, frames, frame_size=size, frames_per_second=args.rate)
    sys.stdout.write(f"{args.film}: {len(chosen)} photographs, {count} frames\n")


if __name__ == "__main__":
    main()
