# SPDX-License-Identifier: Apache-2.0
"""Payloads to anonymized images: what the decoder node and `roi-codec decode` call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from roi_codec_ros.codec.bitstream import DEFAULT_MAX_PIXELS, Payload
from roi_codec_ros.codec.block_transform import BlockTransform
from roi_codec_ros.codec.entropy import SKIPPED
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.stream_state import Picture, StreamState
from roi_codec_ros.codec.synthesis import open_synthesis
from roi_codec_ros.common.errors import BitstreamError, ModelFileError, UnknownModelError
from roi_codec_ros.common.graph_choice import TORCH
from roi_codec_ros.common.images import as_image

NEUTRAL = 128  # value of every colour in unknown blocks


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded, anonymized frame.

    Attributes:
        planes: float32 [3, H, W], RGB, 0 to 1, at the coded size.
        original_size, coded_size: (height, width) before and after the encoder's resizing.
        model: the model that the payload was made with.
        blocks: uint8 [h, w]: what each block was coded as, as in `EncodedFrame`.
        levels: the level of each class.
        known: bool [h, w]: blocks whose content is known; the others are shown grey and count as
            unwatched.
        timings_ms: ``entropy``, ``synthesis`` (of all frames that went through the network with
            this one) and ``total``, their sum.
    """

    planes: np.ndarray
    original_size: tuple[int, int]
    coded_size: tuple[int, int]
    model: Model
    blocks: np.ndarray
    levels: tuple[int, ...]
    known: np.ndarray
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def known_share(self) -> float:
        """Share of the blocks whose content is known, 0 to 1."""
        return float(self.known.mean())

    @cached_property
    def image(self) -> np.ndarray:
        """uint8 [H, W, 3], RGB; converted on first access."""
        return as_image(self.planes)


