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
from roi_codec_ros.lab.evaluation.methods import AroundAnother, Method, preset_name

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
        """The model's preset, and what is not its own: the quality, and that it predicts."""
        return preset_name(self.model, self.quality) + (" predicting" if self.predict else "")

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


class _ModelEncoder(FilmEncoder):
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


class _ModelDecoder(FilmDecoder):
    def __init__(self, film: ModelFilm) -> None:
        from roi_codec_ros.codec.decoding import Decoder
        from roi_codec_ros.codec.stream_state import StreamState

        self._decoder = Decoder(film.model, backend=film.backend, threads=film.threads)
        self._state = StreamState()

    def put(self, data: bytes, number: int) -> Shown:
        return [(number, self._decoder.decode(data, self._state).image)]


class StillFilm(AroundAnother):
    """A codec of stills, frame by frame."""

    heal_s = 0.0  # every packet stands alone

    def __init__(self, codec: Method) -> None:
        super().__init__(codec)
        self._codec = codec

    def encoder(self, size: tuple[int, int], rate_hz: float) -> FilmEncoder:
        """The codec itself."""
        return _StillEncoder(self._codec)

    def decoder(self, size: tuple[int, int]) -> FilmDecoder:
        """The codec itself."""
        return _StillDecoder(self._codec)


@dataclass(frozen=True)
class _StillEncoder(FilmEncoder):
    codec: Method

    def put(self, image: ImageArray, time_s: float) -> list[bytes]:
        return [self.codec.encode(image)]


@dataclass(frozen=True)
class _StillDecoder(FilmDecoder):
    codec: Method

    def put(self, data: bytes, number: int) -> Shown:
        return [(number, self.codec.decode(data))]


BLUR_GROWN = 1.3  # of a face's box, before it is blurred; its kernel is half of that


class BlurredFilm(AroundAnother):
    """What is done without us: faces are detected and blurred in every frame, then coded.

    yunet: the ONNX file of the detector.
    """

    prefix = "blur+"

    def __init__(self, codec: AvFilm, yunet: str) -> None:
        super().__init__(codec)
        self._codec, self._yunet = codec, yunet
        self.heal_s = codec.heal_s

    def encoder(self, size: tuple[int, int], rate_hz: float) -> FilmEncoder:
        """As the codec's, and RoiCodecError where there is no YuNet."""
        return _BlurEncoder(self._codec.encoder(size, rate_hz), self._yunet, size)

    def decoder(self, size: tuple[int, int]) -> FilmDecoder:
        """The codec's."""
        return self._codec.decoder(size)


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
