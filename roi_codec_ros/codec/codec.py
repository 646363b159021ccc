# SPDX-License-Identifier: Apache-2.0
"""Frames to payloads and back: what the nodes and the command line call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.codec.backends import Backend, open_backend
from roi_codec_ros.codec.bitstream import DEFAULT_MAX_PIXELS, Payload
from roi_codec_ros.codec.entropy import FIRST_CLASS, SKIPPED
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.torch_transforms import TorchBackend, Transform
from roi_codec_ros.common.errors import BitstreamError, ModelFileError, RoiCodecError

MAX_SIDE_PX = 65535


@dataclass(frozen=True)
class EncodedFrame:
    """A coded frame.

    Attributes:
        data: the payload (docs/bitstream.md).
        original_size, coded_size: (height, width) before and after resizing.
        blocks: uint8 [h, w]: what each block of stride × stride pixels was coded as: SKIPPED,
            HIDDEN or FIRST_CLASS + class.
        levels: the level of each class.
        timings_ms: ``resize``, ``analysis`` (from pixels to symbols), ``entropy``, ``packing`` and
            ``total``.
    """

    data: bytes
    original_size: tuple[int, int]
    coded_size: tuple[int, int]
    blocks: np.ndarray
    levels: tuple[int, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)

    @property
    def bits_per_pixel(self) -> float:
        """Bits of the whole payload per pixel of the coded frame."""
        return 8.0 * len(self.data) / (self.coded_size[0] * self.coded_size[1])


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded, anonymized frame.

    Attributes:
        image: uint8 [H, W, 3], RGB, of the coded size.
        original_size, coded_size: (height, width) before and after the encoder's resizing.
        model: the model that the payload was made with.
        blocks: uint8 [h, w]: what each block was coded as, as in `EncodedFrame`.
        levels: the level of each class.
        timings_ms: ``entropy``, ``synthesis`` (of all frames that went through the network with
            this one) and ``total``, their sum.
    """

    image: np.ndarray
    original_size: tuple[int, int]
    coded_size: tuple[int, int]
    model: Model
    blocks: np.ndarray
    levels: tuple[int, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)