class Decoder:
    """Turns untrusted payloads of one or several models into anonymized images."""

    def __init__(
        self,
        models: Model | Sequence[Model],
        *,
        backend: str = TORCH,
        device: str = "cpu",
        threads: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        """backend, device, threads and errors: as for `synthesis.open_synthesis`."""
        models = [models] if isinstance(models, Model) else list(models)
        if not models:
            raise ModelFileError("expected at least one model to decode with, found none")
        self.models = models
        self._max_pixels = max_pixels
        self._by_id = {
            model.id: (
                model,
                RansCoder(model.tables),
                open_synthesis(model, backend, device=device, threads=threads),
            )
            for model in models
        }
        self._transforms = {
            model.id: BlockTransform(model) for model in models if model.codes_blocks
        }

    @property
    def backends(self) -> dict[str, str]:
        """The runtime of each model's synthesis, by model name."""
        return {model.name: synthesis.name for model, _, synthesis in self._by_id.values()}

    def decode(self, data: bytes | Payload, state: StreamState | None = None) -> DecodedFrame:
        """Reconstruct one frame. Raises BitstreamError, with what was expected and what was found,
        for anything but a valid payload of a known model.

        state: the state of the frame's stream; None decodes the frame by itself, with skipped
            blocks unknown.
        """
        (outcome,) = self.decode_batch([self.read(data, state)])
        assert isinstance(outcome, DecodedFrame)
        return outcome

    def decode_batch(
        self, payloads: Sequence[bytes | Payload | ReadFrame]
    ) -> list[DecodedFrame | BitstreamError]:
        """Reconstruct several frames; those of one model and size share a network call.

        ``payloads`` are bytes or results of `parse` or `read`. Results are in the same order; for
        a payload that fails, the result is the exception that `decode` would raise. A batch holds
        at most ``max_pixels`` pixels, so that many large frames take no more memory than one.
        """
        outcomes: list[DecodedFrame | BitstreamError | None] = [None] * len(payloads)
        alike: dict[tuple[bytes, int, int], list[tuple[int, ReadFrame]]] = {}
        for index, data in enumerate(payloads):
            try:
                frame = data if isinstance(data, ReadFrame) else self.read(data)
            except BitstreamError as error:
                outcomes[index] = error
                continue
            payload = frame.payload
            key = (payload.model_id, payload.coded_height, payload.coded_width)
            alike.setdefault(key, []).append((index, frame))
        for (_, height, width), group in alike.items():
            most = max(1, self._max_pixels // (height * width))
            for start in range(0, len(group), most):
                indices, latents = zip(*group[start : start + most], strict=True)
                for index, decoded in zip(indices, self._synthesise(latents), strict=True):
                    outcomes[index] = decoded
        return [outcome for outcome in outcomes if outcome is not None]

    def synthesis_inputs(self, data: bytes) -> list[np.ndarray]:
        """Inputs of the synthesis for a standalone payload, float32 [1, ., h, w] each.

        Used for calibration. Raises BitstreamError.
        """
        frame = self.read(data)
        return self._inputs(self._by_id[frame.payload.model_id][0], [frame])

    def parse(self, data: bytes | bytearray | memoryview) -> Payload:
        """Parse a payload of a known model and check everything but its symbols.

        Raises UnknownModelError for a payload of another model, BitstreamError for anything else.
        """
        payload = Payload.from_bytes(data, max_pixels=self._max_pixels)
        if payload.model_id not in self._by_id:
            known = ", ".join(f"{m.name} ({m.id.hex()})" for m in self.models)
            raise UnknownModelError(
                f"expected a payload of model {known}; found one of model {payload.model_id.hex()}"
            )
        return payload

    def read(self, data: bytes | Payload, state: StreamState | None = None) -> ReadFrame:
        """Decode a payload's symbols and update its stream's ``state`` with them.

        Without a state skipped blocks are unknown. On BitstreamError the state is unchanged, and
        the next frame counts as following a gap.
        """
        started = time.perf_counter()
        payload = data if isinstance(data, Payload) else self.parse(data)
        model, coder, _ = self._by_id[payload.model_id]
        height, width = payload.coded_height, payload.coded_width
        if model.preset.coded_size not in (None, (height, width)):
            raise BitstreamError(
                f"expected {model.name} to be coded at {model.preset.coded_size}; "
                f"found {(height, width)}"
            )
        stride = model.preset.stride
        symbols, blocks, temporal = coder.decode(
            payload.block_map,
            payload.body,
            -(-height // stride),
            -(-width // stride),
            payload.levels,
            payload.temporal,
        )
        skipped = int((blocks == SKIPPED).sum())
        if skipped and payload.stream == 0:
            raise BitstreamError(
                f"expected a payload that decodes alone; found {skipped} of {blocks.size} blocks "
                "skipped"
            )
        level_of = np.zeros(blocks.shape, np.uint8)
        if model.codes_blocks:
            level_of = self._transforms[model.id].level_of(blocks, payload.levels)
        picture = (state or StreamState()).update(payload, symbols, blocks, level_of, temporal)
        return ReadFrame(payload, picture, blocks, 1e3 * (time.perf_counter() - started))

    def _synthesise(self, latents: Sequence[ReadFrame]) -> list[DecodedFrame]:
        """Frames from latents of one model and coded size."""
        started = time.perf_counter()
        first = latents[0].payload
        model, _, synthesis = self._by_id[first.model_id]
        height, width = first.coded_height, first.coded_width
        planes = synthesis.planes(self._inputs(model, latents))[:, :, :height, :width]
        for frame, latent in zip(planes, latents, strict=True):
            _paint_unknown(frame, latent.picture.known, model.preset.stride)
        synthesis_ms = 1e3 * (time.perf_counter() - started)
        return [
            DecodedFrame(
                planes=frame,
                original_size=(latent.payload.original_height, latent.payload.original_width),
                coded_size=(height, width),
                model=model,
                blocks=latent.blocks,
                levels=latent.payload.levels,
                known=latent.picture.known,
                timings_ms={
                    "entropy": latent.entropy_ms,
                    "synthesis": synthesis_ms,
                    "total": latent.entropy_ms + synthesis_ms,
                },
            )
            for latent, frame in zip(latents, planes, strict=True)
        ]

    def _inputs(self, model: Model, latents: Sequence[ReadFrame]) -> list[np.ndarray]:
        """Inputs of a model's synthesis, float32 [B, ., h, w] each."""
        pictures = [latent.picture for latent in latents]
        transform = self._transforms.get(model.id)
        if transform is None:
            mean = model.tensors["latent_mean"].astype(np.float32)
            symbols = np.stack([picture.symbols for picture in pictures])
            return [symbols.astype(np.float32) + mean[:, None, None]]
        y = [transform.coefficients(p.symbols, p.level_of, p.hidden) for p in pictures]
        planes = [np.stack([p.level_of for p in pictures]), np.stack([p.hidden for p in pictures])]
        return [np.stack(y), *(plane[:, None].astype(np.float32) for plane in planes)]


@dataclass(frozen=True, eq=False)
class ReadFrame:
    """A decoded payload and the picture after it.

    blocks: uint8 [h, w], as coded in it.
    """

    payload: Payload
    picture: Picture
    blocks: np.ndarray
    entropy_ms: float


def _paint_unknown(planes: np.ndarray, known: np.ndarray, stride: int) -> None:
    """Paint unknown blocks grey. planes: float32 [3, H, W], known: bool [h, w]."""
    for row, column in np.argwhere(~known):
        rows = slice(row * stride, (row + 1) * stride)
        planes[:, rows, column * stride : (column + 1) * stride] = NEUTRAL / 255
