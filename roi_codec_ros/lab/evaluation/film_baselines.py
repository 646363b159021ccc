# SPDX-License-Identifier: Apache-2.0
"""Codecs of films from specifications such as `x264:35,45`, `svtav1@8:50`, `blur+x264:45`.

Those of stills (`av1:10`) code every frame by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.evaluation.av_codecs import AV_CODECS, AvFilm
from roi_codec_ros.lab.evaluation.baselines import BASELINES, parse_baselines
from roi_codec_ros.lab.evaluation.film_codecs import BlurredFilm, StillFilm
from roi_codec_ros.lab.evaluation.film_protocols import FilmCodec

BLUR = BlurredFilm.prefix
COARSEST = 63


def parse_film_baselines(
    specifications: Iterable[str], *, keyframe_s: float = 1.0, yunet: str | None = None
) -> list[FilmCodec]:
    """The codecs in the order of their specifications, each `codec[@speed]:factor,factor,…`.

    keyframe_s: from one keyframe to the next. yunet: the ONNX file of what `blur+` detects with.
    Raises UsageError for what can't be read, for a codec named twice and for blurring without
    a detector.
    """
    codecs = [codec for text in specifications for codec in _parse_one(text, keyframe_s, yunet)]
    names = [f"{codec.name}:{codec.preset}" for codec in codecs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"expected every baseline once, found {min(twice)} twice")
    return codecs


def _parse_one(specification: str, keyframe_s: float, yunet: str | None) -> list[FilmCodec]:
    codec, _, factors = specification.removeprefix(BLUR).partition(":")
    name, at, speed = codec.partition("@")
    if name in BASELINES and name == specification[: len(name)]:
        return [StillFilm(still) for still in parse_baselines([specification])]
    if name not in AV_CODECS:
        raise UsageError(
            f"expected a baseline of films of {', '.join(AV_CODECS)}, also after {BLUR}, or of "
            f"stills of {', '.join(BASELINES)}; found {specification!r}"
        )
    made: list[FilmCodec] = []
    for factor in factors.split(","):
        good = factor.isascii() and factor.isdigit() and int(factor) <= COARSEST
        if not good or (at and not speed):
            raise UsageError(
                f"expected a baseline such as x264:35,45 or svtav1@8:50 (rate factors of 0 to "
                f"{COARSEST}), found {specification!r}"
            )
        film = AvFilm(name, int(factor), speed or None, keyframe_s)
        if not specification.startswith(BLUR):
            made.append(film)
        elif yunet is None:
            raise UsageError(f"expected --yunet FILE for {specification}, found none")
        else:
            made.append(BlurredFilm(film, yunet))
    return made
