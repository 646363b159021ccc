# SPDX-License-Identifier: Apache-2.0
"""Objectives by class of boxes, against values worked out by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from roi_codec_ros.codec.networks import build_transforms
from roi_codec_ros.codec.presets import get_preset
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.training.adversary import Attacker, duel
from roi_codec_ros.lab.training.objectives import (
    Code,
    Fill,
    Invert,
    Keep,
    Rate,
    Reach,
    Regions,
    Scene,
    filled_target,
    filling_cells,
    known_pixels,
    reach_of,
    read_regions,
    touched_places,
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
    y = torch.zeros(len(x), 1, 1, 1)
    return Scene(
        x=x,
        target=filled_target(x, boxes, regions),
        x_hat=x_hat,
        y=y,
        y_hat=y,
        likelihoods=torch.ones_like(y),
        boxes=boxes,
        known=None,
        cells=filling_cells(regions),
        reach=Reach(stride=8, before=14, after=7),
        code=lambda images: functional.avg_pool2d(images.mean(dim=1, keepdim=True), 4),
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
        "head": {"invert": Invert(), "fill": Fill(), "code": Code(), "rate": Rate()},
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


def test_the_code_of_a_photograph_that_is_its_own_filling_costs_nothing() -> None:
    regions: Regions = {"head": {"code": Code()}}
    boxes = {"head": [box(2, 2, 6, 6)]}
    dark, bright = torch.zeros(1, 3, 8, 8), half_bright()
    assert terms(boxes, regions, dark, dark) == {"head.code": 0.0}
    told = scene(bright, bright, boxes, regions)
    # Latents are means of 4×4, four times that: 0 1 / 0 1 of the picture, and 0 of its filling.
    told = dataclasses.replace(
        told, y=4 * told.code(bright), code=lambda x: torch.zeros(1, 1, 2, 2)
    )
    ((_, term, _),) = region_terms(told, regions)
    # Two places differ by one step, two not at all; a variance of a quarter, and the quarter.
    assert term.item() == pytest.approx(2.0)


# ------------------------------------------------------------------------------------------- rate


@pytest.mark.parametrize(
    ("preset", "reach"), [("paper-256-1", (8, 14, 7)), ("paper-128-2", (16, 30, 15))]
)
def test_the_receptive_field_of_the_papers_networks(
    preset: str, reach: tuple[int, int, int]
) -> None:
    """n convolutions 5×5 of stride 2 see 2·(2^n − 1) pixels to either side of a centre."""
    assert tuple(reach_of(get_preset(preset))) == reach


def test_no_latent_beyond_its_reach_changes_with_a_pixel() -> None:
    torch.manual_seed(0)
    analysis, _ = build_transforms(get_preset("nano"))
    for parameter in analysis.parameters():
        nn.init.normal_(parameter, std=0.1)
    reach = reach_of(get_preset("nano"))
    x = torch.rand(1, 3, 320, 320)
    changed = x.clone()
    changed[..., 170, 150] += 10.0
    with torch.no_grad():
        differs = (analysis(changed) - analysis(x)).abs().amax(dim=1) > 1e-4
    pixel = box(150, 170, 151, 171)
    told = touched_places([pixel], 320, 320, reach).bool()
    assert differs.any()
    assert not (differs & ~told).any()
    assert told.sum() < 1.5 * differs.sum()  # and the reach is no wider than it must be


def test_bits_are_priced_where_a_latent_sees_the_box() -> None:
    # The box ends at pixel 3: places 0 to 2 of 4 see it, since place 2 begins at 2·8 − 14.
    regions: Regions = {"head": {"rate": Rate()}}
    x = torch.zeros(1, 3, 32, 32)
    likelihoods = torch.ones(1, 2, 4, 4)
    likelihoods[:, :, 0, 0] = 0.25  # two channels of 2 bits
    likelihoods[:, :, 3, 3] = 2.0**-20  # out of reach
    seen = scene(x, x, {"head": [box(0, 0, 4, 4)]}, regions)
    seen = dataclasses.replace(seen, likelihoods=likelihoods)
    ((_, term, _),) = region_terms(seen, regions)
    assert term.item() == pytest.approx(4 / 9)
    ((_, near, _),) = region_terms(seen, {"head": {"rate": Rate(reach_px=0)}})
    assert near.item() == pytest.approx(4 / 1)


# -------------------------------------------------------------------------------------- adversary


class Oracle(nn.Module):
    """An attacker whose picture is a constant brightness."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, latents: Tensor) -> Tensor:
        return self.value + 0.0 * latents.sum() + torch.zeros(1, 3, 8, 8)


def test_the_encoder_pays_for_what_the_attacker_restores_beyond_the_filling() -> None:
    x, head = torch.zeros(1, 3, 8, 8), [box(2, 2, 6, 6)]
    filled = x + 0.4
    latents = torch.zeros(1, 1, 1, 1, requires_grad=True)
    better, worse = (duel(Oracle(v), latents, x, filled, head) for v in (0.1, 0.9))
    assert better.attacker.item() == pytest.approx(0.01)
    assert better.encoder.item() == pytest.approx(0.16 - 0.01)
    assert worse.attacker.item() == pytest.approx(0.81)
    assert worse.encoder.item() == 0.0


def test_each_side_of_the_duel_moves_only_its_own_weights() -> None:
    torch.manual_seed(0)
    attacker = Attacker(channels=4, stride=8, width=8)
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    x = attacker(latents).detach() + 0.01  # which the attacker restores nearly
    sides = duel(attacker, latents, x, x + 0.5, [box(0, 0, 16, 16)])

    sides.attacker.backward(retain_graph=True)
    assert latents.grad is None
    own = [parameter.grad for parameter in attacker.parameters()]
    assert all(grad is not None for grad in own)
    attacker.zero_grad()
    sides.encoder.backward()
    assert all(parameter.grad is None for parameter in attacker.parameters())
    assert latents.grad is not None
    # A step down the encoder's loss makes the attacker's error larger.
    moved = (latents - 10.0 * latents.grad).detach()
    after = duel(attacker, moved, x, x + 0.5, [box(0, 0, 16, 16)])
    assert after.attacker > sides.attacker


def test_an_attacker_begins_anew_the_same_way_for_the_same_seed() -> None:
    attacker = Attacker(channels=4, stride=8, width=8)
    torch.manual_seed(3)
    undisturbed = torch.rand(1)
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(3)
        attacker.restart(seed)
        assert torch.equal(torch.rand(1), undisturbed)
        drawn.append(attacker(torch.ones(1, 4, 2, 2)))
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


# ------------------------------------------------------------------------------------------ names


def test_classes_and_objectives_are_read_by_name() -> None:
    regions = read_regions(
        {"Number plate": {"fill": {"cells": 1}, "rate": None}, "tool": {"keep": {"weight": 2}}}
    )
    assert regions == {
        "number plate": {"fill": Fill(cells=1), "rate": Rate()},
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
        ({"head": {"rate": {"weight": -1}}}, r"of 0 or more as regions.head.rate.weight"),
        ({"head": {"rate": {"weight": float("nan")}}}, r"as regions.head.rate.weight, found nan"),
        (
            {"head": {"rate": {"weight": True}}},
            r"a number as regions.head.rate.weight, found True",
        ),
    ],
)
def test_a_mistake_in_the_regions_is_one_line_that_names_the_key(
    values: Any, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        read_regions(values)
    assert "\n" not in str(caught.value)
