# SPDX-License-Identifier: Apache-2.0
"""The distances that a person detector measures, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from roi_codec_ros.lab.training.features import detection_distance, feature_distance


def heads_output(logit: float, side_bin: int = 0, places: int = 2) -> list[tuple[Tensor, Tensor]]:
    """A detection head's output at one stride: one image, ``places`` × 1, sides of four bins."""
    person = torch.full((1, 1, places, 1), logit)
    sides = torch.zeros(1, 4 * 4, places, 1)
    sides[:, side_bin::4] = math.log(5.0)
    return [(person, sides)]


def test_equal_detections_are_at_distance_zero() -> None:
    assert detection_distance(heads_output(1.5), heads_output(1.5)).item() == pytest.approx(0.0)


def test_a_person_missed_costs_the_divergence_of_the_two_certainties() -> None:
    # p = 0.8 and 0.2 at two places: each KL(0.8 | 0.2) = 0.6 ln 4; certainty 1.6 in all.
    found, missed = heads_output(math.log(4.0)), heads_output(-math.log(4.0))

    distance = detection_distance(found, missed).item()

    assert distance == pytest.approx(2 * 0.6 * math.log(4.0) / 1.6, rel=1e-5)


def test_a_box_elsewhere_costs_as_much_as_the_detector_was_sure() -> None:
    # Sides are 5/8, 1/8, 1/8, 1/8 likely: with two of them swapped, KL = 0.5 ln 5.
    for logit, share in ((math.log(4.0), 1.0), (-math.log(4.0), 0.4)):  # certainty 1.6; 0.4 < 1
        moved = detection_distance(heads_output(logit, 0), heads_output(logit, 1)).item()
        assert moved == pytest.approx(share * 0.5 * math.log(5.0), rel=1e-5)


def test_a_detector_ghost_costs_too() -> None:
    nobody, ghost = heads_output(-30.0), heads_output(0.0)

    assert detection_distance(nobody, ghost).item() == pytest.approx(2 * math.log(2.0), rel=1e-4)


def test_each_layer_counts_alike_and_relative_to_its_energy() -> None:
    wanted = [torch.full((1, 1, 2, 2), 2.0), torch.full((1, 3, 1, 1), 10.0)]
    features = [torch.full((1, 1, 2, 2), 1.0), torch.full((1, 3, 1, 1), 10.0)]

    assert feature_distance(wanted, features).item() == pytest.approx((1.0 / 4.0 + 0.0) / 2)
