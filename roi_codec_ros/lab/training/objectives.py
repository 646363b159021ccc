# SPDX-License-Identifier: Apache-2.0
"""What shall become of the boxes of a class: objectives by name, with their settings and losses.

A class is kept or hidden; several objectives that hide combine, each with a weight of its own.
Where boxes overlap, the hidden class wins over the kept one: ``keep`` wants what ``fill`` has
painted. Only under ``invert``, the paper's objective, does a pixel count in both terms, as in its
equations. Of two filled classes the one that is named later is painted last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from roi_codec_ros.codec.presets import Preset
from roi_codec_ros.codec.receptive_field import receptive_field
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.training import losses
from roi_codec_ros.lab.training.adversary import duel
from roi_codec_ros.lab.training.losses import Boxes, pixel_ranges
from roi_codec_ros.lab.training.settings import number, positive, read_settings


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
class Code:
    """weight: price of the distance to the latents of the filled photograph."""

    weight: float = number(0.001, 0.0)


@dataclass(frozen=True)
class Rate:
    """weight: price of a bit at a latent place that sees the box, mean over such places.

    reach_px: how far beyond its own stride × stride pixels a place counts as seeing; null is its
    whole receptive field, which for presets with a wide context is most of a crowded picture.
    """

    weight: float = number(0.01, 0.0)
    reach_px: int | None = number(None, 0)


@dataclass(frozen=True)
class Adversary:
    """weight: what a drop of the attacker's squared error costs; width: of its network;
    restart_steps: after so many it begins anew, so that the codec does not learn one opponent."""

    weight: float = number(5.0, 0.0)
    width: int = number(64, 8, 1024)
    learning_rate: float = positive(1e-3)
    restart_steps: int = number(2000, 1)


RegionSettings = Keep | Invert | Fill | Code | Rate | Adversary
Regions = dict[str, dict[str, RegionSettings]]


@dataclass(frozen=True, eq=False)
class Scene:
    """One step as the objectives see it; images [B, 3, H, W] in [0, 1], latents [B, C, h, w].

    Attributes:
        x, x_hat: photographs and reconstructions.
        target: photographs with what is hidden filled.
        y, y_hat: latents before and after rounding (which lets gradients through).
        likelihoods: of the latents, as in equation (1).
        boxes: by class, one tensor [N, 4] an image.
        known: weight [B, 1, H, W] of pixels in what is kept, None for all alike.
        cells: by hidden class, how many colours its filling has in each direction.
        reach: of the analysis.
        code: images to latents, without gradients.
        attackers: by class.
        duels: what the attackers of this step are to lower, by class; filled in by ``adversary``.
    """

    x: Tensor
    target: Tensor
    x_hat: Tensor
    y: Tensor
    y_hat: Tensor
    likelihoods: Tensor
    boxes: Mapping[str, Boxes]
    known: Tensor | None
    cells: Mapping[str, int]
    reach: Reach
    code: Callable[[Tensor], Tensor]
    attackers: Mapping[str, nn.Module] = field(default_factory=dict)
    duels: dict[str, Tensor] = field(default_factory=dict)

    def filled(self, name: str) -> Tensor:
        """The photographs with the boxes of one class filled."""
        return losses.fill_regions(self.x, self.boxes[name], cells=self.cells[name])


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


@objective("code", Code)
def code_loss(scene: Scene, name: str, settings: Code) -> Tensor:
    """How much more the code says of the boxes than of their filling."""
    return losses.code_distance(scene.y, scene.code(scene.filled(name)))


@objective("rate", Rate)
def rate_loss(scene: Scene, name: str, settings: Rate) -> Tensor:
    """Bits a latent place that sees a box, mean over the batch's such places; 0 without any."""
    reach = scene.reach
    if settings.reach_px is not None:
        limit = settings.reach_px
        reach = Reach(reach.stride, min(reach.before, limit), min(reach.after, limit))
    height, width = scene.x.shape[-2:]
    seen = touched_places(scene.boxes[name], height, width, reach).to(scene.x.device)
    bits = -scene.likelihoods.log2().sum(dim=1)
    return (bits * seen).sum() / seen.sum().clamp_min(1.0)


@objective("adversary", Adversary)
def adversary_loss(scene: Scene, name: str, settings: Adversary) -> Tensor:
    """How much better than the filling the class's attacker restores the boxes; 0 or more."""
    sides = duel(
        scene.attackers[name], scene.y_hat, scene.x, scene.filled(name), scene.boxes[name]
    )
    scene.duels[name] = sides.attacker
    return sides.encoder


def default_regions() -> Regions:
    """What ships: persons are kept, heads become thumbnails, in the picture and in the code."""
    return {"person": {"keep": Keep(3.0)}, "head": {"fill": Fill(), "code": Code()}}


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


def filling_cells(regions: Regions) -> dict[str, int]:
    """By hidden class, the cells of its ``fill``; 1 where it is hidden in other ways only."""
    fills = {name: regions[name].get("fill") for name in hidden_classes(regions)}
    return {name: fill.cells if isinstance(fill, Fill) else 1 for name, fill in fills.items()}


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
    """Weight [B, 1, H, W]: 0 where a head may be that nobody annotated, else 1."""
    outside = 1.0 - losses.region_mask(heads, height, width)
    return torch.as_tensor(1.0 - losses.region_mask(unknown, height, width) * outside)


class Reach(NamedTuple):
    """Latent place ``i`` sees the pixels from ``i·stride − before`` to ``(i+1)·stride + after``.

    The same in both directions. Where places differ (an upsampling within), the widest counts.
    """

    stride: int
    before: int
    after: int


def reach_of(preset: Preset) -> Reach:
    """The reach of a preset's analysis: its receptive field, the widest of the phases."""
    field = receptive_field(preset)
    before = max(-start for start, _ in field.ranges)
    after = max(end for _, end in field.ranges) - field.stride
    return Reach(field.stride, before, max(after, 0))


def touched_places(boxes: Boxes, height: int, width: int, reach: Reach) -> Tensor:
    """Mask [B, ⌈H / stride⌉, ⌈W / stride⌉]: 1 where a place sees a pixel of any of its boxes."""
    rows, columns = -(-height // reach.stride), -(-width // reach.stride)
    mask = torch.zeros(len(boxes), rows, columns)
    for image_mask, image_boxes in zip(mask, boxes, strict=True):
        for vertical, horizontal in pixel_ranges(image_boxes, height, width):
            image_mask[_places(vertical, reach), _places(horizontal, reach)] = 1.0
    return mask


def _places(pixels: slice, reach: Reach) -> slice:
    first = (pixels.start - reach.after) // reach.stride
    last = (pixels.stop - 1 + reach.before) // reach.stride
    return slice(max(first, 0), max(last, 0) + 1)
