# SPDX-License-Identifier: Apache-2.0
"""Average precision as in the Pascal VOC challenge, all points, after Padilla et al. (2021).

```
  each image:  boxes, scores, truths ──match──► Matches (scores, hits, positives)
  all images:  Matches, Matches, …  ──average_precision──► AveragePrecision (ap, TP, FP, curve)
```
Matching never looks across images, so what an image contributes can be kept, and scored again at
another confidence, without its boxes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections of one image, best first, and whether each found a truth of its own.

    scores: float64 [N], descending. hits: bool [N]. positives: truths in the image, found or not.
    """

    scores: FloatArray
    hits: BoolArray
    positives: int

    def at_confidence(self, confidence: float) -> Matches:
        """Only the detections that score at least `confidence`.

        Exact, not an approximation: a truth goes to the best-scored box, so what scores less never
        changes the hits of what scores more.
        """
        kept = self.scores >= confidence
        return Matches(self.scores[kept], self.hits[kept], self.positives)


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """A data set's score. ap: 0 to 1, NaN where there was nothing to find.

    recall, precision: float64 [N], after each detection, best first, not interpolated.
    """

    ap: float
    true_positives: int
    false_positives: int
    positives: int
    recall: FloatArray
    precision: FloatArray


def intersection_over_union(
    boxes: ArrayLike, others: ArrayLike, *, plus_one: bool = False
) -> FloatArray:
    """IoU of each of N boxes with each of M others (x0, y0, x1, y1): float64 [N, M], 0 to 1.

    plus_one counts the pixels from x0 to x1 *inclusive*, so that a width is x1 − x0 + 1, as the
    tool of Padilla et al. does. Two boxes without any area have an IoU of 0.
    """
    first = _as_boxes(boxes)[:, None, :]
    second = _as_boxes(others)[None, :, :]
    extra = 1.0 if plus_one else 0.0

    def area(corners: FloatArray) -> FloatArray:
        extent = corners[..., 2:] - corners[..., :2] + extra
        return extent[..., 0] * extent[..., 1]

    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    apart = (low > high).any(axis=-1)
    overlap = np.where(apart, 0.0, area(np.concatenate([low, high], axis=-1)))
    union = area(first) + area(second) - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def match(
    boxes: ArrayLike,
    scores: ArrayLike,
    truths: ArrayLike,
    *,
    iou_threshold: float = 0.5,
    plus_one: bool = False,
) -> Matches:
    """Match an image's detections (boxes [N, 4], scores [N]) with its truths [M, 4].

    In order of falling score each box looks only at the truth that it overlaps most. It is a hit
    where that IoU reaches the threshold and no better-scored box has taken the truth already; a
    box does not go on to its second-best truth. Equal scores keep their order.
    """
    candidates = _as_boxes(boxes)
    confidence = np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(candidates) != len(confidence):
        raise ValueError(
            f"expected a score for each box, "
            f"found {len(candidates)} boxes, {len(confidence)} scores"
        )
    wanted = _as_boxes(truths)
    order = np.argsort(-confidence, kind="stable")
    hits = np.zeros(len(order), dtype=np.bool_)
    if len(wanted) and len(order):
        overlaps = intersection_over_union(candidates[order], wanted, plus_one=plus_one)
        best = overlaps.argmax(axis=1)
        reached = overlaps.max(axis=1) >= iou_threshold
        taken: set[int] = set()
        for index in np.flatnonzero(reached):
            truth = int(best[index])
            hits[index] = truth not in taken
            taken.add(truth)
    return Matches(confidence[order], hits, len(wanted))


def average_precision(matches: Iterable[Matches]) -> AveragePrecision:
    """Pool the images and take the area under the interpolated precision–recall curve.

    The precision at a recall is the highest at that recall or beyond, at every recall that occurs
    (all points). Equal scores of different images rank in the order of the images.
    """
    images = list(matches)
    positives = sum(image.positives for image in images)
    scores = np.concatenate([image.scores for image in images] or [np.zeros(0)])
    hits = np.concatenate([image.hits for image in images] or [np.zeros(0, dtype=np.bool_)])
    hits = hits[np.argsort(-scores, kind="stable")]
    found = np.cumsum(hits).astype(np.float64)
    precision = found / np.arange(1, len(hits) + 1)
    recall = found / positives if positives else np.full(len(hits), np.nan)
    true_positives = int(hits.sum())
    return AveragePrecision(
        ap=_area_under_envelope(recall, precision) if positives else float("nan"),
        true_positives=true_positives,
        false_positives=len(hits) - true_positives,
        positives=positives,
        recall=recall,
        precision=precision,
    )


def _area_under_envelope(recall: FloatArray, precision: FloatArray) -> float:
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float(np.sum(steps * envelope))


def _as_boxes(values: ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float64).reshape(-1, 4)
