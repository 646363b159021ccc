# SPDX-License-Identifier: Apache-2.0
"""Block-based coding of a frame: regions, mask memory, policy, transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.block_transform import BlockTransform
from roi_codec_ros.codec.entropy import FIRST_CLASS, HIDDEN
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.policy import check_quality, model_policy
from roi_codec_ros.codec.skipping import BlockSkipper, FrameSymbols
from roi_codec_ros.regions import (
    MaskMemory,
    RegionFinder,
    RegionFollower,
    hidden_blocks,
    plan_blocks,
)


@dataclass(frozen=True, eq=False)
class FramePlan:
    """How each block of a frame is coded.

    Attributes:
        blocks: uint8 [h, w], HIDDEN or FIRST_CLASS + class.
        levels: the level of each class.
        persons: bool [h, w], blocks of persons.
    """

    blocks: NDArray[np.uint8]
    levels: tuple[int, ...]
    persons: NDArray[np.bool_]


class BlockEncoder:
    """Produces block maps and symbols for frames of the coded size."""

    def __init__(
        self,
        model: Model,
        regions: RegionFinder,
        quality: float = 0.0,
        hide_memory_s: float = 0.0,
        *,
        skip: bool = False,
        predict: bool = False,
        persons_every: int = 1,
    ) -> None:
        """skip: do not resend unchanged blocks of a stream. predict: send changed blocks as
        differences (see `skipping`). persons_every: as for `RegionFollower`, for frames of a
        stream.
        """
        self.model = model
        self.backend_name = regions.name
        self._thresholds = regions.thresholds
        self._regions = RegionFollower(regions, persons_every)
        self._transform = BlockTransform(model)
        self._policy = model_policy(model)
        self._memory = MaskMemory(hide_memory_s)
        self._quality = check_quality(quality)
        self._skipper = BlockSkipper(self._transform, predict=predict) if skip else None

    @property
    def quality(self) -> float:
        """Quality in levels relative to the model's default; higher is finer."""
        return self._quality

    @quality.setter
    def quality(self, quality: float) -> None:
        self._quality = check_quality(quality)

    def plan(self, image: NDArray[np.uint8], stamp_s: float | None) -> FramePlan:
        """Plan a frame.

        stamp_s: capture time in seconds; None for a single image. Raises RoiCodecError if the
            region networks fail on the frame.
        """
        regions, thresholds = self._regions.find(image, stamp_s), self._thresholds
        hidden, doubtful = hidden_blocks(regions, thresholds), None
        if stamp_s is not None:
            hidden, doubtful = self._memory.masks(hidden, regions, thresholds, stamp_s)
            if (moved := self._regions.moved_heads()) is not None:
                hidden |= moved  # not remembered: the head is in one of these blocks
        plan = plan_blocks(regions, thresholds, hidden, doubtful)
        persons = self._policy.person_blocks(plan.persons)
        blocks = (FIRST_CLASS + self._policy.classes(persons, plan.doubtful)).astype(np.uint8)
        blocks[plan.hidden] = HIDDEN
        return FramePlan(blocks, self.levels(), persons)

    def levels(self) -> tuple[int, ...]:
        """The level of each class at the current quality."""
        return tuple(self._policy.levels_at(self._quality).tolist())

    def send(
        self, image: NDArray[np.uint8], plan: FramePlan, stamp_s: float | None
    ) -> FrameSymbols:
        """The blocks of a frame to send; they count as sent from then on."""
        if self._skipper is None or stamp_s is None:
            return FrameSymbols(self.symbols(image, plan.blocks, plan.levels), plan.blocks)
        values = self._transform.values(image, plan.blocks, np.array(plan.levels, np.uint8))
        return self._skipper.send(plan.blocks, plan.levels, values, plan.persons, stamp_s)

    def symbols(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: Sequence[int]
    ) -> NDArray[np.int16]:
        """As `BlockTransform.symbols`."""
        return self._transform.symbols(image, blocks, np.array(levels, np.uint8))
