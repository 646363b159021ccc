# SPDX-License-Identifier: Apache-2.0
"""`roi-codec decode FOLDER`: the frames of a camera, one after the other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from roi_codec_ros.common.errors import BitstreamError, RoiCodecError
from roi_codec_ros.common.files import read_bytes, write
from roi_codec_ros.common.images import picture_bytes
from roi_codec_ros.common.output_files import Output, RunFolder

SUFFIX, SHOWN = ".roic", ".png"


def decode_folder(args: argparse.Namespace, files: dict[str, Output]) -> None:
    """Decode every `.roic` file of the folder in the order of their names, as one stream.

    What a frame of a standing camera leaves out is what those before it brought; a folder that
    begins in the middle is whole after a second. Raises RoiCodecError where nothing is decoded.
    """
    from roi_codec_ros.codec import Decoder, StreamState, list_models, load_model

    frames = sorted(path for path in args.roic.iterdir() if path.suffix == SUFFIX)
    if not frames:
        raise RoiCodecError(f"expected {SUFFIX} files in {args.roic}, found none")
    if args.out.resolve() == args.roic.resolve():
        raise RoiCodecError(f"expected a folder other than {args.roic} to write into")
    if args.model:
        models = [load_model(args.model)]
    else:
        models = [entry.model for entry in list_models() if entry.model is not None]
    decoder = Decoder(models, backend="auto", max_pixels=round(1e6 * args.max_megapixels))
    state = StreamState()
    report = []
    names = [path.stem + SHOWN for path in frames]
    with RunFolder(args.out, "decode", names, force=args.force):
        for path, name in zip(frames, names, strict=True):
            try:
                frame = decoder.decode(read_bytes(path), state)
            except BitstreamError as error:
                print(f"{path}: {error}", file=sys.stderr)
                continue
            write(args.out / name, picture_bytes(frame.image, SHOWN))
            report.append({"file": name, "known_share": frame.known_share})
    if not report:
        raise RoiCodecError(f"expected frames of a known model in {args.roic}, found none")
    print(_summary(args.out, [entry["known_share"] for entry in report], len(frames)))
    if args.json:
        files["json"].write_json({"frames": report, "refused": len(frames) - len(report)})


def _summary(out: Path, known: Sequence[object], count: int) -> str:
    whole = sum(share == 1.0 for share in known)
    return f"{out}: {len(known)} of {count} frames, {whole} of them whole"
