# SPDX-License-Identifier: Apache-2.0
"""Training crops from annotated photographs: random scale and place, boxes carried along."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import PhotographError
from roi_codec_ros.lab.datasets.annotations import HEAD, PERSON, Annotation
from roi_codec_ros.lab.training.photograph_store import Photographs
from roi_codec_ros.lab.training.settings import number, positive


@dataclass(frozen=True)
class Batch:
    """One step's crops.

    Attributes:
        images: uint8 [B, 3, S, S], RGB.
        persons: one float32 [P, 4] an image, ``x1 y1 x2 y2`` in pixels of the crop.
        heads: likewise [H, 4].
        unknown: likewise [U, 4], where a head may be that nobody annotated.
        regions: the same of every further class, by its name.
    """

    images: Tensor
    persons: list[Tensor]
    heads: list[Tensor]
    unknown: list[Tensor]
    regions: dict[str, list[Tensor]] = field(default_factory=dict)

    def boxes(self, name: str) -> list[Tensor]:
        """The boxes of one class, a tensor [N, 4] an image."""
        if name == PERSON:
            return self.persons
        if name == HEAD:
            return self.heads
        return self.regions.get(name) or [torch.zeros(0, 4)] * len(self.images)


@dataclass(frozen=True)
class CropSettings:
    """How crops are drawn.

    Attributes:
        size: side of a crop in pixels.
        squash_to: the side of the square that a whole photograph is squashed to, as the paper
            does, before a crop is cut from it, the whole where size is the same; 0: none.
        min_zoom, max_zoom: pixels of the crop per pixel of the photograph, or of that square,
            drawn log-uniformly.
        centred_on_head: share of crops that a randomly chosen box of the first class that is
            centred on lies in: heads, then persons, unless the sampler is told otherwise.
        mirror: share of crops that are mirrored.
        jitter: greatest relative change of brightness, contrast and of each colour; 0 leaves the
            light as it is.
        gamma: greatest exponent that brightens or darkens a crop; 1 leaves it.
        grey, jpeg: share of crops without colour, and of those with JPEG's artefacts.
    """

    size: int = number(256, 32, 4096)
    squash_to: int = number(0, 0, 4096)
    min_zoom: float = positive(0.4)
    max_zoom: float = positive(2.5)
    centred_on_head: float = number(0.75, 0.0, 1.0)
    mirror: float = number(0.5, 0.0, 1.0)
    jitter: float = number(0.15, 0.0, 1.0)
    gamma: float = number(1.6, 1.0, 10.0)
    grey: float = number(0.05, 0.0, 1.0)
    jpeg: float = number(0.2, 0.0, 1.0)

    def __post_init__(self) -> None:
        if 0 < self.squash_to < self.size:
            raise UsageError(
                f"expected crops.squash_to to be crops.size = {self.size} or more, or 0; "
                f"found {self.squash_to}"
            )


class CropSampler:
    """Draws crops from photographs, which stay decoded in memory where they fit."""

    def __init__(
        self,
        annotations: Sequence[Annotation],
        settings: CropSettings,
        centre_on: Sequence[str] = (HEAD, PERSON),
    ) -> None:
        """centre_on: classes that crops are centred on; of each photograph the first it has."""
        self.photographs = Photographs(annotations)
        self._settings = settings
        self._centre_on = tuple(centre_on)
        self._use(list(annotations))

    def _use(self, annotations: list[Annotation]) -> None:
        if not annotations:
            raise RoiCodecError(self._none_left())
        self.annotations = annotations
        self._shares = source_shares([annotation.source for annotation in annotations])
        self._classes = sorted({n for a in annotations for n in a.regions})

    @property
    def left_out(self) -> list[PhotographError]:
        """Photographs that were found broken so far; none of them is drawn."""
        return list(self.photographs.broken.values())

    def _none_left(self) -> str:
        first = f", the first: {self.left_out[0]}" if self.left_out else ""
        return (
            "expected at least one annotated photograph to train on, found "
            f"{len(self.left_out)} that cannot be used{first}"
        )

    def read_ahead(self) -> None:
        """Decode what fits in memory. Raises RoiCodecError where nothing is left to train on."""
        self.photographs.read_ahead()
        broken = self.photographs.broken
        if broken:
            self._use([a for a in self.annotations if a.image_path not in broken])

    def __len__(self) -> int:
        return len(self.annotations)

    def batch(self, size: int, rng: np.random.Generator) -> Batch:
        """``size`` crops, drawn with ``rng``."""
        crops = [
            self._crop(*self._readable(int(index), rng), rng)
            for index in rng.choice(len(self.annotations), size=size, p=self._shares)
        ]
        images = torch.from_numpy(np.stack([crop[0] for crop in crops]).transpose(0, 3, 1, 2))
        return Batch(
            images=images.contiguous(),
            persons=[crop[1][PERSON] for crop in crops],
            heads=[crop[1][HEAD] for crop in crops],
            unknown=[crop[2] for crop in crops],
            regions={name: [crop[1][name] for crop in crops] for name in self._classes},
        )

    def _readable(self, index: int, rng: np.random.Generator) -> tuple[Annotation, ImageArray]:
        """A photograph, or, where it is broken, another one that is drawn in its place.

        Which one depends on the generator alone, so that a resumed run draws the same.
        """
        while True:
            annotation = self.annotations[index]
            try:
                return annotation, self.photographs.read(annotation)
            except PhotographError as error:
                broken = self.photographs.broken
                if all(item.image_path in broken for item in self.annotations):
                    raise RoiCodecError(self._none_left()) from error
            index = int(rng.choice(len(self.annotations), p=self._shares))

    def _crop(
        self, annotation: Annotation, photograph: ImageArray, rng: np.random.Generator
    ) -> tuple[np.ndarray, dict[str, Tensor], Tensor]:
        settings = self._settings
        columns, rows = self._window(annotation, photograph.shape[0], photograph.shape[1], rng)
        cut = photograph[rows, columns]
        zooms = settings.size / cut.shape[1], settings.size / cut.shape[0]
        interpolation = cv2.INTER_AREA if max(zooms) < 1 else cv2.INTER_LINEAR
        crop = cv2.resize(cut, (settings.size, settings.size), interpolation=interpolation)
        mirrored = bool(rng.random() < settings.mirror)
        if mirrored:
            crop = crop[:, ::-1]
        crop = _relight(crop, settings, rng)

        def carried(boxes: np.ndarray) -> Tensor:
            moved = (boxes.reshape(-1, 4) - [columns.start, rows.start] * 2) * (zooms * 2)
            if mirrored:
                moved = moved[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [settings.size, 0] * 2
            visible = (
                (moved[:, 2] > 0)
                & (moved[:, 3] > 0)
                & (moved[:, 0] < settings.size)
                & (moved[:, 1] < settings.size)
            )
            return torch.from_numpy(moved[visible].astype(np.float32))

        boxes = {n: carried(annotation.boxes(n)) for n in (PERSON, HEAD, *self._classes)}
        return crop, boxes, carried(unannotated_heads(annotation))

    def _window(
        self, annotation: Annotation, height: int, width: int, rng: np.random.Generator
    ) -> tuple[slice, slice]:
        """Columns and rows of the photograph that become the crop."""
        settings = self._settings
        low, high = np.log(settings.min_zoom), np.log(settings.max_zoom)
        zoom = float(np.exp(rng.uniform(low, high)))
        if settings.squash_to:
            share = min(settings.size / settings.squash_to / zoom, 1.0)
            window = np.array([width, height]) * share
        else:
            window = np.repeat(min(settings.size / zoom, height, width), 2)
        left, top = self._place(annotation, window, height, width, rng)
        return (
            slice(int(left), int(left) + int(window[0])),
            slice(int(top), int(top) + int(window[1])),
        )

    def _place(
        self,
        annotation: Annotation,
        window: NDArray[np.float64],
        height: int,
        width: int,
        rng: np.random.Generator,
    ) -> tuple[float, float]:
        """Left and top edge of a window, width and height in pixels, inside the photograph."""
        room = np.array([width, height]) - window
        if not room.any():
            return 0.0, 0.0
        every = (annotation.boxes(name) for name in self._centre_on)
        targets = next((boxes for boxes in every if len(boxes)), annotation.boxes(PERSON)[:0])
        if len(targets) and rng.random() < self._settings.centred_on_head:
            x1, y1, x2, y2 = targets[rng.integers(len(targets))]
            centre = np.array([x1 + x2, y1 + y2]) / 2
            left, top = np.clip(centre - window * rng.uniform(0.2, 0.8, 2), 0, room)
            return float(left), float(top)
        return float(rng.uniform(0, room[0])), float(rng.uniform(0, room[1]))


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


def check_classes(wanted: Iterable[str], annotations: Sequence[Annotation]) -> None:
    """Raises RoiCodecError when a class of the configuration has no box in any photograph."""
    found = set().union(*(annotation.classes() for annotation in annotations))
    missing = [name for name in wanted if name not in found]
    if missing:
        raise RoiCodecError(
            f"expected boxes of {', '.join(missing)} in {len(annotations)} photographs, "
            f"found only boxes of {', '.join(sorted(found)) or 'nothing'}"
        )


def check_apart(training: Sequence[Annotation], judging: Sequence[Annotation]) -> None:
    """Raises RoiCodecError when a photograph is in both splits, whatever links lead to it."""
    judged = {annotation.image_path.resolve() for annotation in judging}
    both = [item for item in training if item.image_path.resolve() in judged]
    if both:
        raise RoiCodecError(
            f"expected no photograph in both splits, found {len(both)}, "
            f"the first {both[0].image_id}"
        )
