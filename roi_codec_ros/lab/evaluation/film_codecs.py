# SPDX-License-Identifier: Apache-2.0
"""Codecs of films under test beside those of PyAV: ours, stills, and blurring before a codec."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.graph_choice import TORCH
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.evaluation.av_codecs import AvFilm
from roi_codec_ros.lab.evaluation.film_protocols import FilmDecoder, FilmEncoder, Shown
from roi_codec_ros.lab.evaluation.methods import Method

if TYPE_CHECKING:
    from roi_codec_ros.codec.models import Model


@dataclass(frozen=True)
class ModelFilm:
    """A model as a camera runs it: masks are remembered; of blocks what has changed is sent.

    quality, hide_memory_s, persons_every, threads, predict: as of `codec.Encoder`. backend: as of
    `codec.Decoder`.
    """

    model: Model
    quality: float = 0.0
    hide_memory_s: float = 0.0
    persons_every: int = 1
    threads: int | None = None
    backend: str = TORCH
    predict: bool = False

    @property
    def heal_s(self) -> float:
        """One second, in which every block is refreshed."""
        return 1.0

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def preset(self) -> str:
        """The model's preset, and the quality where it is not the model's own."""
        parts = [self.model.preset.name]
        parts += [f"{self.quality:+g}"] if self.quality else []
        return " ".join([*parts, *(["predicting"] if self.predict else [])])

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
            persons_every=film.persons_every,
            skip=blocks,
            predict=film.predict,
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
