# SPDX-License-Identifier: Apache-2.0
"""Frames to payloads and back: what the nodes and the command line call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from roi_codec_ros.codec.bitstream import DEFAULT_MAX_PIXELS, Payload
from roi_codec_ros.codec.devices import settle, torch_device
from roi_codec_ros.codec.errors import BitstreamError, ModelFileError, RoiCodecError
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.rans import RansCoder

if TYPE_CHECKING:
    from torch import nn

MAX_SIDE_PX = 65535


@dataclass(frozen=True)
class EncodedFrame:
    """A coded frame.

    Attributes:
        data: the payload (docs/bitstream.md).
        original_size, coded_size: (height, width) before and after resizing.
        timings_ms: ``resize``, ``analysis``, ``entropy`` and ``total``.
    """

    data: bytes
    original_size: tuple[int, int]
    coded_size: tuple[int, int]
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
        timings_ms: ``entropy``, ``synthesis`` and ``total``.
    """

    image: np.ndarray
    original_size: tuple[int, int]
    coded_size: tuple[int, int]
    model: Model
    timings_ms: dict[str, float] = field(default_factory=dict)


class Encoder:
    """Turns camera frames into payloads with one model."""

    def __init__(self, model: Model, *, device: str = "cpu", threads: int | None = None) -> None:
        """``threads``: CPU threads of the whole process, None leaves torch's own choice."""
        self.model = model
        self._coder = RansCoder(model.tables)
        self._analysis = _Transform(model, "analysis", device, threads)
        self._mean = self._analysis.tensor(model.tensors["latent_mean"])[None, :, None, None]

    def encode(self, image: np.ndarray, *, max_width: int | None = None) -> EncodedFrame:
        """Code one frame.

        Args:
            image: uint8 [H, W, 3], RGB, sides of 1 to 65535 pixels.
            max_width: wider frames are scaled down to it, their aspect kept. Presets with a coded
                size of their own (the paper's) squash every frame to that instead.

        Raises:
            RoiCodecError: ``image`` is of another shape, type or size.
        """
        started = time.perf_counter()
        _check_image(image)
        original = (image.shape[0], image.shape[1])
        coded = self.coded_size(original, max_width)
        if coded != original:
            shrinks = coded[0] * coded[1] < original[0] * original[1]
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(image, coded[::-1], interpolation=interpolation)
        resized = time.perf_counter()
        symbols = self.symbols(image)
        analysed = time.perf_counter()
        body = self._coder.encode(symbols)
        payload = Payload(self.model.id, *original, *coded, body)
        data = payload.to_bytes()
        done = time.perf_counter()
        return EncodedFrame(
            data=data,
            original_size=original,
            coded_size=coded,
            timings_ms={
                "resize": 1e3 * (resized - started),
                "analysis": 1e3 * (analysed - resized),
                "entropy": 1e3 * (done - analysed),
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
        import torch
        from torch.nn import functional

        height, width = image.shape[:2]
        stride = self.model.preset.stride
        with torch.inference_mode():
            x = self._analysis.tensor(np.ascontiguousarray(image))
            x = x.permute(2, 0, 1)[None].float().div_(255.0)
            pad = (0, -width % stride, 0, -height % stride)
            if any(pad):
                x = functional.pad(x, pad, mode="replicate")
            y = self._analysis.network(x.contiguous(memory_format=torch.channels_last))
            y = (y - self._mean).round_().clamp_(-32768, 32767).to(torch.int16)
        return y[0].contiguous().cpu().numpy()


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
                _Transform(model, "synthesis", device, threads),
            )
            for model in models
        }

    def decode(self, data: bytes) -> DecodedFrame:
        """Reconstruct one frame. Raises BitstreamError for anything but a good payload of a known
        model; its sentence says what was expected and what was found."""
        import torch

        started = time.perf_counter()
        payload = Payload.from_bytes(data, max_pixels=self._max_pixels)
        if payload.model_id not in self._by_id:
            known = ", ".join(f"{m.name} ({m.id.hex()})" for m in self.models)
            raise BitstreamError(
                f"expected a payload of model {known}; found one of model {payload.model_id.hex()}"
            )
        model, coder, synthesis = self._by_id[payload.model_id]
        height, width = payload.coded_height, payload.coded_width
        if model.preset.coded_size not in (None, (height, width)):
            raise BitstreamError(
                f"expected {model.name} to be coded at {model.preset.coded_size}; "
                f"found {(height, width)}"
            )
        stride = model.preset.stride
        symbols = coder.decode(payload.body, -(-height // stride), -(-width // stride))
        read = time.perf_counter()
        with torch.inference_mode():
            y = synthesis.tensor(symbols)[None].float()
            y += synthesis.tensor(model.tensors["latent_mean"])[None, :, None, None]
            x = synthesis.network(y.contiguous(memory_format=torch.channels_last))
            x = x[0, :, :height, :width].permute(1, 2, 0)
            image = (x * 255.0).round_().clamp_(0, 255).nan_to_num_(0).to(torch.uint8)
        pixels = image.contiguous().cpu().numpy()
        done = time.perf_counter()
        return DecodedFrame(
            image=pixels,
            original_size=(payload.original_height, payload.original_width),
            coded_size=(height, width),
            model=model,
            timings_ms={
                "entropy": 1e3 * (read - started),
                "synthesis": 1e3 * (done - read),
                "total": 1e3 * (done - started),
            },
        )


class _Transform:
    """One of a model's two networks on its device."""

    network: nn.Module

    def __init__(self, model: Model, part: str, device: str, threads: int | None) -> None:
        import torch

        from roi_codec_ros.codec.networks import build_transforms

        if threads:
            torch.set_num_threads(threads)
        self._device = torch_device(device)
        # The meta device allocates nothing, so sizes that do not fit the weights cost nothing.
        try:
            with torch.device("meta"):
                networks = dict(
                    zip(("analysis", "synthesis"), build_transforms(model.preset), strict=True)
                )
            weights = {
                key: torch.from_numpy(np.array(value)).float()
                for key, value in model.weights(part).items()
            }
            networks[part].load_state_dict(weights, assign=True)
        except (RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ModelFileError(
                f"expected weights of preset {model.preset.name} in model {model.name}; "
                f"found: {reason}"
            ) from error
        self.network = settle(networks[part], self._device)

    def tensor(self, values: np.ndarray):  # type: ignore[no-untyped-def]  # torch is not imported
        """``values`` on the device."""
        import torch

        return torch.from_numpy(values).to(self._device)


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
