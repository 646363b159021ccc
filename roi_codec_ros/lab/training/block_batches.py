# SPDX-License-Identifier: Apache-2.0
"""Training batches for block codecs: crops, what regions say of them, and what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from roi_codec_ros.codec.ladder import LEVELS
from roi_codec_ros.codec.networks import smooth_share
from roi_codec_ros.codec.policy import (
    BACKGROUND,
    NEAR,
    PERSON,
    SMALL_PERSON,
    StepPolicy,
    levels_of,
)
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.training.data import CropSampler
from roi_codec_ros.lab.training.settings import number
from roi_codec_ros.regions import (
    BLOCK_PX,
    RegionFinder,
    paint_over,
    plan_blocks,
)
from roi_codec_ros.regions.blocks import touched_blocks
from roi_codec_ros.regions.plan import HIDDEN_SHARE

SOFT_PX = 7.0  # standard deviation of the blur that coarse blocks are to look like
OVAL_WIDTH = 0.85  # of heads, relative to their boxes
HEAD_CELLS = 3  # colours of the head that stands for all, in each direction


@dataclass(frozen=True)
class StepSettings:
    """The model's steps, and how those of a training crop are drawn around them.

    Attributes:
        background, near, person, small_person: the model's policy, `StepPolicy`.
        quality_spread: standard deviation of a crop's quality, in levels around the model's own.
        class_spread: that of each class by itself.
        missed: share of crops whose persons are partly coded as background, and background as
            persons, as where regions err.
        annotated_heads: hide annotated heads too, which regions may have missed.
        in_vain: share of crops in which more is hidden than heads: regions do that more often in
            photographs that they were not trained on.
        in_vain_beside, in_vain_persons: there, the greatest share of the blocks around hidden
            heads, and of those of persons, that are hidden.
    """

    background: float = number(StepPolicy.levels[BACKGROUND], 0.0, LEVELS - 1)
    near: float = number(StepPolicy.levels[NEAR], 0.0, LEVELS - 1)
    person: float = number(StepPolicy.levels[PERSON], 0.0, LEVELS - 1)
    small_person: float = number(StepPolicy.levels[SMALL_PERSON], 0.0, LEVELS - 1)
    quality_spread: float = number(3.0, 0.0, 16.0)
    class_spread: float = number(0.8, 0.0, 16.0)
    missed: float = number(0.3, 0.0, 1.0)
    annotated_heads: bool = True
    in_vain: float = number(0.6, 0.0, 1.0)
    in_vain_beside: float = number(0.25, 0.0, 1.0)
    in_vain_persons: float = number(0.05, 0.0, 1.0)

    def policy(self) -> StepPolicy:
        """What the model file will say of steps."""
        return StepPolicy((self.background, self.near, self.person, self.small_person))


@dataclass(frozen=True, eq=False)
class BlockBatch:
    """One step's crops.

    Attributes:
        images: uint8 [B, S, S, 3], RGB, as photographed.
        wanted: uint8 [B, S, S, 3], heads replaced by the constant head, the rest of what is
            hidden painted over.
        levels: uint8 [B, h, w]. hidden: bool [B, h, w].
        persons: float32 [B, h, w], share of each block that lies in persons' boxes.
        heads: float32 [B, h, w], the same of heads' boxes.
    """

    images: NDArray[np.uint8]
    wanted: NDArray[np.uint8]
    levels: NDArray[np.uint8]
    hidden: NDArray[np.bool_]
    persons: NDArray[np.float32]
    heads: NDArray[np.float32]


class BlockBatches:
    """Draws batches; the same seed and number give the same batch."""

    def __init__(
        self,
        sampler: CropSampler,
        regions: RegionFinder,
        settings: StepSettings,
        head: NDArray[np.float32],
    ) -> None:
        """head: [3, 3, 3], colours 0 to 255 of the constant head (`constant_head`)."""
        self.sampler = sampler
        self._regions, self._settings, self._head = regions, settings, head
        self._policy = settings.policy()

    def __len__(self) -> int:
        return len(self.sampler)

    def batch(self, size: int, rng: np.random.Generator) -> BlockBatch:
        """``size`` crops, drawn with ``rng``."""
        drawn = self.sampler.batch(size, rng)
        images = np.ascontiguousarray(drawn.images.permute(0, 2, 3, 1).numpy())
        parts = [
            self._one(image, persons.numpy(), heads.numpy(), rng)
            for image, persons, heads in zip(images, drawn.persons, drawn.heads, strict=True)
        ]
        return BlockBatch(images, *(np.stack(values) for values in zip(*parts, strict=True)))

    def _one(
        self,
        image: NDArray[np.uint8],
        persons: NDArray[np.float32],
        heads: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, ...]:
        settings = self._settings
        regions = self._regions.find(image)
        plan = plan_blocks(regions, self._regions.thresholds)
        shape = plan.hidden.shape
        hidden, found = plan.hidden, self._policy.person_blocks(plan.persons)
        if settings.annotated_heads:
            hidden = hidden | touched_blocks(heads, shape[0], shape[1], HIDDEN_SHARE)
        if rng.random() < settings.in_vain:
            hidden = hidden | self._hidden_in_vain(hidden, found, rng)
        classes = self._policy.classes(found, plan.doubtful & ~hidden)
        if rng.random() < settings.missed:
            other = rng.random(shape)
            classes = np.where(other < 0.03, rng.integers(0, 4, shape), classes)
        quality = rng.normal(0.0, settings.quality_spread)
        levels = np.array(self._policy.levels) - quality
        levels = levels + rng.normal(0.0, settings.class_spread, len(levels))
        level_of = levels_of(levels)[classes]
        level_of[hidden] = LEVELS - 1  # as of all that is not coded
        return (
            self._wanted(image, hidden, level_of, heads),
            level_of,
            hidden,
            box_share(persons, shape),
            box_share(heads, shape),
        )

    def _hidden_in_vain(
        self,
        hidden: NDArray[np.bool_],
        persons: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> NDArray[np.bool_]:
        """Blocks around hidden ones, and of persons, that are hidden by mistake."""
        beside = cv2.dilate(hidden.astype(np.uint8), np.ones((3, 3), np.uint8)) > hidden
        chances = np.where(beside, rng.uniform(0.0, self._settings.in_vain_beside), 0.0)
        of_persons = rng.uniform(0.0, self._settings.in_vain_persons)
        chances = np.maximum(chances, np.where(persons, of_persons, 0.0))
        return np.asarray(rng.random(hidden.shape) < chances, np.bool_)

    def _wanted(
        self,
        image: NDArray[np.uint8],
        hidden: NDArray[np.bool_],
        level_of: NDArray[np.uint8],
        heads: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """What is coarse out of focus, what is hidden as well, with constant heads in it."""
        painted = paint_over(image, hidden)
        blurred = cv2.GaussianBlur(painted, (0, 0), SOFT_PX, borderType=cv2.BORDER_REPLICATE)
        soft = np.asarray(blurred, np.uint8)
        share = smooth_share(torch.from_numpy(level_of).float()).numpy()
        share = pixels_of(np.where(hidden, 1.0, share).astype(np.float32), image)
        wanted = painted + share[..., None] * (soft.astype(np.float32) - painted)
        with_heads = draw_heads(soft, heads, self._head)
        mask = hidden.repeat(BLOCK_PX, 0).repeat(BLOCK_PX, 1)[: image.shape[0], : image.shape[1]]
        wanted[mask] = with_heads[mask]
        return np.rint(wanted).astype(np.uint8)


def pixels_of(share: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Shares of blocks [h, w] for the pixels of an image, [H, W].

    They change gradually towards blocks of a smaller share, and are never above their block's.
    """
    size = (share.shape[1] * BLOCK_PX, share.shape[0] * BLOCK_PX)
    own = cv2.resize(share, size, interpolation=cv2.INTER_NEAREST)
    gradual = cv2.resize(share, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.minimum(own, gradual)[: image.shape[0], : image.shape[1]], np.float32)


