# SPDX-License-Identifier: Apache-2.0
"""The network that says of each block whether it is part of a head, or of a person.

Its trunk is that of NanoDet-g (RangiLyu, Apache-2.0), whose weights it starts from: it knows
persons from COCO. It sees the frame at half its size, so that its finest scale, stride 8, is a
block of 16 pixels of the frame. `regions.graph` builds the same network as an ONNX graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.regions.graph import DEVIATION, GREY, LEAK, MEAN

STRIDE = 8  # of the finest scale, in pixels of the halved frame
PYRAMID = 128  # channels of the pyramid


def _layer(channels_in: int, channels_out: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, stride, size // 2)


def _active(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, LEAK)


class _Stage(nn.Module):
    """Convolutions whose halves are kept side by side; twice ``channels`` come out."""

    def __init__(self, channels_in: int, channels: int, pairs: int, stride: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = _layer(channels_in, channels, stride=stride)
        self.pairs = nn.ModuleList(
            nn.ModuleList([_layer(channels, half), _layer(half, half)]) for _ in range(pairs)
        )
        self.last = _layer(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        first = _active(self.first(x))
        y = first
        for pair in self.pairs:
            first_half, second_half = pair.children()
            inner = _active(first_half(y))
            y = torch.cat([_active(second_half(inner)), inner], dim=1)
        return torch.cat([_active(self.last(y)), first], dim=1)


class RegionNetwork(nn.Module):
    """Logits of heads and persons, [B, 2, h / 8, w / 8], of halved frames.

    Frames: float [B, 3, h, w], RGB, 0 to 255, sides multiples of 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2)  # of frames with a grey border
        self.stages = nn.ModuleList(
            [
                _Stage(32, 32, 1, 1),
                _Stage(64, 64, 2, 2),
                _Stage(128, 128, 2, 2),
                _Stage(256, 256, 3, 2),
            ]
        )
        self.laterals = nn.ModuleList(_layer(c, PYRAMID, size=1) for c in (128, 256, 512))
        self.neck = _layer(PYRAMID, 64)
        self.output = _layer(64, 2, size=1)
        with torch.no_grad():
            self.output.weight.mul_(0.3)
            assert self.output.bias is not None
            self.output.bias.copy_(torch.tensor([-2.5, -1.5]))  # most blocks are neither
        shape = (1, 3, 1, 1)
        self.register_buffer("_mean", torch.tensor(MEAN).reshape(shape), persistent=False)
        self.register_buffer(
            "_scale", 1 / torch.tensor(DEVIATION).reshape(shape), persistent=False
        )

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Those that start from published weights."""
        modules = (self.stem, self.stages, self.laterals)
        return [parameter for module in modules for parameter in module.parameters()]

    def new_parameters(self) -> list[nn.Parameter]:
        """Those that start at random."""
        return [*self.neck.parameters(), *self.output.parameters()]

    def forward(self, frames: Tensor) -> Tensor:
        """Logits, float [B, 2, h / 8, w / 8], of frames as the class describes them."""
        finest = self.pyramid(frames)[0]
        return torch.as_tensor(self.output(_active(self.neck(finest))))

    def pyramid(self, frames: Tensor) -> list[Tensor]:
        """Features at strides 8, 16 and 32, each [B, 128, h, w]."""
        bordered = functional.pad(frames, (1, 1, 1, 1), value=GREY)
        x = (bordered[:, [2, 1, 0]] - self._mean) * self._scale  # type: ignore[operator]
        x = functional.max_pool2d(_active(self.stem(x)), 3, 2, 1)
        scales = []
        for stage in self.stages:
            x = stage(x)
            scales.append(x)
        levels = [layer(s) for layer, s in zip(self.laterals, scales[1:], strict=True)]
        for index in (1, 0):
            above = levels[index + 1]
            size = levels[index].shape[2:]
            levels[index] = levels[index] + functional.interpolate(above, size, mode="bilinear")
        return levels

    def start_from_nanodet(self, folder: Path) -> None:
        """Take the trunk's weights of NanoDet-g's TensorFlow.js files in a folder.

        Raises RoiCodecError for files of another network.
        """
        weights = read_tensorflow_js(folder / "nanodet.json", folder / "nanodet.bin")
        layers = [self.stem]
        for stage in self.stages:
            layers += [m for m in stage.modules() if isinstance(m, nn.Conv2d)]
        layers += [m for m in self.laterals if isinstance(m, nn.Conv2d)]
        with torch.no_grad():
            for index, layer in enumerate(layers):
                suffix = f"_{index}" if index else ""
                name = f"PartitionedCall/split{suffix}"
                kernel, bias = weights.get(name), weights.get(f"unknown_{2 * index}")
                if kernel is None or bias is None or kernel.ndim != 4:
                    raise RoiCodecError(f"expected NanoDet's {name} in {folder}, found none")
                ours = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
                if ours.shape != layer.weight.shape:
                    raise RoiCodecError(
                        f"expected NanoDet's {name} in {folder} to be "
                        f"{list(layer.weight.shape)}, found {list(ours.shape)}"
                    )
                layer.weight.copy_(ours)
                assert layer.bias is not None
                layer.bias.copy_(torch.from_numpy(bias))

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights by the names that `regions.graph.build_graph` takes."""
        state = self.state_dict()
        return {f"map.{name}": value.detach().numpy() for name, value in state.items()}


def read_tensorflow_js(topology: Path, weights: Path) -> Mapping[str, np.ndarray]:
    """The weights of a TensorFlow.js graph model by name, float32.

    Raises RoiCodecError for files that are none.
    """
    try:
        manifest = json.loads(topology.read_text(encoding="utf-8"))["weightsManifest"]
        content = weights.read_bytes()
        found: dict[str, np.ndarray] = {}
        offset = 0
        for item in (entry for group in manifest for entry in group["weights"]):
            quantisation = item.get("quantization", {})
            kind = np.dtype(quantisation.get("dtype", item["dtype"]))
            count = int(np.prod(item["shape"], dtype=np.int64))
            array = np.frombuffer(content, kind, count, offset).reshape(item["shape"])
            offset += count * kind.itemsize
            if "scale" in quantisation:
                array = array * quantisation["scale"] + quantisation["min"]
            found[item["name"]] = array.astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RoiCodecError(
            f"expected a TensorFlow.js model at {topology}, found: {reason_of(error)}"
        ) from error
    return found
