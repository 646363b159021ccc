# SPDX-License-Identifier: Apache-2.0
"""Matching of boxes: across detectors, and between detections and heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.lab.evaluation.average_precision import intersection_over_union

BoxArray = NDArray[np.float32]

SAME_FACE_IOU = 0.3


@dataclass(frozen=True, eq=False)
class Union:
    """Faces that at least one detector saw.

    xyxy: float32 [N, 4] in px, each as the first detector that saw it drew it.
    votes: int [N], how many detectors saw it.
    """

    xyxy: BoxArray
    votes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.xyxy)


def pair_up(first: BoxArray, second: BoxArray, *, iou_threshold: float) -> list[tuple[int, int]]:
    """Pairs (index in first, index in second), the best IoU first; no box is in two pairs."""
    overlap = intersection_over_union(first, second)
    pairs: list[tuple[int, int]] = []
    while overlap.size:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        if overlap[row, column] < iou_threshold or overlap[row, column] <= 0.0:
            break
        pairs.append((int(row), int(column)))
        overlap[row, :] = overlap[:, column] = -1.0
    return pairs


def unite(found: Sequence[BoxArray], *, iou_threshold: float = SAME_FACE_IOU) -> Union:
    """One box for each face that at least one of several detectors found.

    Detectors draw faces differently (with hair or without), hence the low threshold.
    """
    boxes: BoxArray = np.zeros((0, 4), dtype=np.float32)
    votes = np.zeros(0, dtype=np.int64)
    for seen in found:
        pairs = pair_up(boxes, seen, iou_threshold=iou_threshold)
        votes[[old for old, _ in pairs]] += 1
        new = np.setdiff1d(np.arange(len(seen)), [index for _, index in pairs])
        boxes = np.concatenate([boxes, np.asarray(seen, np.float32).reshape(-1, 4)[new]])
        votes = np.concatenate([votes, np.ones(len(new), dtype=np.int64)])
    return Union(boxes, votes)


def found_by_any(
    objects: BoxArray, found: Sequence[BoxArray], *, iou_threshold: float
) -> list[int]:
    """Which objects, boxes [N, 4], at least one of several detectors found.

    Not those that `unite`'s boxes show: it keeps one of two that overlap, which may be the wrong
    one.
    """
    indices = {
        index for seen in found for index, _ in pair_up(objects, seen, iou_threshold=iou_threshold)
    }
    return sorted(indices)
