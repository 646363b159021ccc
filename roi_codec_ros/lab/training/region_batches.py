# SPDX-License-Identifier: Apache-2.0
"""Training crops for regions: every size of head, every light, cut by the border."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.training.region_labels import RegionLabels, block_targets
from roi_codec_ros.lab.training.region_network import STRIDE
from roi_codec_ros.lab.training.settings import number, positive

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class RegionCropSettings:
    """How crops are drawn; ``size`` is of what the network sees, half the frame.

    Attributes:
        min_zoom, max_zoom: pixels of the crop per pixel of the photograph, log-uniformly; frames
            of cameras are seen at a half.
        usual: share of crops whose zoom is near a half.
        centred: share of crops that hold a chosen person or head.
        rotated, relit, tinted, grey, night, blurred, noisy, jpeg: shares of crops that are.
    """

    size: int = number(256, 64, 1024)
    min_zoom: float = positive(0.3)
    max_zoom: float = positive(1.1)
    usual: float = number(0.35, 0.0, 1.0)
    centred: float = number(0.75, 0.0, 1.0)
    rotated: float = number(0.15, 0.0, 1.0)
    relit: float = number(0.6, 0.0, 1.0)
    tinted: float = number(0.4, 0.0, 1.0)
    grey: float = number(0.15, 0.0, 1.0)
    night: float = number(0.1, 0.0, 1.0)
    blurred: float = number(0.2, 0.0, 1.0)
    noisy: float = number(0.3, 0.0, 1.0)
    jpeg: float = number(0.3, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class RegionBatch:
    """images: uint8 [B, S, S, 3], RGB. wanted, prices: float32 [B, 2, S / 8, S / 8]."""

    images: Image
    wanted: NDArray[np.float32]
    prices: NDArray[np.float32]


class RegionBatches:
    """Draws batches; the same generator gives the same batch."""

    def __init__(
        self,
        photographs: Any,
        annotations: Sequence[Annotation],
        labels: Sequence[RegionLabels],
        settings: RegionCropSettings,
    ) -> None:
        """photographs: with ``read(path)`` for an RGB image. labels: one for each annotation."""
        self._photographs, self._settings = photographs, settings
        self._annotations, self._labels = annotations, labels

    def __len__(self) -> int:
        return len(self._annotations)

    def batch(self, size: int, rng: np.random.Generator) -> RegionBatch:
        """``size`` crops, drawn with ``rng``."""
        chosen = rng.integers(len(self._annotations), size=size)
        crops = [self._crop(int(index), rng) for index in chosen]
        return RegionBatch(*(np.stack(values) for values in zip(*crops, strict=True)))

    def _crop(
        self, index: int, rng: np.random.Generator
    ) -> tuple[Image, NDArray[np.float32], NDArray[np.float32]]:
        settings = self._settings
        photograph = self._photographs.read(self._annotations[index])
        labels = self._labels[index]
        size = settings.size
        zoom = math.exp(rng.uniform(math.log(settings.min_zoom), math.log(settings.max_zoom)))
        if rng.random() < settings.usual:
            zoom = rng.uniform(0.42, 0.58)
        matrix = self._placed(photograph.shape, labels, zoom, rng)
        image = _warped(photograph, matrix, size, zoom, rng)
        image = _relit(image, settings, rng)
        grid = size // STRIDE
        wanted, prices = block_targets(labels.moved(matrix), grid, grid, STRIDE)
        return image, wanted, prices

    def _placed(
        self,
        shape: tuple[int, ...],
        labels: RegionLabels,
        zoom: float,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """The affine [2, 3] from the photograph to the crop."""
        settings = self._settings
        size, window = settings.size, settings.size / zoom
        boxes = np.concatenate([labels.persons[:, :4], labels.heads[:, :4]])
        point = None
        if len(boxes) and rng.random() < settings.centred:
            box = boxes[rng.integers(len(boxes))]
            point = rng.uniform(box[:2], np.maximum(box[2:], box[:2] + 1e-3))

        def start(length: int, axis: int) -> float:
            room = length - window
            if room <= 0:
                return float(rng.uniform(room, 0))
            if point is None:
                return float(rng.uniform(0, room))
            return float(np.clip(rng.uniform(point[axis] - window, point[axis]), 0, room))

        left, top = start(shape[1], 0), start(shape[0], 1)
        stretch = math.exp(rng.normal(0.0, 0.08))
        across, down = zoom * stretch, zoom / stretch
        matrix = np.array([[across, 0, -left * across], [0, down, -top * down]])
        if rng.random() < 0.5:
            matrix[0] *= -1
            matrix[0, 2] += size - 1
        if rng.random() < settings.rotated:
            angle = math.radians(rng.normal(0.0, 12.0))
            turn = np.array(
                [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            )
            centre = np.full(2, size / 2)
            matrix = np.c_[turn @ matrix[:, :2], turn @ (matrix[:, 2] - centre) + centre]
        return matrix


def _warped(
    photograph: Image,
    matrix: NDArray[np.float64],
    size: int,
    zoom: float,
    rng: np.random.Generator,
) -> Image:
    """The crop, without the aliases of a plain warp where it shrinks much."""
    shrink = max(1.0, min(4.0, round(2 * 0.75 / zoom) / 2))
    if shrink > 1:
        height, width = photograph.shape[:2]
        smaller = cv2.resize(
            photograph, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA
        )
        matrix = matrix.copy()
        matrix[:, 0] *= width / smaller.shape[1]
        matrix[:, 1] *= height / smaller.shape[0]
        photograph = np.asarray(smaller, np.uint8)
    level = 114 if rng.random() < 0.5 else int(rng.integers(256))
    border = cv2.BORDER_CONSTANT if rng.random() < 0.6 else cv2.BORDER_REPLICATE
    return np.asarray(
        cv2.warpAffine(
            photograph,
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=border,
            borderValue=(level,) * 3,
        ),
        np.uint8,
    )


def _relit(image: Image, settings: RegionCropSettings, rng: np.random.Generator) -> Image:
    """The crop in another light, from another camera."""
    x = image.astype(np.float32)
    if rng.random() < settings.relit:
        x = 255 * (x / 255) ** math.exp(rng.normal(0.0, 0.3))
        x = (x - 128) * math.exp(rng.normal(0.0, 0.2)) + 128 + rng.normal(0.0, 12.0)
    if rng.random() < settings.tinted:
        x = x * np.exp(rng.normal(0.0, 0.12, 3)).astype(np.float32)
    if rng.random() < settings.grey:
        x = np.repeat(x.mean(axis=2, keepdims=True), 3, axis=2)
    if rng.random() < settings.night:
        x = x * np.float32(rng.uniform(0.08, 0.4))
    if rng.random() < settings.blurred:
        x = np.asarray(cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.4)), np.float32)
    if rng.random() < settings.noisy:
        x = x + rng.normal(0.0, rng.uniform(2.0, 14.0), x.shape).astype(np.float32)
    relit = np.clip(x, 0, 255).astype(np.uint8)
    if rng.random() < settings.jpeg:
        quality = int(rng.integers(25, 85))
        _, coded = cv2.imencode(".jpg", relit, [cv2.IMWRITE_JPEG_QUALITY, quality])
        relit = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(relit, np.uint8)
