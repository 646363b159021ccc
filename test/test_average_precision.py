# SPDX-License-Identifier: Apache-2.0
"""Average precision: worked values, and agreement with `object-detection-metrics`."""

from __future__ import annotations

import importlib.util
import math
import sys
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from roi_codec_ros.lab.evaluation.average_precision import (
    Matches,
    average_precision,
    intersection_over_union,
    match,
)

Image = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes [N, 4], scores [N], truths [M, 4]

BOX = [0.0, 0.0, 10.0, 10.0]
NO_BOXES = np.zeros((0, 4))


def scored(hits: list[bool], positives: int) -> Matches:
    return Matches(np.linspace(0.9, 0.1, len(hits)), np.array(hits, dtype=bool), positives)


def test_overlap_of_half_shifted_boxes() -> None:
    overlap = intersection_over_union([BOX], [[5, 0, 15, 10], [20, 20, 30, 30], BOX])
    assert overlap == pytest.approx(np.array([[50 / 150, 0.0, 1.0]]))


def test_plus_one_counts_the_last_pixel() -> None:
    touching = [[10.0, 0.0, 20.0, 10.0]]
    assert intersection_over_union([BOX], touching) == 0.0
    shared, both = 1 * 11, 2 * 11 * 11
    overlap = intersection_over_union([BOX], touching, plus_one=True)
    assert overlap == pytest.approx(shared / (both - shared))


def test_plus_one_can_turn_a_miss_into_a_hit() -> None:
    boxes, truths = [[0, 0, 4, 9]], [[0, 0, 9, 9]]
    assert not match(boxes, [0.9], truths).hits[0]  # 36 / 81
    assert match(boxes, [0.9], truths, plus_one=True).hits[0]  # 50 / 100


def test_boxes_without_area_overlap_nothing() -> None:
    point = [[3.0, 3.0, 3.0, 3.0]]
    assert intersection_over_union(point, point) == 0.0


def test_a_truth_is_found_once_and_by_the_best_box() -> None:
    boxes = [[0, 0, 10, 9], BOX, [50, 50, 60, 60]]
    matches = match(boxes, [0.5, 0.8, 0.7], [BOX])
    assert matches.scores.tolist() == [0.8, 0.7, 0.5]
    assert matches.hits.tolist() == [True, False, False]


def test_a_box_does_not_go_on_to_its_second_best_truth() -> None:
    truths = [BOX, [0, 0, 10, 14]]
    matches = match([BOX, BOX], [0.9, 0.8], truths)
    assert matches.hits.tolist() == [True, False]


def test_worked_area() -> None:
    # precision 1, 1/2, 2/3, 3/4 at recall 1/4, 1/4, 1/2, 3/4; interpolated: 1, then 3/4 twice
    score = average_precision([scored([True, False, True, True], positives=4)])
    assert score.ap == pytest.approx(0.25 * (1 + 0.75 + 0.75))
    assert (score.true_positives, score.false_positives, score.positives) == (3, 1, 4)


def test_images_are_pooled_by_score() -> None:
    good = Matches(np.array([0.9, 0.2]), np.array([True, False]), 1)
    bad = Matches(np.array([0.8, 0.7]), np.array([False, True]), 1)
    score = average_precision([good, bad])
    assert score.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_a_higher_confidence_keeps_what_scores_enough() -> None:
    matches = Matches(np.array([0.9, 0.25, 0.2]), np.array([True, False, True]), 2)
    kept = matches.at_confidence(0.25)
    assert (kept.scores.tolist(), kept.hits.tolist(), kept.positives) == (
        [0.9, 0.25],
        [True, False],
        2,
    )


def test_nothing_to_find_is_no_number() -> None:
    score = average_precision([match([BOX], [0.9], NO_BOXES)])
    assert math.isnan(score.ap)
    assert (score.true_positives, score.false_positives) == (0, 1)
    assert math.isnan(average_precision([]).ap)


def test_nothing_found_is_zero() -> None:
    assert average_precision([match(NO_BOXES, [], [BOX])]).ap == 0.0


def test_a_score_for_each_box() -> None:
    with pytest.raises(ValueError, match="found 1 boxes, 2 scores"):
        match([BOX], [0.9, 0.8], [BOX])


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.uniform(0, 60, (count, 2))
    return np.hstack([low, low + rng.uniform(1, 40, (count, 2))]).round(1)


def random_image(rng: np.random.Generator) -> Image:
    truths = random_boxes(rng, int(rng.integers(0, 6)))
    near = truths + rng.normal(0, 2.5, truths.shape)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.5)
    boxes = np.vstack([near, near + 1.0, random_boxes(rng, int(rng.integers(0, 5)))])
    scores = rng.choice([0.1, 0.25, 0.5, 0.75], len(boxes))  # few values: many ties
    return boxes, scores, truths


DEGENERATE: dict[str, list[Image]] = {
    "nothing found": [(NO_BOXES, np.zeros(0), np.array([BOX]))],
    "exactly at the threshold": [(np.array([[0, 0, 5, 10.0]]), np.ones(1), np.array([BOX]))],
    "the same box thrice": [(np.array([BOX] * 3), np.array([0.5] * 3), np.array([BOX]))],
    "the same truth twice": [(np.array([BOX] * 2), np.array([0.5] * 2), np.array([BOX] * 2))],
    "ties between images": [
        (np.array([BOX]), np.array([0.5]), np.array([[50, 50, 60, 60.0]])),
        (np.array([BOX]), np.array([0.5]), np.array([BOX])),
    ],
    "an image without truths": [
        (np.array([BOX]), np.array([0.9]), NO_BOXES),
        (np.array([BOX]), np.array([0.5]), np.array([BOX])),
    ],
    "touching boxes": [(np.array([[10, 0, 20, 10.0]]), np.ones(1), np.array([BOX]))],
}


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    if importlib.util.find_spec("shapely") is None:
        # It imports shapely for polygons, which are of no use here, without depending on it.
        monkeypatch.setitem(sys.modules, "shapely", Mock())
        monkeypatch.setitem(sys.modules, "shapely.geometry", Mock())
    return pytest.importorskip("podm.metrics", reason="needs object-detection-metrics")


def reference_score(metrics: Any, images: list[Image]) -> tuple[float, int, int]:
    def listed(image: int, boxes: np.ndarray, scores: np.ndarray | list[None]) -> list:
        return [
            metrics.BoundingBox.of_bbox(image, "person", *map(float, box), score)
            for box, score in zip(boxes, scores, strict=True)
        ]

    truths = [
        box
        for index, (_, _, wanted) in enumerate(images)
        for box in listed(index, wanted, [None] * len(wanted))
    ]
    found = [
        box
        for index, (boxes, scores, _) in enumerate(images)
        for box in listed(index, boxes, scores)
    ]
    result = metrics.get_pascal_voc_metrics(truths, found, 0.5)["person"]
    return float(result.ap), int(result.tp), int(result.fp)


def our_score(images: list[Image]) -> tuple[float, int, int]:
    score = average_precision(match(boxes, scores, truths) for boxes, scores, truths in images)
    return score.ap, score.true_positives, score.false_positives


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_object_detection_metrics(reference: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(int(rng.integers(1, 12)))]
    images.append((NO_BOXES, np.zeros(0), np.array([BOX])))
    assert our_score(images) == pytest.approx(reference_score(reference, images), abs=1e-12)


@pytest.mark.parametrize("case", DEGENERATE)
def test_agrees_on_degenerate_cases(reference: Any, case: str) -> None:
    images = DEGENERATE[case]
    assert our_score(images) == pytest.approx(reference_score(reference, images), abs=1e-12)
