# SPDX-License-Identifier: Apache-2.0
"""Codecs of films in PyAV, called as robots call them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.lab.evaluation.film_protocols import FilmDecoder, FilmEncoder, Shown


@dataclass(frozen=True)
class AvSettings:
    """How a codec is called by PyAV.

    options: of a quality, a speed and the frames from one keyframe to the next.
    """

    encoder: str
    decoder: str
    default_speed: str
    options: Callable[[int, str, int], Mapping[str, str]]


def _x264(quality: int, speed: str, keyframe: int) -> Mapping[str, str]:
    rest = f"keyint={keyframe}:min-keyint={keyframe}:scenecut=0:bframes=0:repeat-headers=1"
    return {
        "crf": str(quality), "preset": speed, "tune": "zerolatency", "x264-params": rest
    }  # fmt: skip


def _x265(quality: int, speed: str, keyframe: int) -> Mapping[str, str]:
    rest = (
        f"keyint={keyframe}:min-keyint={keyframe}:scenecut=0:bframes=0:repeat-headers=1:"
        "pools=none:frame-threads=1:log-level=error"
    )
    return {
        "crf": str(quality), "preset": speed, "tune": "zerolatency", "x265-params": rest
    }  # fmt: skip


def _svtav1(quality: int, speed: str, keyframe: int) -> Mapping[str, str]:
    rest = f"pred-struct=1:keyint={keyframe}:scd=0:lookahead=0:lp=1"
    return {"crf": str(quality), "preset": speed, "svtav1-params": rest}


AV_CODECS = {
    "x264": AvSettings("libx264", "h264", "veryfast", _x264),
    "x265": AvSettings("libx265", "hevc", "veryfast", _x265),
    "svtav1": AvSettings("libsvtav1", "libdav1d", "10", _svtav1),
}


@dataclass(frozen=True)
class AvFilm:
    """A codec of PyAV on one thread: no frames that wait for later ones, keyframes at a beat.

    quality: its constant rate factor, more is coarser. speed: the codec's own name for it.
    """

    codec: str
    quality: int
    speed: str | None = None
    keyframe_s: float = 1.0
    model_id: str | None = None

    @property
    def heal_s(self) -> float:
        """From one keyframe to the next."""
        return self.keyframe_s

    @property
    def name(self) -> str:
        """The codec, and its speed where that is not the usual one."""
        return f"{self.codec}@{self.speed}" if self.speed else self.codec

    @property
    def preset(self) -> str:
        """The quality."""
        return str(self.quality)

    def encoder(self, size: tuple[int, int], rate_hz: float) -> FilmEncoder:
        """Raises RoiCodecError where PyAV or the codec is missing, or refuses its settings."""
        return _AvEncoder(self, size, rate_hz)

    def decoder(self, size: tuple[int, int]) -> FilmDecoder:
        """Raises RoiCodecError where PyAV or the codec is missing."""
        return _AvDecoder(AV_CODECS[self.codec].decoder, size)


def require_av() -> Any:
    """PyAV. Raises RoiCodecError that says how to install it."""
    return optional("av", needed_for="codecs of films", install="pip install av")


class _AvEncoder:
    def __init__(self, film: AvFilm, size: tuple[int, int], rate_hz: float) -> None:
        self._av = require_av()
        settings = AV_CODECS[film.codec]
        height, width = _even(size)
        keyframe = max(1, round(film.keyframe_s * rate_hz))
        try:
            context = self._av.CodecContext.create(settings.encoder, "w")
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            rate = Fraction(rate_hz).limit_denominator(1000)
            context.framerate, context.time_base = rate, 1 / rate
            context.thread_count = 1
            speed = film.speed or settings.default_speed
            context.options = dict(settings.options(film.quality, speed, keyframe))
            context.open()
        except (self._av.FFmpegError, ValueError) as error:
            raise RoiCodecError(
                f"expected PyAV to open {settings.encoder} for {film.name}:{film.preset}, "
                f"found: {reason_of(error)}"
            ) from error
        self._context, self._count = context, 0

    def put(self, image: ImageArray, time_s: float) -> list[bytes]:
        height, width = _even((image.shape[0], image.shape[1]))
        down, across = height - image.shape[0], width - image.shape[1]
        if down or across:
            image = np.pad(image, ((0, down), (0, across), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self._count
        self._count += 1
        return [bytes(packet) for packet in self._context.encode(frame)]

    def flush(self) -> list[bytes]:
        return [data for packet in self._context.encode(None) if (data := bytes(packet))]


class _AvDecoder:
    def __init__(self, name: str, size: tuple[int, int]) -> None:
        self._av = require_av()
        self._size = size
        self._context = self._av.CodecContext.create(name, "r")
        self._context.thread_count = 1
        self._context.flags |= self._av.codec.context.Flags.low_delay

    def put(self, data: bytes, number: int) -> Shown:
        packet = self._av.Packet(data)
        packet.pts = packet.dts = number
        return self._shown(packet)

    def flush(self) -> Shown:
        return self._shown(None)

    def _shown(self, packet: Any) -> Shown:
        height, width = self._size
        # What comes before the first keyframe cannot be decoded, and shows nothing.
        with contextlib.suppress(self._av.FFmpegError):
            frames = self._context.decode(packet)
            return [(f.pts, f.to_ndarray(format="rgb24")[:height, :width]) for f in frames]
        return []


def _even(size: tuple[int, int]) -> tuple[int, int]:
    """Sides that colours of half the size go into."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2
