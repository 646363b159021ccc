# SPDX-License-Identifier: Apache-2.0
"""NanoDet-g as a teacher: finds persons in photographs without annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.lab.training.region_network import PYRAMID, RegionNetwork, read_tensorflow_js
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.regions.graph import LEAK

CLASSES, BINS = 80, 11
PERSON_CLASS = 0
STRIDES = (8, 16, 32)
SAME_PERSON_IOU = 0.6
# Of the published file: the layers of the heads, each with the name of its bias.
_HEADS = ((28, 60, 29, 62), (30, 66, 31, 68), (32, 70, 33, 72))


class NanoDet:
    """Finds persons; a `perception.detections.DetectsPersons`."""

    def __init__(self, folder: Path) -> None:
        """folder: of its TensorFlow.js files. Raises RoiCodecError for others."""
        self._trunk = RegionNetwork()
        self._trunk.start_from_nanodet(folder)
        weights = read_tensorflow_js(folder / "nanodet.json", folder / "nanodet.bin")
        self._heads: list[nn.Sequential] = []
        try:
            for first, first_bias, last, last_bias in _HEADS:
                before = nn.Conv2d(PYRAMID, PYRAMID, 3, padding=1)
                after = nn.Conv2d(PYRAMID, CLASSES + 4 * BINS, 1)
                for layer, index, bias in ((before, first, first_bias), (after, last, last_bias)):
                    kernel = weights[f"PartitionedCall/split_{index}"].transpose(3, 2, 0, 1)
                    layer.weight.data.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
                    assert layer.bias is not None
                    layer.bias.data.copy_(torch.from_numpy(weights[f"unknown_{bias}"]))
                head = nn.Sequential(before, nn.LeakyReLU(LEAK), after)
                self._heads.append(head)
        except (KeyError, RuntimeError) as error:
            raise RoiCodecError(
                f"expected NanoDet in {folder}, found: {reason_of(error)}"
            ) from error
        for network in (self._trunk, *self._heads):
            network.eval().to(memory_format=torch.channels_last)

    def detect(self, image: NDArray[np.uint8], *, confidence: float = 0.05) -> Detections:
        """Persons in an RGB image [H, W, 3], in its pixels."""
        from torchvision.ops import nms

        height, width = image.shape[:2]
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        x = functional.pad(x, (0, -width % 32, 0, -height % 32), value=114.0)
        boxes, scores = [], []
        with torch.inference_mode():
            for head, scale, stride in zip(self._heads, self._scales(x), STRIDES, strict=True):
                found = head(scale)[0]
                score = found[PERSON_CLASS].sigmoid()
                rows, columns = torch.nonzero(score >= confidence, as_tuple=True)
                sides = found[CLASSES:].reshape(4, BINS, *score.shape)[:, :, rows, columns]
                bins = torch.arange(BINS, dtype=torch.float32)[:, None]
                sides = (sides.softmax(dim=1) * bins).sum(dim=1) * stride
                centre = torch.stack([columns, rows]) * stride + stride / 2
                boxes.append(torch.cat([centre - sides[:2], centre + sides[2:]]).T)
                scores.append(score[rows, columns])
            every, sure = torch.cat(boxes), torch.cat(scores)
            kept = nms(every, sure, SAME_PERSON_IOU)
        return Detections.from_arrays(every[kept], sure[kept], (height, width)).clip()

    def _scales(self, x: Tensor) -> list[Tensor]:
        """The pyramid down and up again."""

        def resized(y: Tensor, like: Tensor) -> Tensor:
            return functional.interpolate(y, size=like.shape[2:], mode="bilinear")

        fine, middle, coarse = self._trunk.pyramid(x.contiguous(memory_format=torch.channels_last))
        middle = middle + resized(fine, middle)
        return [fine, middle, coarse + resized(middle, coarse)]
