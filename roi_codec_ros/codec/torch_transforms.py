# SPDX-License-Identifier: Apache-2.0
"""A model's two networks in torch.

torch is imported when a network is built, not with this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.common.devices import settle, torch_device
from roi_codec_ros.common.errors import ModelFileError, RoiCodecError, reason_of

if TYPE_CHECKING:
    from torch import nn

_LONGEST_REASON = 500  # torch lists every missing weight


class Transform:
    """One of a model's two networks on its device.

    half: 16-bit weights and activations, bfloat16 on a CPU and float16 on a GPU.
    """

    network: nn.Module

    def __init__(
        self, model: Model, part: str, device: str, threads: int | None, *, half: bool = False
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise RoiCodecError(
                "torch, which runs model files, is not installed: pip install torch, "
                "or encode with an exported model (backend onnxruntime or openvino)"
            ) from error

        from roi_codec_ros.codec.networks import build_transforms

        if threads:
            torch.set_num_threads(threads)
        self._device = torch_device(device)
        self.dtype = torch.float32
        if half:
            self.dtype = torch.float16 if self._device.type == "cuda" else torch.bfloat16
        # On the meta device nothing is allocated, so sizes that do not match the weights cost
        # nothing.
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
            raise ModelFileError(
                f"expected weights of preset {model.preset.name} in model {model.name}; "
                f"found: {reason_of(error, most=_LONGEST_REASON)}"
            ) from error
        self.network = settle(networks[part].to(self.dtype), self._device)

    def tensor(self, values: np.ndarray):  # type: ignore[no-untyped-def]  # torch is not imported
        """``values`` on the device."""
        import torch

        return torch.from_numpy(values).to(self._device)


class TorchBackend:
    """The analysis transform in torch, from a model file."""

    def __init__(
        self,
        model: Model,
        *,
        device: str = "cpu",
        threads: int | None = None,
        half: bool = False,
    ) -> None:
        self.name = "torch-half" if half else "torch"
        self.model = model
        self._analysis = Transform(model, "analysis", device, threads, half=half)
        self._mean = self._analysis.tensor(model.tensors["latent_mean"])[None, :, None, None]

    def symbols(self, image: np.ndarray) -> np.ndarray:
        """As `backends.Backend.symbols`."""
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
            x = x.to(self._analysis.dtype, memory_format=torch.channels_last)
            y = self._analysis.network(x).float()
            y = (y - self._mean).round_().clamp_(-32768, 32767).to(torch.int16)
        return y[0].contiguous().cpu().numpy()
