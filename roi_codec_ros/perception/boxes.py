# SPDX-License-Identifier: Apache-2.0
"""From the outputs of a detector graph to boxes of persons (with non-maximum suppression)."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.perception.detector_graph import STRIDES, persons_name, sides_name

MOST_PERSONS = 300  # boxes kept per image, as in ultralytics
MOST_CANDIDATES = 30_000  # candidates considered, best first, as in ultralytics

FloatArray = NDArray[np.float32]


def persons_in(
    outputs: Mapping[str, np.ndarray], image: int, confidence: float, iou: float
) -> tuple[FloatArray, FloatArray]:
    """Boxes float32 [N, 4] in pixels of the network's input, and scores float32 [N], best first.

    outputs: of a `detector_graph`. image: its index in the batch. confidence: boxes with a lower
        score are dropped. iou: of two boxes that overlap more, the better one is kept.
    """
    boxes, scores = [], []
    least = _logit(confidence)
    for stride in STRIDES:
        logits = outputs[persons_name(stride)][image, 0]
        rows, columns = np.nonzero(logits > least)
        sides = outputs[sides_name(stride)][image, :, rows, columns]
        boxes.append(boxes_at(sides, rows, columns, stride))
        scores.append(logits[rows, columns])
    all_boxes, logits = np.concatenate(boxes), np.concatenate(scores)
    best = np.argsort(-logits, kind="stable")[:MOST_CANDIDATES]
    all_boxes, logits = all_boxes[best], logits[best]
    kept = without_repeats(all_boxes, iou)
    return all_boxes[kept], (1 / (1 + np.exp(-logits[kept]))).astype(np.float32)


def boxes_at(
    sides: FloatArray, rows: NDArray[np.int64], columns: NDArray[np.int64], stride: int
) -> FloatArray:
    """Boxes [N, 4] from the distances of their sides to the positions of a stride.

    sides: [N, 4 · bins], logits of the distances left, up, right, down in strides, whose mean is
    taken (Li et al., Generalized Focal Loss, 2020, equation 4).
    """
    logits = sides.reshape(len(sides), 4, sides.shape[1] // 4).astype(np.float32)
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    distances = weights @ np.arange(logits.shape[2], dtype=np.float32) / weights.sum(axis=2)
    centres = np.stack([columns, rows], axis=1).astype(np.float32) + np.float32(0.5)
    corners = np.concatenate([centres - distances[:, :2], centres + distances[:, 2:]], axis=1)
    return np.asarray(corners * np.float32(stride), np.float32)


def without_repeats(boxes: FloatArray, iou: float) -> NDArray[np.int64]:
    """Which of the boxes [N, 4], best first, are kept: at most MOST_PERSONS.

    A box is dropped if it overlaps a better one that is kept by more than ``iou``.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    places = np.hstack([boxes[:, :2], sizes]).tolist()
    kept = cv2.dnn.NMSBoxes(places, list(range(len(boxes), 0, -1)), 0.0, iou)
    return np.asarray(kept, np.int64).reshape(-1)[:MOST_PERSONS]


def _logit(confidence: float) -> float:
    """The logit that corresponds to a score of ``confidence``."""
    if confidence <= 0:
        return -np.inf
    if confidence >= 1:
        return np.inf
    return float(np.log(confidence / (1 - confidence)))
