# SPDX-License-Identifier: Apache-2.0
"""The Kalman filter, held against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception import kalman


def test_prediction_of_one_second():
    # x: 1 m at 2 m/s, variances 4 m² and 1 m²/s²; acceleration noise of 3 m/s in a second.
    mean, covariance = kalman.predict(
        np.array([[1.0, 0.0, 2.0, -1.0]]), np.diag([4.0, 4.0, 1.0, 1.0])[None], 1.0, 3.0
    )

    assert mean[0] == pytest.approx([3.0, -1.0, 2.0, -1.0])
    # position: 4 + 1 + 9/3, position and velocity: 1 + 9/2, velocity: 1 + 9
    assert covariance[0][np.ix_([0, 2], [0, 2])] == pytest.approx(np.array([[8, 5.5], [5.5, 10]]))
    assert covariance[0, 0, 1] == covariance[0, 0, 3] == 0.0


def test_ten_short_predictions_are_one_long_one():
    mean, covariance = np.array([[1.0, 2.0, 0.5, -0.3]]), np.diag([0.1, 0.2, 0.3, 0.4])[None]
    at_once = kalman.predict(mean, covariance, 1.0, 0.6)

    for _ in range(10):
        mean, covariance = kalman.predict(mean, covariance, 0.1, 0.6)

    assert mean == pytest.approx(at_once[0])
    assert covariance == pytest.approx(at_once[1])


def test_update_with_a_measurement_as_certain_as_the_state_goes_half_way():
    state = np.diag([4.0, 4.0, 1.0, 1.0])[None]
    state[0, 0, 2] = state[0, 2, 0] = 1.0  # a velocity that goes along with the position

    mean, covariance = kalman.update(
        np.zeros((1, 4)), state, np.array([[2.0, 0.0]]), np.diag([4.0, 12.0])[None]
    )

    # Gain on x: 4/8, on v_x: 1/8, on y: 4/16.
    assert mean[0] == pytest.approx([1.0, 0.0, 0.25, 0.0])
    assert covariance[0].diagonal() == pytest.approx([2.0, 3.0, 1 - 1 / 8, 1.0])
    assert covariance[0, 0, 2] == pytest.approx(0.5)


def test_states_do_not_touch_each_other():
    random = np.random.default_rng(1)
    mean, xy = random.normal(size=(3, 4)), random.normal(size=(3, 2))
    covariance = np.stack([np.diag(random.uniform(0.1, 1, 4)) for _ in range(3)])
    spread = np.stack([np.diag(random.uniform(0.1, 1, 2)) for _ in range(3)])

    together = kalman.update(mean, covariance, xy, spread)

    for row in range(3):
        alone = kalman.update(*(a[row : row + 1] for a in (mean, covariance, xy, spread)))
        assert together[0][row] == pytest.approx(alone[0][0])
        assert together[1][row] == pytest.approx(alone[1][0])


def test_mahalanobis_distance_and_inverse():
    matrix = np.array([[2.0, 1.0], [1.0, 3.0]])

    assert kalman.inverse(matrix[None])[0] == pytest.approx(np.array([[0.6, -0.2], [-0.2, 0.4]]))
    # (1, 2) · inverse · (1, 2) = 0.6 - 0.8 + 1.6
    assert kalman.mahalanobis_squared(np.array([1.0, 2.0]), matrix) == pytest.approx(1.4)


@pytest.mark.parametrize(("share", "limit"), [(0.99, 9.2103), (0.95, 5.9915), (0.5, 1.3863)])
def test_the_gate_is_the_quantile_of_two_degrees_of_freedom(share, limit):
    assert kalman.gate(share) == pytest.approx(limit, abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        [[1.0, 0.0], [0.0, 0.0]],
        [[1.0, 2.0], [2.0, 1.0]],
        [[-1.0, 0.0], [0.0, -1.0]],
        [[1.0, 0.5], [-0.5, 1.0]],
        [[math.nan, 0.0], [0.0, 1.0]],
        [[math.inf, 0.0], [0.0, 1.0]],
    ],
)
def test_what_is_no_covariance_is_refused_with_its_index(wrong):
    with pytest.raises(RoiCodecError, match=r"positive definite.*at index 1"):
        kalman.check_positive_definite(np.array([np.eye(2), wrong]))


def test_covariances_are_taken():
    kalman.check_positive_definite(np.array([[[1.0, 0.9], [0.9, 1.0]], np.eye(2) * 1e-4]))
    kalman.check_positive_definite(np.zeros((0, 2, 2)))