def box_share(
    boxes: NDArray[np.float32], shape: tuple[int, int] | tuple[int, ...]
) -> NDArray[np.float32]:
    """1 for blocks of which more than half lies in a box of [N, 4], else 0: float32 [h, w]."""
    return touched_blocks(boxes, shape[0], shape[1], least_share=0.5).astype(np.float32)


def draw_heads(
    image: NDArray[np.uint8], heads: NDArray[np.float32], colours: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """A copy of the image with the constant head, [3, 3, 3], as a soft oval in each box."""
    drawn = image.copy()
    height, width = image.shape[:2]
    for box in heads:
        x0, y0, x1, y1 = (round(float(value)) for value in box[:4])
        if x1 - x0 < 2 or y1 - y0 < 2 or max(x1 - x0, y1 - y0) > 4096:
            continue
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if left >= right or top >= bottom:
            continue
        rows, columns = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
        head = cv2.resize(colours, (x1 - x0, y1 - y0), interpolation=cv2.INTER_CUBIC)
        share = _oval(y1 - y0, x1 - x0)[rows, columns, None]
        under = drawn[top:bottom, left:right]
        part = under + share * (head[rows, columns] - under)
        drawn[top:bottom, left:right] = np.rint(part).clip(0, 255).astype(np.uint8)
    return drawn


def _oval(height: int, width: int) -> NDArray[np.float32]:
    """1 within an ellipse a little narrower than the box, 0 outside, soft between: [h, w]."""
    down, across = (2 * (np.arange(n) + 0.5) / n - 1 for n in (height, width))
    reach = np.hypot(down[:, None], across[None] / OVAL_WIDTH)
    return np.clip((1.05 - reach) * 6, 0, 1).astype(np.float32)


def constant_head(
    sampler: CropSampler, annotations: Sequence[Annotation], most: int = 400
) -> NDArray[np.float32]:
    """The mean head of up to ``most`` photographs in 3×3 colours, float32 [3, 3, 3], 0 to 255."""
    total, count = np.zeros((HEAD_CELLS, HEAD_CELLS, 3)), 0
    with_heads = [item for item in annotations if len(item.heads)]
    for item in with_heads[:: max(1, len(with_heads) // most)]:
        image = sampler.photographs.read(item)
        for x0, y0, x1, y1 in item.heads.astype(int):
            part = image[max(y0, 0) : y1, max(x0, 0) : x1]
            if min(part.shape[:2]) >= 3 * HEAD_CELLS:
                total += cv2.resize(part, (HEAD_CELLS,) * 2, interpolation=cv2.INTER_AREA)
                count += 1
    return np.asarray(total / max(count, 1), np.float32)
