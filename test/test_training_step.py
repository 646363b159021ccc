# SPDX-License-Identifier: Apache-2.0
"""The loss of a step is the weighted sum of equation (6), whatever its regions are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("compressai")

from roi_codec_ros.lab.training import losses
from roi_codec_ros.lab.training.config import TrainingConfig, parse_config
from roi_codec_ros.lab.training.step import CodecLoss

NONE = torch.zeros(0, 4)


def batch() -> tuple[Tensor, dict[str, list[Tensor]]]:
    """Two pictures: a person whose head is cut by the border; one without boxes inside."""
    torch.manual_seed(0)
    heads = [torch.tensor([[10.0, -5, 30, 20], [20.0, 10, 40, 30]]), torch.tensor([[70.0] * 4])]
    persons = [torch.tensor([[5.0, -5, 50, 64]]), NONE]
    return torch.rand(2, 3, 64, 64), {"head": heads, "person": persons}


def step(regions: dict[str, Any], **more: Any) -> tuple[CodecLoss, TrainingConfig]:
    config = parse_config(
        {"preset": "paper-128-2", "precision": "fp32", "regions": regions, **more}
    )
    torch.manual_seed(1)
    return CodecLoss(config).train(), config


def test_invert_and_keep_with_the_papers_weights_are_the_papers_loss() -> None:
    x, boxes = batch()
    regions = {"head": {"invert": {"weight": 0.6}}, "person": {"keep": {"weight": 1.0}}}
    module, config = step(regions, skip_unknown_heads=False)
    torch.manual_seed(2)
    _, figures = module(x, boxes, [NONE, NONE], config)

    torch.manual_seed(2)
    y = module.codec.code(x, reduced_precision=False)
    x_hat, likelihoods = module.codec(y, reduced_precision=False)
    # Equation (6) with the paper's weights.
    paper = (
        0.04 * losses.rate_bpp(likelihoods, 64 * 64)
        + 1.0 * losses.background_loss(x, x_hat)
        + 0.6 * losses.head_loss(x, x_hat, boxes["head"])
        + 1.0 * losses.visible_person_loss(x, x_hat, boxes["person"])
    )
    assert figures["loss"].item() == pytest.approx(paper.item(), rel=1e-6)


def test_fill_leaves_out_what_nobody_annotated() -> None:
    x, boxes = batch()
    unknown = [NONE, torch.tensor([[0.0, 0, 32, 64]])]
    regions = {
        "person": {"keep": {"weight": 3.0}},
        "head": {"fill": {"weight": 20.0, "cells": 2}},
    }
    module, config = step(regions, lambda_rate=0.2)
    torch.manual_seed(2)
    _, figures = module(x, boxes, unknown, config)

    torch.manual_seed(2)
    y = module.codec.code(x, reduced_precision=False)
    x_hat, likelihoods = module.codec(y, reduced_precision=False)
    target = losses.fill_regions(x, boxes["head"], cells=2)
    known = torch.ones(2, 1, 64, 64)
    known[1, :, :, :32] = 0.0
    expected = (
        0.2 * losses.rate_bpp(likelihoods, 64 * 64)
        + losses.background_loss(target, x_hat, known)
        + 3.0 * losses.visible_person_loss(target, x_hat, boxes["person"], known)
        + 20.0 * losses.region_loss(target, x_hat, boxes["head"], k=0)
    )
    assert figures["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
