# SPDX-License-Identifier: Apache-2.0
"""The container of detections, and drawing them."""

from __future__ import annotations

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.drawing import BOX_COLOUR, draw_detections


def test_scaling_moves_x_and_y_apart():
    found = Detections.from_arrays([[10, 20, 30, 40]], [0.5], (100, 200))

    scaled = found.scale_to((300, 400))

    assert scaled.image_size == (300, 400)
    assert scaled.xyxy.tolist() == [[20, 60, 60, 120]]
    assert scaled.score is found.score


def test_width_and_height():
    found = Detections.from_arrays([[10, 20, 30, 45]], [0.5], (100, 200))

    assert (found.width.tolist(), found.height.tolist()) == ([20.0], [25.0])


def test_clipping_cuts_at_the_border_and_drops_what_is_outside():
    boxes = [[-5, -5, 10, 10], [90, 90, 300, 300], [201, 0, 210, 10]]

    clipped = Detections.from_arrays(boxes, [0.9, 0.8, 0.7], (100, 200)).clip()

    assert clipped.xyxy.tolist() == [[0, 0, 10, 10], [90, 90, 200, 100]]
    assert clipped.score.tolist() == pytest.approx([0.9, 0.8])


def test_above_keeps_the_sure_ones():
    found = Detections.from_arrays(np.zeros((3, 4)), [0.9, 0.2, 0.5], (10, 10))

    assert found.above(0.5).score.tolist() == pytest.approx([0.9, 0.5])


def test_nobody_is_a_box_array_of_shape_zero_by_four():
    for nobody in (Detections((10, 10)), Detections.from_arrays([], [], (10, 10))):
        assert nobody.xyxy.shape == (0, 4)
        assert nobody.xyxy.dtype == np.float32
        assert len(nobody.scale_to((5, 5)).clip()) == 0


def test_wrong_shapes_are_refused():
    with pytest.raises(RoiCodecError, match=r"\[N, 4\]"):
        Detections((10, 10), np.zeros((1, 5), np.float32), np.zeros(1, np.float32))
    with pytest.raises(RoiCodecError, match="1 scores"):
        Detections((10, 10), np.zeros((1, 4), np.float32), np.zeros(2, np.float32))
    with pytest.raises(RoiCodecError, match="1×1"):
        Detections((0, 10))


def test_drawing_paints_the_box_and_leaves_the_image_alone():
    image = np.zeros((60, 80, 3), np.uint8)
    found = Detections.from_arrays([[20, 20, 60, 50]], [0.5], (60, 80))

    drawn = draw_detections(image, found)

    assert not image.any()
    assert tuple(drawn[35, 20]) == BOX_COLOUR
    assert not drawn[35, 40].any()


def test_drawing_scales_boxes_to_the_image():
    image = np.zeros((60, 80, 3), np.uint8)
    found = Detections.from_arrays([[40, 40, 120, 100]], [0.5], (120, 160))

    assert tuple(draw_detections(image, found)[35, 20]) == BOX_COLOUR
