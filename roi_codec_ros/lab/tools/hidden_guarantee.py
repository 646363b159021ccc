# SPDX-License-Identifier: Apache-2.0
"""Whether a payload says anything of what is hidden: contents are swapped, bytes compared.

example:
  python -m roi_codec_ros.lab.tools.hidden_guarantee photograph.jpg --count 10000

The block map and the levels of a frame are held while other contents are put into its hidden
blocks: noise, the same picture upside down, its negative, other colours, single pixels. Each
payload has to be the first one, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from roi_codec_ros.codec import EncodedFrame, Encoder
from roi_codec_ros.codec.entropy import HIDDEN
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray

DEFAULT_COUNT = 10_000


def contents(image: ImageArray, hidden: np.ndarray, count: int, seed: int) -> Iterator[ImageArray]:
    """``count`` frames that differ from ``image`` in hidden pixels (bool [H, W]) alone."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    places = np.argwhere(hidden)
    for number in range(count):
        frame = image.copy()
        kind = number % 5
        if kind == 0:
            frame[hidden] = rng.integers(0, 256, (len(places), 3), np.uint8)
        elif kind == 1:
            shift = rng.integers(1, height), rng.integers(1, width)
            frame[hidden] = np.roll(image[::-1], shift, axis=(0, 1))[hidden]
        elif kind == 2:
            frame[hidden] = 255 - image[hidden]
        elif kind == 3:
            frame[hidden] = rng.integers(0, 256, 3, np.uint8)
        else:
            row, column = places[rng.integers(len(places))]
            frame[row, column] = 255 - frame[row, column]
        yield frame


def check(encoder: Encoder, image: ImageArray, count: int, seed: int = 0) -> EncodedFrame:
    """The frame as coded, once ``count`` other contents of its hidden blocks gave the same bytes.

    image: RGB uint8 [H, W, 3], of the coded size. Raises RoiCodecError where one did not, or where
    nothing of the frame is hidden.
    """
    coded = encoder.encode(image)
    stride = encoder.model.preset.stride
    hidden = (coded.blocks == HIDDEN).repeat(stride, axis=0).repeat(stride, axis=1)
    hidden = hidden[: image.shape[0], : image.shape[1]]
    if not hidden.any():
        raise RoiCodecError("expected a picture of which something is hidden, found nothing")
    for number, frame in enumerate(contents(image, hidden, count, seed)):
        again = encoder.encode_planned(frame, coded.blocks, coded.levels)
        if again.data != coded.data:
            raise RoiCodecError(f"expected the same payload for content {number}, found another")
    return coded


def main() -> None:
    """The script."""
    from roi_codec_ros.codec import load_encoder
    from roi_codec_ros.common.photographs import read_photograph

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT)
    args = parser.parse_args()
    encoder = load_encoder(args.model)
    coded = check(encoder, np.asarray(read_photograph(args.image)), args.count)
    sys.stdout.write(
        f"{args.count} contents of {coded.hidden_share:.1%} of the blocks: "
        f"the same {len(coded.data)} bytes each time\n"
    )


if __name__ == "__main__":
    main()
