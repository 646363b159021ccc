# SPDX-License-Identifier: Apache-2.0
"""How a frame is coded block by block: regions, what is remembered, policy, transform."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.block_transform import BlockTransform
from roi_codec_ros.codec.entropy import FIRST_CLASS, HIDDEN
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.policy import check_quality, model_policy
from roi_codec_ros.regions import MaskMemory, RegionFinder, plan_blocks


class BlockEncoder:
    """Block maps and symbols of frames of coded size."""

    def __init__(
        self, model: Model, regions: RegionFinder, quality: float, hide_memory_s: float
    ) -> None:
        self.model = model
        self.backend_name = regions.name
        self._regions = regions
        self._transform = BlockTransform(model)
        self._policy = model_policy(model)
        self._memory = MaskMemory(hide_memory_s)
        self._quality = check_quality(quality)

    @property
    def quality(self) -> float:
        """In levels around the model's own, more is finer."""
        return self._quality

    @quality.setter
    def quality(self, quality: float) -> None:
        self._quality = check_quality(quality)

    def plan(
        self, image: NDArray[np.uint8], stamp_s: float | None
    ) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """The block map of a frame, uint8 [⌈H / 16⌉, ⌈W / 16⌉], and the level of each class.

        stamp_s: when the frame was taken; None: it belongs to no film. Raises RoiCodecError where
        the frame can not be judged.
        """
        regions = self._regions.find(image)
        thresholds = self._regions.thresholds
        held = None
        if stamp_s is not None:
            held = self._memory.held(regions, thresholds, stamp_s)
            self._memory.remember(plan_blocks(regions, thresholds).hidden, stamp_s)
        plan = plan_blocks(regions, thresholds, held)
        blocks = (FIRST_CLASS + self._policy.classes(plan)).astype(np.uint8)
        blocks[plan.hidden] = HIDDEN
        return blocks, self.levels()

    def levels(self) -> tuple[int, ...]:
        """The level of each class at the quality that is set."""
        return tuple(self._policy.levels_at(self._quality).tolist())

    def symbols(
        self, image: NDArray[np.uint8], blocks: NDArray[np.uint8], levels: Sequence[int]
    ) -> NDArray[np.int16]:
        """As `BlockTransform.symbols`."""
        return self._transform.symbols(image, blocks, np.array(levels, np.uint8))
