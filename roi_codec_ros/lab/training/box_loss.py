# SPDX-License-Identifier: Apache-2.0
"""How far a detector's persons are from annotated boxes, as YOLOv8 is trained.

Places are assigned to boxes by how well they do already (TOOD: Feng et al., 2021), scores are
taught by cross entropy, sides by their distribution (generalized focal loss: Li et al., 2020) and
by the boxes' overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import complete_box_iou_loss

from roi_codec_ros.perception.person_detector import box_assigner

SCORES_WEIGHT, SIDES_WEIGHT, OVERLAP_WEIGHT = 0.5, 1.5, 7.5  # as YOLOv8's
PLACES_OF_A_BOX = 10


@dataclass(frozen=True, eq=False)
class CropBoxes:
    """What is annotated in a crop; boxes are float32 [N, 4], x0, y0, x1, y1 in its pixels.

    persons: None where nobody has marked them. ignored: where there may be a person or not.
    """

    persons: NDArray[np.float32] | None
    ignored: NDArray[np.float32]


class BoxLoss(nn.Module):
    """The loss of a batch's predictions against its boxes."""

    def __init__(self, strides: Sequence[int]) -> None:
        """strides: of the predictions, in px. Raises RoiCodecError without ultralytics."""
        super().__init__()
        self._strides = tuple(strides)
        self._assign = box_assigner(PLACES_OF_A_BOX)

    def forward(
        self, predictions: Sequence[tuple[Tensor, Tensor]], boxes: Sequence[CropBoxes]
    ) -> Tensor:
        """A scalar; 0 where no crop is annotated.

        predictions: by stride, logits of a person [B, 1, h, w] and of the distances to the sides
        of its box [B, 4 * bins, h, w], as `features.detection_distance` takes them.
        """
        chosen = [index for index, crop in enumerate(boxes) if crop.persons is not None]
        if not chosen:
            return torch.zeros(())
        logits, sides, places, strides = self._flat(predictions, chosen)
        crops = [boxes[index] for index in chosen]
        wanted, there = _padded(crops, logits.device)
        bins = torch.arange(sides.shape[-1], dtype=torch.float32, device=sides.device)
        distances = (sides.softmax(dim=-1) * bins).sum(dim=-1) * strides[:, None]
        found = torch.cat([places - distances[..., :2], places + distances[..., 2:]], dim=-1)
        _, assigned, scores, taken, _ = self._assign(
            logits.detach().sigmoid()[..., None],
            found.detach(),
            places,
            torch.zeros(*wanted.shape[:2], 1, dtype=torch.long, device=wanted.device),
            wanted,
            there,
        )
        scores, taken = scores[..., 0].float(), taken.bool()
        total = scores.sum().clamp_min(1.0)
        counted = (taken | ~_inside(places, crops)).float()
        entropy = functional.binary_cross_entropy_with_logits(logits, scores, reduction="none")
        loss = SCORES_WEIGHT * (entropy * counted).sum() / total
        if not taken.any():
            return loss
        weight, boxes_there = scores[taken], assigned[taken].float()
        overlap = complete_box_iou_loss(found[taken], boxes_there)
        at = places.expand_as(found[..., :2])[taken]
        scale = strides.expand(taken.shape)[taken][:, None]
        reach = torch.cat([at - boxes_there[:, :2], boxes_there[:, 2:] - at], dim=-1) / scale
        sided = _distribution_loss(sides[taken], reach)
        return loss + (weight * (OVERLAP_WEIGHT * overlap + SIDES_WEIGHT * sided)).sum() / total

    def _flat(
        self, predictions: Sequence[tuple[Tensor, Tensor]], chosen: list[int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits [B, P], sides [B, P, 4, bins], places [P, 2] and strides [P] in px."""
        logits, sides, places, strides = [], [], [], []
        for (person, distances), stride in zip(predictions, self._strides, strict=True):
            rows, columns = person.shape[-2:]
            logits.append(person[chosen].float().flatten(1))
            of_sides = distances[chosen].float().unflatten(1, (4, -1)).flatten(3)
            sides.append(of_sides.permute(0, 3, 1, 2))
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            centres = (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride
            places.append(centres.to(person.device))
            strides.append(torch.full((rows * columns,), float(stride), device=person.device))
        return torch.cat(logits, 1), torch.cat(sides, 1), torch.cat(places), torch.cat(strides)


def _padded(crops: Sequence[CropBoxes], device: torch.device) -> tuple[Tensor, Tensor]:
    """Boxes [B, N, 4] with as many rows as the most have, and which are there, [B, N, 1]."""
    persons = [crop.persons for crop in crops if crop.persons is not None]
    most = max(len(boxes) for boxes in persons)
    wanted, there = torch.zeros(len(persons), most, 4), torch.zeros(len(persons), most, 1)
    for index, boxes in enumerate(persons):
        wanted[index, : len(boxes)] = torch.from_numpy(boxes)
        there[index, : len(boxes)] = 1.0
    return wanted.to(device), there.to(device)


def _inside(places: Tensor, crops: Sequence[CropBoxes]) -> Tensor:
    """Which places [P, 2] lie in an ignored box of each crop: bool [B, P]."""
    inside = []
    for crop in crops:
        boxes = torch.from_numpy(crop.ignored).to(places.device)[:, None]
        within = (places > boxes[..., :2]) & (places < boxes[..., 2:])
        inside.append(within.all(dim=-1).any(dim=0))
    return torch.stack(inside)


def _distribution_loss(sides: Tensor, reach: Tensor) -> Tensor:
    """Cross entropy of the two bins around each distance: [N].

    sides: logits [N, 4, bins]. reach: distances in strides, [N, 4].
    """
    most = sides.shape[-1] - 1
    reach = reach.clamp(0, most - 0.01)
    low = reach.long()
    share = reach - low
    log_q = sides.log_softmax(dim=-1)
    below, above = (log_q.gather(-1, bins[..., None])[..., 0] for bins in (low, low + 1))
    return -((1 - share) * below + share * above).mean(dim=-1)
