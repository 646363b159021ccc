# SPDX-License-Identifier: Apache-2.0
"""A covered lens is told from an empty room."""

from __future__ import annotations

import numpy as np
import pytest

from roi_codec_ros.lab.simulation.filmed_hall import Stage
from roi_codec_ros.perception.contrast import shows_nothing


def planes(image):
    return image.transpose(2, 0, 1).astype(np.float32) / 255


@pytest.mark.parametrize("form", [lambda image: image, planes])
@pytest.mark.parametrize("level", [0, 30, 255])
def test_one_brightness_with_a_sensors_noise_and_a_lamp_shows_nothing(level, form):
    random = np.random.default_rng(0)
    image = np.clip(random.normal(level, 2.0, (480, 640, 3)), 0, 255).astype(np.uint8)
    image[100:140, 200:240] = 255 - level

    assert shows_nothing(form(image))


@pytest.fixture(scope="module")
def room():
    return Stage(["camera"], persons=1).film("camera", 0.0)


@pytest.mark.parametrize("form", [lambda image: image, planes])
def test_an_empty_room_shows_something_by_night_too(room, form):
    assert not shows_nothing(form(room))
    assert not shows_nothing(form((room // 5).astype(np.uint8)))
