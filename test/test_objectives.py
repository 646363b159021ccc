# SPDX-License-Identifier: Apache-2.0
"""Objectives by class of boxes, against values worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.training.objectives import (
    Fill,
    Invert,
    Keep,
    Regions,
    Scene,
    filled_target,
    known_pixels,
    read_regions,
)
from roi_codec_ros.lab.training.step import region_terms

NONE = torch.zeros(0, 4)
PAPER: Regions = {"head": {"invert": Invert()}, "person": {"keep": Keep()}}

# Two 4×4 images whose squared errors are 0.25 in the left half of the first, 0 in its right half,
# and 0.04 in the whole second.
X = torch.zeros(2, 3, 4, 4)
X_HAT = X.clone()
X_HAT[0, :, :, :2] = 0.5
X_HAT[1] = 0.2


def box(*corners: float) -> Tensor:
    return torch.tensor([corners])


def scene(x: Tensor, x_hat: Tensor, boxes: Mapping[str, Any], regions: Regions) -> Scene:
    return Scene(
        x=x,
        target=filled_target(x, boxes, regions),
        x_hat=x_hat,
        boxes=boxes,
        known=None,
    )


def terms(
    boxes: Mapping[str, Any], regions: Regions, x: Tensor = X, x_hat: Tensor = X_HAT
) -> dict[str, float]:
    every = region_terms(scene(x, x_hat, boxes, regions), regions)
    return {name: term.item() for name, term, _ in every}


def test_two_images_by_the_papers_equations() -> None:
    boxes = {
        "head": [box(0, 0, 2, 4), box(0, 0, 1, 1)],  # 0.25 and 0.04: mean 0.145
        "person": [box(0, 0, 4, 4), box(0, 0, 4, 4)],  # 0.125 and 0.04: mean 0.0825
    }
    found = region_terms(scene(X, X_HAT, boxes, PAPER), PAPER)
    assert {n: t.item() for n, t, _ in found} == pytest.approx(
        {"head.invert": 1 - 0.145, "person.keep": 0.0825}
    )
    assert [weight for _, _, weight in found] == [0.6, 1.0]


@pytest.mark.parametrize(
    ("first", "second", "mse"),
    [
        (torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 2, 4]]), NONE, (0.125 + 0.25) / 2),  # overlap
        (NONE, box(0, 0, 4, 4), 0.04),  # an image without boxes takes no part
        (box(-10, -10, 1, 1), NONE, 0.25),  # cut by the border
        (box(9, 9, 12, 12), box(1, 1, 3, 3), 0.04),  # nothing left inside the first image
    ],
)
def test_boxes_of_any_class_are_kept_or_inverted(
    first: Tensor, second: Tensor, mse: float
) -> None:
    regions: Regions = {"plate": {"invert": Invert()}, "tool": {"keep": Keep()}}
    boxes = {"plate": [first, second], "tool": [first, second]}
    assert terms(boxes, regions) == pytest.approx({"plate.invert": 1 - mse, "tool.keep": mse})


def test_without_any_pixel_every_term_is_zero_and_has_a_gradient_of_zero() -> None:
    regions: Regions = {
        "head": {"invert": Invert(), "fill": Fill()},
        "person": {"keep": Keep()},
    }
    boxes = {"head": [box(9, 9, 12, 12), NONE], "person": [NONE, box(1.6, 1.6, 2.4, 2.4)]}
    x_hat = X_HAT.clone().requires_grad_()
    found = region_terms(scene(X, x_hat, boxes, regions), regions)
    sum(term for _, term, _ in found).backward()  # type: ignore[union-attr]
    assert {term.item() for _, term, _ in found} == {0.0}
    assert x_hat.grad is not None and x_hat.grad.abs().max().item() == 0.0


def half_bright(side: int = 8) -> Tensor:
    """An 8×8 picture, black but for the right half of the box 2 2 6 6, which is white."""
    x = torch.zeros(1, 3, side, side)
    x[..., 2:6, 4:6] = 1.0
    return x


def test_where_boxes_overlap_the_hidden_one_wins() -> None:
    x = half_bright()
    regions: Regions = {"person": {"keep": Keep()}, "head": {"fill": Fill(cells=1)}}
    boxes = {"person": [box(0, 0, 8, 8)], "head": [box(2, 2, 6, 6)]}
    grey = x.clone()
    grey[..., 2:6, 2:6] = 0.5
    assert terms(boxes, regions, x, grey) == {"person.keep": 0.0, "head.fill": 0.0}
    # The photograph itself is off by 0.5 at 16 of the person's 64 pixels.
    assert terms(boxes, regions, x, x) == pytest.approx(
        {"person.keep": 0.25 * 16 / 64, "head.fill": 0.25}
    )


def test_under_invert_overlapping_boxes_both_count() -> None:
    boxes = {"head": [box(0, 0, 2, 4), NONE], "person": [box(0, 0, 2, 4), NONE]}
    assert terms(boxes, PAPER) == pytest.approx({"head.invert": 0.75, "person.keep": 0.25})


def test_of_two_filled_classes_the_later_one_is_painted_last() -> None:
    x = half_bright()
    boxes = {"head": [box(2, 2, 6, 6)], "badge": [box(2, 2, 4, 6)]}
    fills: Regions = {"head": {"fill": Fill(cells=1)}, "badge": {"fill": Fill(cells=2)}}
    target = filled_target(x, boxes, fills)
    assert target[0, :, 3:5, 4].unique().tolist() == [0.5]
    # The badge's thumbnail is made of what the head's filling has left: nothing of the picture.
    assert target[0, :, 3:5, 3].unique().tolist() == [0.5]


def test_heads_that_nobody_annotated_are_left_out_of_what_is_kept() -> None:
    known = known_pixels([box(0, 0, 2, 1)], [box(0, 0, 4, 2)], 4, 4)
    assert known[0, 0].tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


# ------------------------------------------------------------------------------------------ names


def test_classes_and_objectives_are_read_by_name() -> None:
    regions = read_regions(
        {"Number plate": {"fill": {"cells": 1}, "invert": None}, "tool": {"keep": {"weight": 2}}}
    )
    assert regions == {
        "number plate": {"fill": Fill(cells=1), "invert": Invert()},
        "tool": {"keep": Keep(weight=2.0)},
    }


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, r"expected classes with their objectives as regions"),
        ({"head": "fill"}, r"expected objectives among keep, invert, .* as regions.head"),
        ({"head": {"blur": {}}}, r"an objective among .* in regions.head, found 'blur'"),
        ({"head": {"fill": {}, "keep": {}}}, r"regions.head to be kept or hidden, found both"),
        ({"head": {"fill": {"size": 1}}}, r"among weight, cells; found 'regions.head.fill.size'"),
        ({"head": {"fill": {"cells": 0}}}, r"of 1 to 64 as regions.head.fill.cells, found 0"),
        ({"head": {"fill": {"cells": 1.5}}}, r"a whole number as regions.head.fill.cells"),
        ({"head": {"invert": {"weight": -1}}}, r"of 0 or more as regions.head.invert.weight"),
        (
            {"head": {"invert": {"weight": float("nan")}}},
            r"as regions.head.invert.weight, found nan",
        ),
        (
            {"head": {"invert": {"weight": True}}},
            r"a number as regions.head.invert.weight, found True",
        ),
    ],
)
def test_a_mistake_in_the_regions_is_one_line_that_names_the_key(
    values: Any, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        read_regions(values)
    assert "\n" not in str(caught.value)
