# SPDX-License-Identifier: Apache-2.0
"""The standard codecs for comparison: JPEG and AV1, both by Pillow, both at 4:2:0.

A specification is `name:quality,quality,…`, for AV1 also `av1@speed:quality,…`, and with `hidden-`
before it the codec is given pictures whose annotated heads are hidden. Every byte of the file
counts, its container included.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import Registry
from roi_codec_ros.lab.evaluation.hidden_heads import PREFIX, HeadsHidden
from roi_codec_ros.lab.evaluation.methods import Method

AV1_DEFAULT_SPEED = 6
AV1_SLOWEST, AV1_FASTEST = 0, 10
HIGHEST_QUALITY = 100


@dataclass(frozen=True)
class PillowCodec:
    """A file format of Pillow at one quality (0 to 100)."""

    name: str
    file_format: str
    quality: int
    options: tuple[tuple[str, object], ...] = ()

    @property
    def preset(self) -> str:
        """The quality, as it stands in tables."""
        return str(self.quality)

    @property
    def model_id(self) -> str | None:
        """None: no model of ours."""
        return None

    def encode(self, image: ImageArray) -> bytes:
        """RGB uint8 [H, W, 3] to a file in memory."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(
            buffer,
            self.file_format,
            quality=self.quality,
            subsampling="4:2:0",
            **dict(self.options),
        )
        return buffer.getvalue()

    def decode(self, data: bytes) -> ImageArray:
        """The file back to RGB uint8 [H, W, 3]."""
        with Image.open(io.BytesIO(data), formats=(self.file_format,)) as image:
            return np.array(image.convert("RGB"))


BaselineFactory = Callable[[int, "int | None", int], Method]
# Factories of (quality, speed or None, threads) by the name that specifications have for them.
BASELINES: Registry[BaselineFactory] = Registry()


@BASELINES.register("jpeg")
def jpeg(quality: int, speed: int | None = None, threads: int = 1) -> Method:
    """Pillow's JPEG, which is single-threaded."""
    if speed is not None:
        raise UsageError(f"expected no speed for jpeg, found jpeg@{speed}")
    return PillowCodec("jpeg", "JPEG", quality)


@BASELINES.register("av1")
def av1(quality: int, speed: int | None = None, threads: int = 1) -> Method:
    """Pillow's AVIF, an AV1 key frame in a file. speed: 0 (slowest) to 10, libavif's scale.

    threads: of the encoder; named, since its bytes depend on them and by default they are the
    machine's cores.
    """
    if not features.check("avif"):
        raise RoiCodecError(
            "expected a Pillow with AVIF for the AV1 baseline, found one without; "
            "install it with: pip install 'pillow>=11.3'"
        )
    chosen = AV1_DEFAULT_SPEED if speed is None else speed
    if not AV1_SLOWEST <= chosen <= AV1_FASTEST:
        raise UsageError(
            f"expected an AV1 speed of {AV1_SLOWEST} to {AV1_FASTEST}, found {chosen}"
        )
    name = "av1" if chosen == AV1_DEFAULT_SPEED else f"av1@{chosen}"
    return PillowCodec(name, "AVIF", quality, (("speed", chosen), ("max_threads", threads)))


def parse_baselines(specifications: Iterable[str], *, threads: int = 1) -> list[Method]:
    """The codecs that specifications such as `jpeg:1,5,10` and `av1@10:1` name, in their order.

    threads: of each codec that can use them.
    Raises UsageError for what can't be read and for a codec named twice, RoiCodecError for a
    format that this Pillow lacks.
    """
    codecs = [codec for text in specifications for codec in _parse_baseline(text, threads)]
    seen: set[tuple[str, str]] = set()
    for codec in codecs:
        key = (codec.name, codec.preset)
        if key in seen:
            raise UsageError(f"expected every baseline once, found {':'.join(key)} twice")
        seen.add(key)
    return codecs


def _parse_baseline(specification: str, threads: int) -> list[Method]:
    form = f"expected a baseline such as jpeg:1,5,10 or av1@10:1, found {specification!r}"
    codec, colon, qualities = specification.partition(":")
    name, at, speed = codec.removeprefix(PREFIX).partition("@")
    if not colon or (at and not _is_number(speed)):
        raise UsageError(form)
    if name not in BASELINES:
        raise UsageError(f"expected a baseline of {', '.join(BASELINES)}, found {name!r}")
    codecs: list[Method] = []
    for quality in qualities.split(","):
        if not _is_number(quality) or int(quality) > HIGHEST_QUALITY:
            raise UsageError(f"{form}: a quality is 0 to {HIGHEST_QUALITY}")
        codecs.append(BASELINES[name](int(quality), int(speed) if at else None, threads))
    return [HeadsHidden(made) for made in codecs] if codec.startswith(PREFIX) else codecs


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