class Encoder:
    """Turns camera frames into payloads with one model; one frame at a time."""

    def __init__(
        self,
        model: Model | Backend,
        *,
        device: str = "cpu",
        threads: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``model``: one to run with torch, or a backend that is open already, which ``device``
        and ``threads`` are not for. ``threads``: CPU threads, None leaves torch's own choice.
        ``clock``: seconds, for the timings.
        """
        self._clock = clock
        self._resized: np.ndarray | None = None  # written over by each frame
        if isinstance(model, Model):
            self.backend: Backend = TorchBackend(model, device=device, threads=threads)
        else:
            self.backend = model
        self.model = self.backend.model
        self._coder = RansCoder(self.model.tables)

    def encode(self, image: np.ndarray, *, max_width: int | None = None) -> EncodedFrame:
        """Code one frame.

        Args:
            image: uint8 [H, W, 3], RGB, sides of 1 to 65535 pixels.
            max_width: wider frames are scaled down to it, their aspect kept. Presets with a coded
                size of their own (the paper's) squash every frame to that instead.

        Raises:
            RoiCodecError: ``image`` is of another shape, type or size.
        """
        started = self._clock()
        _check_image(image)
        original = (image.shape[0], image.shape[1])
        coded = self.coded_size(original, max_width)
        if coded != original:
            shrinks = coded[0] * coded[1] < original[0] * original[1]
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            if self._resized is None or self._resized.shape[:2] != coded:
                self._resized = np.empty((*coded, 3), np.uint8)
            image = cv2.resize(image, coded[::-1], self._resized, interpolation=interpolation)
        resized = self._clock()
        symbols = self.symbols(image)
        analysed = self._clock()
        blocks = np.full(symbols.shape[1:], FIRST_CLASS, np.uint8)
        levels = (0,) * self.model.tables.classes
        block_map, body = self._coder.encode(symbols, blocks, levels)
        entropy_coded = self._clock()
        data = Payload(self.model.id, *original, *coded, body, block_map, levels).to_bytes()
        done = self._clock()
        return EncodedFrame(
            data=data,
            original_size=original,
            coded_size=coded,
            blocks=blocks,
            levels=levels,
            timings_ms={
                "resize": 1e3 * (resized - started),
                "analysis": 1e3 * (analysed - resized),
                "entropy": 1e3 * (entropy_coded - analysed),
                "packing": 1e3 * (done - entropy_coded),
                "total": 1e3 * (done - started),
            },
        )

    def coded_size(self, original: tuple[int, int], max_width: int | None) -> tuple[int, int]:
        """(height, width) that a frame of ``original`` (height, width) is coded at."""
        if self.model.preset.coded_size is not None:
            return self.model.preset.coded_size
        height, width = original
        if max_width is None or max_width <= 0 or width <= max_width:
            return original
        return max(1, round(height * max_width / width)), max_width

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """Quantised latent of a frame of coded size: int16 [C, ⌈H / stride⌉, ⌈W / stride⌉]."""
        return self.backend.symbols(image)


def load_encoder(
    model: str | Path, *, backend: str = "torch", device: str = "cpu", threads: int | None = None
) -> Encoder:
    """An encoder for a model by name or path; arguments and errors as `backends.open_backend`."""
    return Encoder(open_backend(backend, model, device=device, threads=threads))


class Decoder:
    """Turns payloads of one or several models into anonymized images; trusts nothing."""

    def __init__(
        self,
        models: Model | Sequence[Model],
        *,
        device: str = "cpu",
        threads: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        models = [models] if isinstance(models, Model) else list(models)
        if not models:
            raise ModelFileError("expected at least one model to decode with, found none")
        self.models = models
        self._max_pixels = max_pixels
        self._by_id = {
            model.id: (
                model,
                RansCoder(model.tables),
                Transform(model, "synthesis", device, threads),
            )
            for model in models
        }

    def decode(self, data: bytes) -> DecodedFrame:
        """Reconstruct one frame. Raises BitstreamError for anything but a good payload of a known
        model; its sentence says what was expected and what was found."""
        (outcome,) = self.decode_batch([data])
        if isinstance(outcome, BitstreamError):
            raise outcome
        return outcome

    def decode_batch(self, payloads: Sequence[bytes]) -> list[DecodedFrame | BitstreamError]:
        """Reconstruct several frames; those of one model and size go through the network together.

        In the order of ``payloads``; what `decode` would have raised for one stands in its place.
        A batch holds no more pixels than one frame may (``max_pixels``), so that many large frames
        take no more memory than a single one.
        """
        outcomes: list[DecodedFrame | BitstreamError | None] = [None] * len(payloads)
        alike: dict[tuple[bytes, int, int], list[tuple[int, _Latent]]] = {}
        for index, data in enumerate(payloads):
            try:
                latent = self._read(data)
            except BitstreamError as error:
                outcomes[index] = error
                continue
            payload = latent.payload
            key = (payload.model_id, payload.coded_height, payload.coded_width)
            alike.setdefault(key, []).append((index, latent))
        for (_, height, width), group in alike.items():
            most = max(1, self._max_pixels // (height * width))
            for start in range(0, len(group), most):
                indices, latents = zip(*group[start : start + most], strict=True)
                for index, frame in zip(indices, self._synthesise(latents), strict=True):
                    outcomes[index] = frame
        return [outcome for outcome in outcomes if outcome is not None]

    def _read(self, data: bytes) -> _Latent:
        """The symbols of a payload. Raises BitstreamError."""
        started = time.perf_counter()
        payload = Payload.from_bytes(data, max_pixels=self._max_pixels)
        if payload.model_id not in self._by_id:
            known = ", ".join(f"{m.name} ({m.id.hex()})" for m in self.models)
            raise BitstreamError(
                f"expected a payload of model {known}; found one of model {payload.model_id.hex()}"
            )
        model, coder, _ = self._by_id[payload.model_id]
        height, width = payload.coded_height, payload.coded_width
        if model.preset.coded_size not in (None, (height, width)):
            raise BitstreamError(
                f"expected {model.name} to be coded at {model.preset.coded_size}; "
                f"found {(height, width)}"
            )
        stride = model.preset.stride
        symbols, blocks = coder.decode(
            payload.block_map,
            payload.body,
            -(-height // stride),
            -(-width // stride),
            payload.levels,
        )
        skipped = int((blocks == SKIPPED).sum())
        if skipped:
            raise BitstreamError(
                f"expected a payload that decodes alone; found {skipped} of {blocks.size} blocks "
                "skipped"
            )
        return _Latent(payload, symbols, blocks, 1e3 * (time.perf_counter() - started))

    def _synthesise(self, latents: Sequence[_Latent]) -> list[DecodedFrame]:
        """Frames of latents that share model and coded size."""
        import torch

        started = time.perf_counter()
        first = latents[0].payload
        model, _, synthesis = self._by_id[first.model_id]
        height, width = first.coded_height, first.coded_width
        with torch.inference_mode():
            y = synthesis.tensor(np.stack([latent.symbols for latent in latents])).float()
            y += synthesis.tensor(model.tensors["latent_mean"])[None, :, None, None]
            x = synthesis.network(y.contiguous(memory_format=torch.channels_last))
            x = x[:, :, :height, :width].permute(0, 2, 3, 1)
            images = (x * 255.0).round_().clamp_(0, 255).nan_to_num_(0).to(torch.uint8)
        pixels = images.contiguous().cpu().numpy()
        synthesis_ms = 1e3 * (time.perf_counter() - started)
        return [
            DecodedFrame(
                image=image,
                original_size=(latent.payload.original_height, latent.payload.original_width),
                coded_size=(height, width),
                model=model,
                blocks=latent.blocks,
                levels=latent.payload.levels,
                timings_ms={
                    "entropy": latent.entropy_ms,
                    "synthesis": synthesis_ms,
                    "total": latent.entropy_ms + synthesis_ms,
                },
            )
            for latent, image in zip(latents, pixels, strict=True)
        ]


@dataclass(frozen=True)
class _Latent:
    """A payload that was read. symbols: int16 [C, h, w]; blocks: uint8 [h, w]."""

    payload: Payload
    symbols: np.ndarray
    blocks: np.ndarray
    entropy_ms: float


def _check_image(image: np.ndarray) -> None:
    good = (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and 0 < image.shape[0] <= MAX_SIDE_PX
        and 0 < image.shape[1] <= MAX_SIDE_PX
    )
    if not good:
        found = (
            f"{image.dtype} {list(image.shape)}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise RoiCodecError(
            f"expected a uint8 image [H, W, 3] with sides of 1 to {MAX_SIDE_PX}; found {found}"
        )
