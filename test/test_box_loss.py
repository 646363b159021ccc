# SPDX-License-Identifier: Apache-2.0
"""The detector learns annotated boxes, nothing where nobody marked any, and no ignored place."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ultralytics")

from roi_codec_ros.lab.datasets.annotations import Annotation  # noqa: E402
from roi_codec_ros.lab.training.box_loss import BoxLoss, CropBoxes  # noqa: E402
from roi_codec_ros.lab.training.detector_data import PairBatches, PairCrops  # noqa: E402

SIDE_PX, STRIDES, BINS = 160, (8, 16, 32), 16
NO_BOX = np.zeros((0, 4), np.float32)
BODY = np.array([[20, 30, 60, 110]], np.float32)


def predictions(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (
            torch.full((count, 1, SIDE_PX // s, SIDE_PX // s), -3.0, requires_grad=True),
            torch.zeros(count, 4 * BINS, SIDE_PX // s, SIDE_PX // s, requires_grad=True),
        )
        for s in STRIDES
    ]


def best_box(logits: torch.Tensor, sides: torch.Tensor, stride: int) -> tuple[float, list[float]]:
    """The score and the box, in px, of the best place of one image [1, h, w]."""
    row, column = np.unravel_index(int(logits[0].argmax()), logits[0].shape)
    reach = sides[:, row, column].unflatten(0, (4, BINS)).softmax(1) @ torch.arange(float(BINS))
    x, y = (float(value) + 0.5 for value in (column, row))
    left, top, right, bottom = reach.tolist()
    box = [x - left, y - top, x + right, y + bottom]
    return float(logits[0].sigmoid().max()), [stride * value for value in box]


def test_predictions_that_follow_the_loss_become_the_boxes() -> None:
    loss, learnt = BoxLoss(STRIDES), predictions(2)
    crops = [CropBoxes(BODY, NO_BOX), CropBoxes(NO_BOX, NO_BOX)]
    optimizer = torch.optim.Adam([x for pair in learnt for x in pair], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss(learnt, crops).backward()
        optimizer.step()

    found = [
        best_box(persons[0].detach(), sides[0].detach(), stride)
        for (persons, sides), stride in zip(learnt, STRIDES, strict=True)
    ]
    score, box = max(found)
    assert score > 0.9
    np.testing.assert_allclose(box, BODY[0], atol=3)
    nobody = [float(persons[1].detach().sigmoid().max()) for persons, _ in learnt]
    assert max(nobody) < 0.02


def test_photographs_without_annotated_persons_teach_nothing() -> None:
    learnt = predictions(1)

    assert float(BoxLoss(STRIDES)(learnt, [CropBoxes(None, NO_BOX)])) == 0

    loss = BoxLoss(STRIDES)(learnt, [CropBoxes(NO_BOX, np.array([[0, 0, 80, 160]], np.float32))])
    loss.backward()
    slope = learnt[0][0].grad
    assert slope is not None
    assert float(slope[..., :10].abs().max()) == 0 < float(slope[..., 10:].abs().min())


@pytest.mark.parametrize("seed", range(4))
def test_boxes_move_with_the_crop(tmp_path: Path, seed: int) -> None:
    # A white body on black: the box in the crop is where the crop is white.
    picture = np.zeros((150, 200, 3), np.uint8)
    picture[40:120, 60:110] = 255
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture)
    boxes = np.array([[60, 40, 110, 120]], np.float32)
    marked = Annotation(path, "a", 200, 150, boxes, NO_BOX, NO_BOX)
    crops = PairCrops(size=160, longest_px=200, max_zoom=1.0, originals=0.0)

    batch = PairBatches([(marked, path)], crops).batch(6, np.random.default_rng(seed))

    for image, crop in zip(batch.decoded, batch.boxes, strict=True):
        rows, columns = np.nonzero(image.min(axis=2) > 160)
        assert crop.persons is not None and len(crop.persons) == 1
        white = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(crop.persons[0], white, atol=1.5)


def test_persons_of_whom_little_is_in_the_crop_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.zeros((64, 320, 3), np.uint8))
    boxes = np.array([[0, 0, 320, 64]], np.float32)
    crops = PairCrops(size=64, longest_px=320, min_zoom=1.0, max_zoom=1.0)
    for made_by, persons in (("human", NO_BOX), ("none", None)):
        marked = Annotation(path, "a", 320, 64, boxes, NO_BOX, NO_BOX, person_boxes=made_by)

        (crop,) = PairBatches([(marked, path)], crops).batch(1, np.random.default_rng(1)).boxes

        assert (crop.persons is None) == (persons is None)
        assert len(crop.ignored) == (persons is not None)
