# SPDX-License-Identifier: Apache-2.0
"""How finely blocks are coded: their classes follow from regions, the levels from the quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.ladder import LEVELS
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.common.errors import ModelFileError, UsageError

BACKGROUND, NEAR, PERSON, SMALL_PERSON = range(4)
CLASSES = 4
# In height. Small persons are coded more finely: they are hard to detect and cost few bits, while
# a person who fills the frame is detected just as well at coarser steps.
SMALL_PERSON_BLOCKS = 22
# Of a person who is far away few blocks are recognised, and with doubt: a group of blocks up to
# this height counts from a lower score on, if one of them reaches another.
FAR_PERSON_BLOCKS, FAR_SCORE, FAR_PEAK = 5, 0.2, 0.3

QUALITY_MIN, QUALITY_MAX = -16.0, 16.0


@dataclass(frozen=True)
class StepPolicy:
    """The quantisation policy of a model file.

    Attributes:
        levels: the level of each class at quality 0, as `BACKGROUND` … `SMALL_PERSON`.
        person: minimum score, 0 to 1, for a block to count as part of a person, unless far away.
    """

    levels: tuple[float, float, float, float] = (23.0, 16.0, 6.0, 5.0)
    person: float = 0.5

    def person_blocks(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Blocks that count as part of a person. scores: float32 [rows, columns], 0 to 1."""
        persons = scores >= self.person
        low = (scores >= min(FAR_SCORE, self.person)).astype(np.uint8)
        _, found, figures, _ = cv2.connectedComponentsWithStats(low, connectivity=8)
        labels = np.asarray(found, np.int64)
        peaks = np.zeros(len(figures), np.float32)
        np.maximum.at(peaks, labels, scores)
        far = (figures[:, cv2.CC_STAT_HEIGHT] <= FAR_PERSON_BLOCKS) & (peaks >= FAR_PEAK)
        far[0] = False  # what belongs to no group
        return np.asarray(persons | far[labels], np.bool_)

    def classes(
        self, persons: NDArray[np.bool_], doubtful: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """The class of each block: uint8 [rows, columns].

        Blocks around persons are `NEAR`, so that persons have no sharp outline. So are blocks with
            a possible head that is not hidden: this is fine enough to detect a person, but too
            coarse to recognise a face.

        Args:
            persons: bool [rows, columns], of `person_blocks`.
            doubtful: bool [rows, columns], of `BlockPlan`.
        """
        there = persons.astype(np.uint8)
        count, labels, figures, _ = cv2.connectedComponentsWithStats(there, connectivity=8)
        of_label = np.full(count, PERSON, np.uint8)
        of_label[figures[:, cv2.CC_STAT_HEIGHT] <= SMALL_PERSON_BLOCKS] = SMALL_PERSON
        classes = np.where(persons, of_label[labels], BACKGROUND).astype(np.uint8)
        around = cv2.dilate(there, np.ones((3, 3), np.uint8)) > there
        classes[around] = NEAR
        classes[doubtful] = NEAR
        return classes

    def levels_at(self, quality: float) -> NDArray[np.uint8]:
        """The level of each class, uint8 [CLASSES].

        quality: in levels relative to the model's default; higher is finer, four levels halve the
            steps.
        """
        return levels_of(np.array(self.levels) - quality)


POLICY = "policy"  # key in a model's card


def model_policy(model: Model) -> StepPolicy:
    """The policy of a block-based model. Raises ModelFileError."""
    given: Any = model.header.get(POLICY)
    try:
        levels = tuple(float(level) for level in given["levels"])
        policy = StepPolicy(levels, float(given["person"]))  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"expected model {model.name} to hold a policy of levels and a threshold of persons; "
            f"found {given!r}"
        ) from error
    within = all(0 <= level <= LEVELS - 1 for level in levels) and 0 < policy.person <= 1
    if len(levels) != CLASSES or model.tables.classes != CLASSES or not within:
        raise ModelFileError(
            f"expected model {model.name} to hold levels of 0 to {LEVELS - 1} for {CLASSES} "
            f"classes and a threshold of persons above 0, to 1; found {given!r}"
        )
    return policy


def levels_of(levels: Sequence[float] | NDArray[np.float64]) -> NDArray[np.uint8]:
    """The nearest existing levels, uint8."""
    return np.rint(np.clip(levels, 0, LEVELS - 1)).astype(np.uint8)


def check_quality(quality: float) -> float:
    """Check and return ``quality``. Raises UsageError outside its range."""
    if not QUALITY_MIN <= quality <= QUALITY_MAX:
        raise UsageError(
            f"expected a quality of {QUALITY_MIN:g} to {QUALITY_MAX:g}, found {quality:g}"
        )
    return quality
