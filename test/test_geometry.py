# SPDX-License-Identifier: Apache-2.0
"""Positions from box heights, held against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.geometry import (
    BOX_EDGE_SPREAD_PX,
    CUT_OFF_SPREAD,
    HEIGHT_SPREAD,
    position_from_height,
)

CAMERA = CameraModel(fx=600.0, fy=500.0, cx=320.0, cy=240.0, width=640, height=480)


def test_a_person_of_known_height_straight_ahead():
    # 1.7 m at 8.5 m with f_y = 500 px: 100 px, here from 40 px above the axis to 60 below it.
    places = position_from_height([[310, 200, 330, 300]], CAMERA, person_height_m=1.7)

    assert places.range_m == pytest.approx([8.5])
    assert places.feet == pytest.approx(np.array([[0.0, 60 / 500 * 8.5, 8.5]]))
    assert places.valid.tolist() == [True]


def test_projecting_a_standing_person_and_back_gives_the_same_place():
    feet, height_m = np.array([-2.0, 1.4, 12.0]), 1.8
    head = feet - [0.0, height_m, 0.0]
    u, v_feet = 600 * feet[0] / 12 + 320, 500 * feet[1] / 12 + 240
    v_head = 500 * head[1] / 12 + 240

    places = position_from_height([[u - 9, v_head, u + 9, v_feet]], CAMERA, height_m)

    assert places.feet[0] == pytest.approx(feet)


def test_twice_the_height_in_the_image_is_half_the_distance():
    places = position_from_height([[0, 100, 10, 150], [0, 100, 10, 200]], CAMERA)

    assert places.range_m[0] == pytest.approx(2 * places.range_m[1])


def test_covariance_straight_ahead_is_the_spread_along_and_across():
    places = position_from_height([[310, 200, 330, 300]], CAMERA)

    along = 8.5 * math.hypot(HEIGHT_SPREAD, BOX_EDGE_SPREAD_PX / 100)
    across = 8.5 * BOX_EDGE_SPREAD_PX / 600
    assert places.covariance[0] == pytest.approx(np.diag([across**2, along**2]))


def test_uncertainty_lies_along_the_line_of_sight():
    places = position_from_height([[520, 200, 560, 300]], CAMERA)

    _, vectors = np.linalg.eigh(places.covariance[0])
    sight = places.feet[0, [0, 2]] / np.linalg.norm(places.feet[0, [0, 2]])
    assert abs(vectors[:, 1] @ sight) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("box", [[300, 0, 340, 100], [300, 380, 340, 480]])
def test_a_box_that_the_border_may_cut_is_far_less_certain(box):
    places = position_from_height([box], CAMERA)

    assert places.covariance[0, 1, 1] > (CUT_OFF_SPREAD * places.range_m[0]) ** 2


@pytest.mark.parametrize("box", [[5, 9, 9, 9], [5, 9, 9, 3], [0, 0, math.nan, 9]])
def test_a_box_without_height_has_no_place(box):
    places = position_from_height([box, [310, 200, 330, 300]], CAMERA)

    assert places.valid.tolist() == [False, True]
    assert not places.feet[0].any()
    assert not places.covariance[0].any()
    assert np.isfinite(places.feet).all()


def test_nobody_gives_empty_arrays():
    places = position_from_height([], CAMERA)

    assert places.feet.shape == (0, 3)
    assert places.covariance.shape == (0, 2, 2)


def test_a_scaled_camera_sees_the_same_place_in_a_scaled_image():
    box = np.array([310.0, 200, 350, 300])
    small = CAMERA.scale_to(512, 512)
    there = position_from_height([box], CAMERA)

    here = position_from_height([box * np.array([0.8, 512 / 480] * 2)], small)

    assert here.feet == pytest.approx(there.feet)
