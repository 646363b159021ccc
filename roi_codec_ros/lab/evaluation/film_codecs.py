# SPDX-License-Identifier: Apache-2.0
"""Codecs of films under test: ours, stills, those of PyAV as robots call them, and blurring.

    frame ─► FilmEncoder.put ─► packets ─► FilmDecoder.put ─► (number of the frame, picture)

The k-th packet is of the k-th frame: nothing is reordered, whatever a codec holds back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.graph_choice import TORCH
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.lab.evaluation.methods import Method

if TYPE_CHECKING:
    from roi_codec_ros.codec.models import Model

Shown = list[tuple[int, ImageArray]]


class FilmEncoder(Protocol):
    """Codes one film, frame by frame."""

    def put(self, image: ImageArray, time_s: float) -> list[bytes]:
        """The packets that are ready after this frame, RGB uint8 [H, W, 3]."""

    def flush(self) -> list[bytes]:
        """Those that were held back, at the end."""
        ...


class FilmDecoder(Protocol):
    """Decodes one film; packets may be missing."""

    def put(self, data: bytes, number: int) -> Shown:
        """The pictures that are ready after packet ``number``, each with the number of its own."""

    def flush(self) -> Shown:
        """Those that were held back, at the end."""
        ...


class FilmCodec(Protocol):
    """A codec at one setting. model_id: as of `methods.Method`."""

    @property
    def heal_s(self) -> float:
        """How long it takes at most until everything was sent anew, whatever was lost before."""

    @property
    def name(self) -> str:
        """What tables call the codec."""

    @property
    def preset(self) -> str:
        """Its setting, such as a quality."""

    @property
    def model_id(self) -> str | None:
        """A model's identity in hex; None for other codecs."""

    def encoder(self, size: tuple[int, int], rate_hz: float) -> FilmEncoder:
        """One for a film of frames of (height, width), at a rate."""

    def decoder(self, size: tuple[int, int]) -> FilmDecoder:
        """One for such a film."""
        ...


# ------------------------------------------------------------------------------------------- ours


@dataclass(frozen=True)
class ModelFilm:
    """A model as a camera runs it: masks are remembered; of blocks what has changed is sent.

    quality, hide_memory_s, threads: as of `codec.Encoder`. backend: as of `codec.Decoder`.
    """

    model: Model
    quality: float = 0.0
    hide_memory_s: float = 0.0
    threads: int | None = None
    backend: str = TORCH

    @property
    def heal_s(self) -> float:
        """A second, in which every block is sent anew."""
        return 1.0

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def preset(self) -> str:
        """The model's preset, and the quality where it is not the model's own."""
        name = self.model.preset.name
        return f"{name} {self.quality:+g}" if self.quality else name

    @property
    def model_id(self) -> str | None:
        """The model's identity in hex."""
        return self.model.id.hex()

    def encoder(self, size: tuple[int, int], rate_hz: float) -> FilmEncoder:
        """As the encoder node makes it."""
        return _ModelEncoder(self)

    def decoder(self, size: tuple[int, int]) -> FilmDecoder:
        """As the decoder node makes it."""
        return _ModelDecoder(self)


class _ModelEncoder:
    def __init__(self, film: ModelFilm) -> None:
        from roi_codec_ros.codec.encoding import Encoder

        blocks = film.model.codes_blocks
        self._encoder = Encoder(
            film.model,
            quality=film.quality,
            hide_memory_s=film.hide_memory_s,
            skip=blocks,
            threads=film.threads,
        )

    def put(self, image: ImageArray, time_s: float) -> list[bytes]:
        return [self._encoder.encode(image, stamp_s=time_s).data]

    def flush(self) -> list[bytes]:
        return []


class _ModelDecoder:
    def __init__(self, film: ModelFilm) -> None:
        from roi_codec_ros.codec.decoding import Decoder
        from roi_codec_ros.codec.stream_state import StreamState

        self._decoder = Decoder(film.model, backend=film.backend, threads=film.threads)
        self._state = StreamState()

    def put(self, data: bytes, number: int) -> Shown:
        return [(number, self._decoder.decode(data, self._state).image)]

    def flush(self) -> Shown:
        return []


# ------------------------------------------------------------------------------------------ stills


