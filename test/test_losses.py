# SPDX-License-Identifier: Apache-2.0
"""The paper's equations (1) to (6) against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from roi_codec_ros.lab.training import losses

# Two 4×4 images: the reconstruction is off by 0.5 in the left half of the first, by 0.2 in the
# whole second, so that squared errors are 0.25 (left), 0 (right) and 0.04.
X = torch.zeros(2, 3, 4, 4)
X_HAT = X.clone()
X_HAT[0, :, :, :2] = 0.5
X_HAT[1] = 0.2

NONE = torch.zeros(0, 4)


def box(*corners: float) -> torch.Tensor:
    return torch.tensor([corners])


def test_rate_is_bits_over_pixels_and_images() -> None:
    likelihoods = torch.full((2, 1, 2, 2), 0.25)  # 8 symbols of 2 bits
    assert losses.rate_bpp(likelihoods, pixels_per_image=16).item() == pytest.approx(16 / 32)


def test_background_is_the_mean_squared_error_of_whole_images() -> None:
    assert losses.background_loss(X, X_HAT).item() == pytest.approx((0.125 + 0.04) / 2)


def test_boxes_count_alike_whatever_their_size_then_images_do() -> None:
    boxes = [
        torch.tensor([[0.0, 0, 2, 4], [2.0, 0, 3, 1]]),  # errors 0.25 and 0: mean 0.125
        box(0, 0, 1, 1),  # 0.04
    ]
    assert losses.region_loss(X, X_HAT, boxes, k=0).item() == pytest.approx((0.125 + 0.04) / 2)
    assert losses.visible_person_loss(X, X_HAT, boxes).item() == pytest.approx(0.0825)
    assert losses.head_loss(X, X_HAT, boxes).item() == pytest.approx(1 - 0.0825)


def test_overlapping_boxes_both_count() -> None:
    boxes = [torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 2, 4]]), NONE]
    assert losses.region_loss(X, X_HAT, boxes, k=0).item() == pytest.approx((0.125 + 0.25) / 2)


def test_an_image_without_boxes_takes_no_part() -> None:
    boxes = [NONE, box(0, 0, 4, 4)]
    assert losses.region_loss(X, X_HAT, boxes, k=0).item() == pytest.approx(0.04)


def test_a_box_is_cut_at_the_border() -> None:
    boxes = [box(-10, -10, 1, 1), NONE]
    assert losses.region_loss(X, X_HAT, boxes, k=0).item() == pytest.approx(0.25)


@pytest.mark.parametrize("k", [0, 1])
def test_without_any_pixel_the_loss_is_zero_and_so_is_its_gradient(k: int) -> None:
    boxes = [box(9, 9, 12, 12), box(1.6, 1.6, 2.4, 2.4)]  # outside; between pixel centres
    x_hat = X_HAT.clone().requires_grad_()
    loss = losses.region_loss(X, x_hat, boxes, k=k)
    loss.backward()
    assert loss.item() == 0.0
    assert x_hat.grad is not None
    assert x_hat.grad.abs().max().item() == 0.0


def test_the_head_term_rises_towards_the_original() -> None:
    boxes = [box(0, 0, 4, 4), NONE]
    near, far = X + 0.1, X + 0.9
    assert losses.head_loss(X, near, boxes).item() == pytest.approx(1 - 0.01)
    assert losses.head_loss(X, near, boxes) > losses.head_loss(X, far, boxes)


def test_the_head_term_is_bounded_by_the_negative() -> None:
    boxes = [box(0, 0, 4, 4), NONE]
    assert losses.head_loss(X, X + 1, boxes).item() == 0.0
    assert losses.head_loss(X, X + 9, boxes).item() == 0.0


def test_filled_heads_hold_one_colour_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 40, 40)
    filled = losses.fill_regions(x, [box(10, 10, 20, 20)])
    colour = x[0, :, 10:20, 10:20].mean(dim=(1, 2))

    centre = filled[0, :, 15, 15]
    torch.testing.assert_close(centre, colour)
    changed = (filled != x).any(dim=1)[0]
    rows, columns = changed.nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9, 20, 9, 20)
    assert changed.sum().item() == pytest.approx(math.pi * 6 * 6, rel=0.05)
    assert filled[0][:, changed].std(dim=1).max().item() < 1e-6


def test_a_head_keeps_no_more_than_its_thumbnail() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 48, 48)
    head = [box(12, 12, 36, 36)]
    means = functional.avg_pool2d(x[:, :, 12:36, 12:36], 8)[0]

    filled = losses.fill_regions(x, head, cells=3)
    torch.testing.assert_close(
        filled[0, :, 23:25, 23:25].mean(dim=(1, 2)), means[:, 1, 1], atol=0.02, rtol=0
    )
    # Any other head with those nine colours becomes the same picture.
    shuffled = x.clone()
    cells = shuffled[:, :, 12:36, 12:36].unfold(2, 8, 8).unfold(3, 8, 8)
    cells.copy_(cells.flip((-1, -2)))
    again = losses.fill_regions(shuffled, head, cells=3)
    inside = (filled != x).any(dim=1)[0]
    torch.testing.assert_close(filled[0][:, inside], again[0][:, inside])
    with pytest.raises(ValueError, match="at least one cell"):
        losses.fill_regions(x, head, cells=0)


def test_region_mask_marks_the_pixels_of_the_boxes() -> None:
    mask = losses.region_mask([box(1, 0, 3, 2), NONE], 4, 4)
    assert mask.sum().item() == 4
    assert mask[0, 0, :2, 1:3].min().item() == 1
