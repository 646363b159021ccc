# SPDX-License-Identifier: Apache-2.0
"""Messages of latents: made of pictures as a camera's encoder would, and turned into pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from roi_codec_ros.codec import FORMAT, Decoder, Encoder, list_models
from roi_codec_ros.codec.stream_state import StreamState
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.plugins import optional
from roi_codec_ros.common.share import shared_file
from roi_codec_ros.recordings.bag_frames import MessageCodec, header_of
from roi_codec_ros.recordings.jpegs import INSTALL

LATENT = "roi_codec_ros/msg/CompressedLatent"
DEFINITION = "CompressedLatent.msg"


def learn_latents(typestore: Any) -> None:
    """Let a typestore of `rosbags` know the message. Raises RoiCodecError."""
    if LATENT in typestore.fielddefs:
        return
    typesys = optional("rosbags.typesys", needed_for="bags", install=INSTALL)
    typestore.register(typesys.get_types_from_msg(_definition(), LATENT))


class ToLatent:
    """Makes a message of a picture's payload; each stands alone."""

    msgtype = LATENT

    def __init__(self, codec: MessageCodec, encoder: Callable[[], Encoder]) -> None:
        """encoder: makes a worker its own."""
        learn_latents(codec.typestore)
        self._codec = codec
        self._encoder = encoder
        self._own = threading.local()
        self._decoder: Decoder | None = None
        self._lock = threading.Lock()

    def __call__(self, message: Any, pixels: ImageArray) -> bytes:
        """The bytes of the message."""
        if not hasattr(self._own, "encoder"):
            self._own.encoder = self._encoder()
        encoder: Encoder = self._own.encoder
        frame = encoder.encode(pixels)
        height, width = frame.coded_size
        latent = self._codec.typestore.types[LATENT](
            header=header_of(message, self._codec.typestore),
            format=FORMAT,
            model=encoder.model.name,
            model_id=np.frombuffer(encoder.model.id, np.uint8),
            original_height=pixels.shape[0],
            original_width=pixels.shape[1],
            coded_height=height,
            coded_width=width,
            sequence=0,
            source_position=-1,
            data=np.frombuffer(frame.data, np.uint8),
        )
        return self._codec.write(latent, LATENT)

    def shown(self, output: bytes) -> ImageArray:
        """The pixels that a decoder makes of the message."""
        message = self._codec.read(output, LATENT)
        with self._lock:
            if self._decoder is None:
                self._decoder = Decoder(installed_models())
            return np.asarray(self._decoder.decode(bytes(message.data)).image, np.uint8)


class LatentReader:
    """Pictures from the latents of one topic, in their order: some say only what has changed."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._state = StreamState()

    def read(self, message: Any) -> ImageArray:
        """uint8 [H, W, 3] RGB. Raises BitstreamError."""
        frame = self._decoder.decode(bytes(message.data), self._state)
        return np.asarray(frame.image, np.uint8)


def installed_models() -> list[Any]:
    """All installed models. Raises RoiCodecError if there are none."""
    models = [entry.model for entry in list_models() if entry.model is not None]
    if not models:
        raise RoiCodecError("expected an installed model to decode with, found none")
    return models


def _definition() -> str:
    path = shared_file("msg", DEFINITION)
    if path is None:
        raise RoiCodecError(f"expected {DEFINITION} beside this package's models, found none")
    return path.read_text(encoding="utf-8")
