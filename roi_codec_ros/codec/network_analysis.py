# SPDX-License-Identifier: Apache-2.0
"""Analysis by one network that codes every block alike, as in the paper's presets."""

from __future__ import annotations

import numpy as np

from roi_codec_ros.codec.backends import Backend
from roi_codec_ros.codec.block_encoder import FramePlan
from roi_codec_ros.codec.entropy import FIRST_CLASS
from roi_codec_ros.codec.skipping import FrameSymbols
from roi_codec_ros.common.errors import UsageError


class NetworkAnalysis:
    """Analysis by a backend's network; codes every block alike."""

    def __init__(self, backend: Backend, skip: bool) -> None:
        if skip:
            raise UsageError(
                f"expected to send all of every frame with {backend.model.name}, which codes no "
                "blocks; found skip"
            )
        self.backend, self.model, self.backend_name = backend, backend.model, backend.name
        self._levels = (0,) * self.model.tables.classes

    @property
    def quality(self) -> float:
        """Always 0, since there are no levels. Raises UsageError if set to another value."""
        return 0.0

    @quality.setter
    def quality(self, quality: float) -> None:
        if quality != 0:
            raise UsageError(
                f"expected quality 0 for {self.model.name}, which has no levels; found {quality:g}"
            )

    def plan(self, image: np.ndarray, stamp_s: float | None) -> FramePlan:
        """Every block is of the first class."""
        stride = self.model.preset.stride
        rows, columns = (-(-side // stride) for side in image.shape[:2])
        blocks = np.full((rows, columns), FIRST_CLASS, np.uint8)
        return FramePlan(blocks, self._levels, np.zeros((rows, columns), np.bool_))

    def send(self, image: np.ndarray, plan: FramePlan, stamp_s: float | None) -> FrameSymbols:
        """The symbols of the whole frame."""
        return FrameSymbols(self.backend.symbols(image), plan.blocks)

    def symbols(
        self, image: np.ndarray, blocks: np.ndarray, levels: tuple[int, ...]
    ) -> np.ndarray:
        """Quantised latent, int16 [C, h, w]; ignores the plan."""
        return self.backend.symbols(image)
