# SPDX-License-Identifier: Apache-2.0
"""A folder of `.roic` files: the frames of one camera, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from roi_codec_ros.codec import Decoder, StreamState
from roi_codec_ros.common.errors import BitstreamError, RoiCodecError
from roi_codec_ros.common.files import read_bytes, write
from roi_codec_ros.common.images import picture_bytes
from roi_codec_ros.common.output_files import RunFolder

SUFFIX, SHOWN = ".roic", ".png"


@dataclass(frozen=True)
class DecodedFolder:
    """By picture, the share of its blocks that were known; how many files were refused."""

    known_shares: dict[str, float]
    refused: int

    @property
    def whole(self) -> int:
        """How many pictures have all of their blocks."""
        return sum(share == 1.0 for share in self.known_shares.values())


def decode_folder(
    source: Path, target: Path, decoder: Decoder, say: Callable[[str], None], *, force: bool
) -> DecodedFolder:
    """Decode every `.roic` file of a folder in the order of their names, as one stream.

    What a frame of a standing camera leaves out is what those before it brought; a folder that
    begins in the middle is whole after a second. say: gets a line on each file that is refused.
    Raises RoiCodecError where nothing is decoded.
    """
    frames = sorted(path for path in source.iterdir() if path.suffix == SUFFIX)
    if not frames:
        raise RoiCodecError(f"expected {SUFFIX} files in {source}, found none")
    if target.resolve() == source.resolve():
        raise RoiCodecError(f"expected a folder other than {source} to write into")
    state = StreamState()
    known_shares = {}
    names = [path.stem + SHOWN for path in frames]
    with RunFolder(target, "decode", names, force=force):
        for path, name in zip(frames, names, strict=True):
            try:
                frame = decoder.decode(read_bytes(path), state)
            except BitstreamError as error:
                say(f"{path}: {error}")
                continue
            write(target / name, picture_bytes(frame.image, SHOWN))
            known_shares[name] = frame.known_share
    if not known_shares:
        raise RoiCodecError(f"expected frames of a known model in {source}, found none")
    return DecodedFolder(known_shares, len(frames) - len(known_shares))