@dataclass(frozen=True)
class StillFilm:
    """A codec of stills, frame by frame."""

    codec: Method
    heal_s: float = 0.0  # every packet stands alone

    @property
    def name(self) -> str:
        """The codec's name."""
        return self.codec.name

    @property
    def preset(self) -> str:
        """The codec's."""
        return self.codec.preset

    @property
    def model_id(self) -> str | None:
        """The codec's."""
        return self.codec.model_id

    def encoder(self, size: tuple[int, int], rate_hz: float) -> FilmEncoder:
        """The codec itself."""
        return _StillEncoder(self.codec)

    def decoder(self, size: tuple[int, int]) -> FilmDecoder:
        """The codec itself."""
        return _StillDecoder(self.codec)


@dataclass(frozen=True)
class _StillEncoder:
    codec: Method

    def put(self, image: ImageArray, time_s: float) -> list[bytes]:
        return [self.codec.encode(image)]

    def flush(self) -> list[bytes]:
        return []


@dataclass(frozen=True)
class _StillDecoder:
    codec: Method

    def put(self, data: bytes, number: int) -> Shown:
        return [(number, self.codec.decode(data))]

    def flush(self) -> Shown:
        return []


# ------------------------------------------------------------------------------------------- PyAV


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
                f"found: {error}"
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
        # What comes before the first keyframe can not be decoded, and shows nothing.
        with contextlib.suppress(self._av.FFmpegError):
            frames = self._context.decode(packet)
            return [(f.pts, f.to_ndarray(format="rgb24")[:height, :width]) for f in frames]
        return []


def _even(size: tuple[int, int]) -> tuple[int, int]:
    """Sides that colours of half the size go into."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


# -------------------------------------------------------------------------------- detect and blur

BLUR_GROWN = 1.3  # of a face's box, before it is blurred; its kernel is half of that


@dataclass(frozen=True)
class BlurredFilm:
    """What is done without us: faces are detected and blurred in every frame, then coded."""

    codec: AvFilm
    yunet: str

    @property
    def heal_s(self) -> float:
        """The codec's."""
        return self.codec.heal_s

    @property
    def name(self) -> str:
        """The codec's name, marked."""
        return f"blur+{self.codec.name}"

    @property
    def preset(self) -> str:
        """The codec's."""
        return self.codec.preset

    @property
    def model_id(self) -> str | None:
        """None: no model of ours."""
        return None

    def encoder(self, size: tuple[int, int], rate_hz: float) -> FilmEncoder:
        """As the codec's, and RoiCodecError where there is no YuNet."""
        return _BlurEncoder(self.codec.encoder(size, rate_hz), self.yunet, size)

    def decoder(self, size: tuple[int, int]) -> FilmDecoder:
        """The codec's."""
        return self.codec.decoder(size)


class _BlurEncoder:
    def __init__(self, encoder: FilmEncoder, yunet: str, size: tuple[int, int]) -> None:
        self._encoder = encoder
        try:  # at the threshold that is YuNet's default in OpenCV
            self._network = cv2.FaceDetectorYN.create(yunet, "", (size[1], size[0]))
        except cv2.error as error:
            raise RoiCodecError(f"expected YuNet's ONNX file at {yunet}") from error

    def put(self, image: ImageArray, time_s: float) -> list[bytes]:
        _, faces = self._network.detect(np.ascontiguousarray(image[..., ::-1]))
        boxes = [] if faces is None else faces[:, :4]
        return self._encoder.put(blurred(image, boxes), time_s)

    def flush(self) -> list[bytes]:
        return self._encoder.flush()


def blurred(image: ImageArray, faces: Iterable[np.ndarray]) -> ImageArray:
    """A copy of an image with faces (x, y, width, height; pixels) blurred by a box."""
    result = image.copy()
    for x, y, width, height in faces:
        beyond_x, beyond_y = width * (BLUR_GROWN - 1) / 2, height * (BLUR_GROWN - 1) / 2
        left, top = max(0, round(x - beyond_x)), max(0, round(y - beyond_y))
        right = max(0, round(x + width + beyond_x))
        bottom = max(0, round(y + height + beyond_y))
        face = result[top:bottom, left:right]
        if face.size:
            kernel = (max(1, face.shape[1] // 2), max(1, face.shape[0] // 2))
            result[top:bottom, left:right] = cv2.blur(face, kernel)
    return result
