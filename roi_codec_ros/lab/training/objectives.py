# SPDX-License-Identifier: Apache-2.0
"""Objectives for the boxes of a class, by name, with their settings and losses.

A class is kept or hidden; several objectives that hide combine, each with a weight of its own.
Where boxes overlap, the hidden class wins over the kept one: ``keep`` wants what ``fill`` has
painted. Only under ``invert``, the paper's objective, does a pixel count in both terms, as in its
equations. Of two filled classes the one that is named later is painted last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.training import losses
from roi_codec_ros.lab.training.losses import Boxes
from roi_codec_ros.lab.training.settings import number, read_settings


@dataclass(frozen=True)
class Keep:
    """weight: price of the squared error in the boxes, λ_vbox of equation (6)."""

    weight: float = number(1.0, 0.0)


@dataclass(frozen=True)
class Invert:
    """weight: of equation (5), λ_hbox of equation (6)."""

    weight: float = number(0.6, 0.0)


@dataclass(frozen=True)
class Fill:
    """weight: price of the distance to the filled box; cells: N × N mean colours are kept."""

    weight: float = number(20.0, 0.0)
    cells: int = number(2, 1, 64)


@dataclass(frozen=True)
class Mark:
    """weight: price of the cross entropy between what is drawn and a map of the boxes."""

    weight: float = number(1.0, 0.0)


RegionSettings = Keep | Invert | Fill | Mark
Regions = dict[str, dict[str, RegionSettings]]


@dataclass(frozen=True, eq=False)
class Scene:
    """One step as the objectives see it; images [B, 3, H, W] in [0, 1].

    Attributes:
        x, x_hat: photographs and reconstructions.
        target: photographs with what is hidden filled.
        boxes: by class, one tensor [N, 4] an image.
        known: weight [B, 1, H, W] of pixels in what is kept, None for all alike.
    """

    x: Tensor
    target: Tensor
    x_hat: Tensor
    boxes: Mapping[str, Boxes]
    known: Tensor | None


Loss = Callable[[Scene, str, Any], Tensor]


@dataclass(frozen=True)
class Objective:
    """settings: its dataclass; loss: of a scene, a class and the settings, without the weight."""

    settings: type[Any]
    loss: Loss
    hides: bool


OBJECTIVES: dict[str, Objective] = {}


def objective(name: str, settings: type[Any], hides: bool = True) -> Callable[[Loss], Loss]:
    """Register a loss as ``name``."""

    def register(loss: Loss) -> Loss:
        OBJECTIVES[name] = Objective(settings, loss, hides)
        return loss

    return register


@objective("keep", Keep, hides=False)
def keep_loss(scene: Scene, name: str, settings: Keep) -> Tensor:
    """Equation (4) against the target: the boxes are kept, but for what is hidden in them."""
    return losses.visible_person_loss(scene.target, scene.x_hat, scene.boxes[name], scene.known)


@objective("invert", Invert)
def invert_loss(scene: Scene, name: str, settings: Invert) -> Tensor:
    """Equation (5); its optimum is the negative, which anyone can turn back."""
    return losses.head_loss(scene.x, scene.x_hat, scene.boxes[name])


@objective("fill", Fill)
def fill_loss(scene: Scene, name: str, settings: Fill) -> Tensor:
    """Equation (3), k = 0, against the target: the boxes become thumbnails of themselves."""
    return losses.region_loss(scene.target, scene.x_hat, scene.boxes[name], k=0)


@objective("mark", Mark)
def mark_loss(scene: Scene, name: str, settings: Mark) -> Tensor:
    """The reconstruction becomes a map, white in the boxes and black elsewhere: not a picture.

    For a network that is set beside another, which it then whitens there (side_by_side.py).
    """
    return losses.map_loss(scene.x_hat, scene.boxes[name], scene.known)


def default_regions() -> Regions:
    """Persons are kept, heads become thumbnails."""
    return {"person": {"keep": Keep(3.0)}, "head": {"fill": Fill()}}


def read_regions(values: Any, where: str = "regions") -> Regions:
    """Classes with their objectives from a mapping of mappings. UsageErrors name the key."""
    if not isinstance(values, Mapping) or not values:
        raise UsageError(f"expected classes with their objectives as {where}, found {values!r}")
    regions: Regions = {}
    for name, wanted in values.items():
        key = f"{where}.{name}"
        if not isinstance(wanted, Mapping) or not wanted:
            raise UsageError(
                f"expected objectives among {', '.join(OBJECTIVES)} as {key}, found {wanted!r}"
            )
        for chosen in wanted:
            if chosen not in OBJECTIVES:
                raise UsageError(
                    f"expected an objective among {', '.join(OBJECTIVES)} in {key}, "
                    f"found {chosen!r}"
                )
        if len({OBJECTIVES[chosen].hides for chosen in wanted}) > 1:
            raise UsageError(
                f"expected {key} to be kept or hidden, found both: {', '.join(wanted)}"
            )
        regions[str(name).strip().lower()] = {
            chosen: read_settings(OBJECTIVES[chosen].settings, settings or {}, f"{key}.{chosen}")
            for chosen, settings in wanted.items()
        }
    return regions


def hidden_classes(regions: Regions) -> list[str]:
    """The classes that are to be hidden, in their order."""
    return [n for n, wanted in regions.items() if all(OBJECTIVES[o].hides for o in wanted)]


def filled_target(x: Tensor, boxes: Mapping[str, Boxes], regions: Regions) -> Tensor:
    """What the reconstruction should look like: ``x`` with every class that has a ``fill`` filled.

    Each class is painted from the pixels of ``x`` as the classes before it left them.
    """
    for name, wanted in regions.items():
        fill = wanted.get("fill")
        if isinstance(fill, Fill):
            x = losses.fill_regions(x, boxes[name], cells=fill.cells)
    return x


def known_pixels(heads: Boxes, unknown: Boxes, height: int, width: int) -> Tensor:
    """Weight [B, 1, H, W]: 0 where an unannotated head is possible, else 1."""
    outside = 1.0 - losses.region_mask(heads, height, width)
    return torch.as_tensor(1.0 - losses.region_mask(unknown, height, width) * outside)
