# SPDX-License-Identifier: Apache-2.0
"""Training crops from annotated photographs: random scale and place, boxes carried along."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roi_codec_ros.codec.errors import RoiCodecError
from roi_codec_ros.perception.annotations import Annotation


@dataclass(frozen=True)
class Batch:
    """One step's crops.

    Attributes:
        images: uint8 [B, 3, S, S], RGB.
        persons: one float32 [P, 4] an image, ``x1 y1 x2 y2`` in pixels of the crop.
        heads: likewise [H, 4].
        unknown: likewise [U, 4], where a head may be that nobody annotated.
    """

    images: Tensor
    persons: list[Tensor]
    heads: list[Tensor]
    unknown: list[Tensor]


@dataclass(frozen=True)
class CropSettings:
    """How crops are drawn.

    Attributes:
        size: side of a crop in pixels.
        min_zoom, max_zoom: pixels of the crop per pixel of the photograph, drawn log-uniformly.
        centred_on_head: share of crops that a randomly chosen head (or person) lies in.
        jitter: greatest relative change of brightness, contrast and of each colour; 0 leaves the
            light as it is.
        gamma: greatest exponent that brightens or darkens a crop; 1 leaves it.
        grey, jpeg: share of crops without colour, and of those with JPEG's artefacts.
    """

    size: int = 256
    min_zoom: float = 0.4
    max_zoom: float = 2.5
    centred_on_head: float = 0.75
    jitter: float = 0.15
    gamma: float = 1.6
    grey: float = 0.05
    jpeg: float = 0.2


class CropSampler:
    """Draws crops from photographs kept decoded in memory (uint8, some 0.9 MB each at 640×480)."""

    def __init__(self, annotations: Sequence[Annotation], settings: CropSettings) -> None:
        if not annotations:
            raise RoiCodecError("expected at least one annotated photograph to train on, found 0")
        self._annotations = list(annotations)
        self._settings = settings
        self._shares = source_shares([annotation.source for annotation in annotations])
        self._pixels: list[np.ndarray | None] = [None] * len(self._annotations)

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """``size`` crops, drawn with ``rng``."""
        crops = [
            self._crop(int(index), rng)
            for index in rng.choice(len(self._annotations), size=size, p=self._shares)
        ]
        images = torch.from_numpy(np.stack([crop[0] for crop in crops]).transpose(0, 3, 1, 2))
        return Batch(
            images=images.contiguous(),
            persons=[crop[1] for crop in crops],
            heads=[crop[2] for crop in crops],
            unknown=[crop[3] for crop in crops],
        )

    def _photograph(self, index: int) -> np.ndarray:
        pixels = self._pixels[index]
        if pixels is None:
            path = self._annotations[index].image_path
            decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if decoded is None:
                raise RoiCodecError(f"expected a readable photograph at {path}, found none")
            pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
            self._pixels[index] = pixels
        return pixels

    def _crop(
        self, index: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
        settings, annotation = self._settings, self._annotations[index]
        photograph = self._photograph(index)
        height, width = photograph.shape[:2]
        zoom = float(np.exp(rng.uniform(np.log(settings.min_zoom), np.log(settings.max_zoom))))
        window = min(settings.size / zoom, height, width)
        zoom = settings.size / window
        left, top = self._place(annotation, window, height, width, rng)
        columns = slice(int(left), int(left) + int(window))
        rows = slice(int(top), int(top) + int(window))
        interpolation = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        crop = cv2.resize(
            photograph[rows, columns], (settings.size, settings.size), interpolation=interpolation
        )
        zoom = settings.size / int(window)
        mirrored = bool(rng.random() < 0.5)
        if mirrored:
            crop = crop[:, ::-1]
        crop = _relight(crop, settings, rng)

        def carried(boxes: np.ndarray) -> Tensor:
            moved = (boxes.reshape(-1, 4) - [columns.start, rows.start] * 2) * zoom
            if mirrored:
                moved = moved[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [settings.size, 0] * 2
            visible = (
                (moved[:, 2] > 0)
                & (moved[:, 3] > 0)
                & (moved[:, 0] < settings.size)
                & (moved[:, 1] < settings.size)
            )
            return torch.from_numpy(moved[visible].astype(np.float32))

        return (
            crop,
            carried(annotation.persons),
            carried(annotation.heads),
            carried(unannotated_heads(annotation)),
        )

    def _place(
        self,
        annotation: Annotation,
        window: float,
        height: int,
        width: int,
        rng: np.random.Generator,
    ) -> tuple[float, float]:
        """Left and top edge of a window of that size inside the photograph."""
        room_x, room_y = width - window, height - window
        targets = annotation.heads if len(annotation.heads) else annotation.persons
        if len(targets) and rng.random() < self._settings.centred_on_head:
            x1, y1, x2, y2 = targets[rng.integers(len(targets))]
            centre = np.array([x1 + x2, y1 + y2]) / 2
            left, top = centre - window * rng.uniform(0.2, 0.8, 2)
            return float(np.clip(left, 0, room_x)), float(np.clip(top, 0, room_y))
        return float(rng.uniform(0, room_x)), float(rng.uniform(0, room_y))


def _relight(crop: np.ndarray, settings: CropSettings, rng: np.random.Generator) -> np.ndarray:
    """The crop [S, S, 3] in another light, from another camera."""
    if rng.random() < settings.grey:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    contrast, offset = rng.uniform(-1, 1, 2) * settings.jitter
    colours = 1 + rng.uniform(-1, 1, 3) * settings.jitter / 2
    exponent = np.exp(rng.uniform(-1, 1) * np.log(settings.gamma))
    levels = 255 * (np.arange(256) / 255) ** exponent
    lut = ((levels - 128) * (1 + contrast) + 128 * (1 + offset))[:, None] * colours
    crop = cv2.LUT(np.ascontiguousarray(crop), lut.clip(0, 255).round().astype(np.uint8)[None])
    if rng.random() < settings.jpeg:
        quality = int(rng.integers(30, 90))
        _, coded = cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, quality])
        crop = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return np.asarray(crop)


def source_shares(sources: Sequence[str]) -> NDArray[np.float64]:
    """How often each photograph is drawn, float64 [N], sum 1.

    A source counts as the square root of its number of photographs, so that a small one is not
    drowned by a large one, and those of one source count alike.
    """
    _, indices, counts = np.unique(sources, return_inverse=True, return_counts=True)
    shares = (counts**-0.5)[indices]
    return np.asarray(shares / shares.sum())


def unannotated_heads(annotation: Annotation) -> np.ndarray:
    """Where a head should be but none is annotated: float32 [U, 4], upper 30 % of person boxes.

    A data set without a head box does not say that there is no head: such places are left out of
    the loss, so that no network is taught to reproduce a face there.
    """
    persons, heads = annotation.persons.reshape(-1, 4), annotation.heads.reshape(-1, 4)
    unknown = []
    for x1, y1, x2, y2 in persons:
        centre_x, centre_y = (heads[:, 0] + heads[:, 2]) / 2, (heads[:, 1] + heads[:, 3]) / 2
        own = (centre_x > x1) & (centre_x < x2) & (centre_y > y1) & (centre_y < y1 + (y2 - y1) / 2)
        if not own.any():
            unknown.append((x1, y1, x2, y1 + 0.3 * (y2 - y1)))
    return np.array(unknown, dtype=np.float32).reshape(-1, 4)


class Prefetcher:
    """Batches made by threads ahead of use, in an order that depends on the seed alone.

    Batch number ``n`` is drawn from its own generator ``(seed, n)``, so that a run which is
    continued at step ``n`` sees what an uninterrupted one would have seen.
    """

    def __init__(
        self, sampler: CropSampler, batch_size: int, seed: int, first: int = 0, depth: int = 4
    ) -> None:
        self._sampler, self._batch_size, self._seed = sampler, batch_size, seed
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(first,), daemon=True)
        self._thread.start()

    def _work(self, number: int) -> None:
        cv2.setNumThreads(1)
        while not self._stop.is_set():
            try:
                item: Batch | BaseException = self._sampler.batch(
                    self._batch_size, np.random.default_rng((self._seed, number))
                )
            except Exception as error:  # noqa: BLE001  # handed to the consumer, which raises it
                item = error
            number += 1
            while not self._stop.is_set():
                try:
                    self._ready.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue

    def __iter__(self) -> Iterator[Batch]:
        while True:
            item = self._ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """End the worker thread."""
        self._stop.set()
        self._thread.join()
