# SPDX-License-Identifier: Apache-2.0
"""Training targets of regions: blocks of heads and persons, and where they are unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.training.data import unannotated_heads
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.regions.blocks import heads_around

FloatArray = NDArray[np.float32]

# A teacher's person that overlaps an annotated one by less counts as unannotated.
SAME_PERSON_IOU = 0.5
STANDING = 1.8  # height to width from which on a person's head is at the middle of the top
SURE_FACE = 0.6


@dataclass(frozen=True, eq=False)
class RegionLabels:
    """Boxes of a photograph as x0, y0, x1, y1 in px, each with how sure it is, 0 to 1.

    persons, heads: float32 [N, 5]. unknown: float32 [U, 4], where a head may or may not be.
    """

    persons: FloatArray
    heads: FloatArray
    unknown: FloatArray

    def moved(self, matrix: NDArray[np.float64]) -> RegionLabels:
        """The boxes around what the affine [2, 3] makes of these."""
        return RegionLabels(
            *(_moved(boxes, matrix) for boxes in (self.persons, self.heads, self.unknown))
        )


def region_labels(annotation: Annotation, persons: Detections, faces: Detections) -> RegionLabels:
    """Labels from annotated boxes, and from teachers where there are no annotations.

    persons, faces: what the teachers find in the photograph, down to low scores. Where a face is
    doubtful it is unknown whether there is a head.
    """
    bodies = _sure(annotation.persons)
    least = 0.35 if annotation.person_boxes == "human" else 0.2
    found = persons.above(least)
    overlaps = box_iou(torch.from_numpy(found.xyxy), torch.from_numpy(annotation.persons)).numpy()
    missing = overlaps.max(axis=1, initial=0.0) < SAME_PERSON_IOU
    added = np.column_stack(
        [found.xyxy[missing], np.minimum(1.0, 1.15 * found.score[missing])]
    ).astype(np.float32)
    heads = heads_around(faces.xyxy)
    sure = faces.score >= SURE_FACE
    estimated, unknown = _heads_of_bodies(annotation)
    teachers_tops = _tops(added[:, :4])
    return RegionLabels(
        persons=np.concatenate([bodies, added]),
        heads=np.concatenate([_sure(annotation.heads), estimated, _sure(heads[sure])]),
        unknown=np.concatenate([unknown, teachers_tops, heads[~sure]]),
    )


def _heads_of_bodies(annotation: Annotation) -> tuple[FloatArray, FloatArray]:
    """Where the heads of persons without a head box should be, and where they may be."""
    estimated = []
    unknown = unannotated_heads(annotation)
    tops = {(float(box[0]), float(box[1])) for box in unknown}
    for x0, y0, x1, y1 in annotation.persons:
        width, height = x1 - x0, y1 - y0
        if (float(x0), float(y0)) not in tops or height <= STANDING * width or y0 <= 4:
            continue
        half = 0.7 * min(0.5 * width, 0.16 * height)
        centre = (x0 + x1) / 2
        estimated.append([centre - half, y0, centre + half, y0 + 0.15 * height, 0.7])
    return np.array(estimated, np.float32).reshape(-1, 5), unknown.astype(np.float32)


def _tops(persons: FloatArray) -> FloatArray:
    """The upper third of boxes [N, 4]."""
    tops = persons.copy()
    tops[:, 3] = persons[:, 1] + 0.35 * (persons[:, 3] - persons[:, 1])
    return tops


def _sure(boxes: FloatArray) -> FloatArray:
    return np.column_stack([boxes.reshape(-1, 4), np.ones(len(boxes))]).astype(np.float32)


def _moved(boxes: FloatArray, matrix: NDArray[np.float64]) -> FloatArray:
    corners = boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    points = corners @ matrix[:, :2].T + matrix[:, 2]
    moved = np.concatenate([points.min(axis=1), points.max(axis=1), boxes[:, 4:]], axis=1)
    return np.asarray(moved, np.float32)


class FaceTeacher:
    """YuNet at a low threshold, on the photograph and on an enlarged one for small faces."""

    SCORE, ENLARGED_SCORE = 0.3, 0.7
    ENLARGED_SIDE_PX = 1000

    def __init__(self, path: Path) -> None:
        """path: its ONNX file. Raises RoiCodecError for another."""
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), self.SCORE, 0.3)
        except cv2.error as error:
            raise RoiCodecError(f"expected YuNet's ONNX file at {path}") from error

    def detect(self, image: NDArray[np.uint8]) -> Detections:
        """Faces in an RGB image [H, W, 3], those of both sizes."""
        height, width = image.shape[:2]
        zoom = min(2.0, self.ENLARGED_SIDE_PX / max(height, width))
        larger = cv2.resize(image, None, fx=zoom, fy=zoom)
        plain = self._find(image, 1.0)
        enlarged = self._find(np.asarray(larger, np.uint8), zoom)
        found = np.concatenate([plain, enlarged[enlarged[:, 4] >= self.ENLARGED_SCORE]])
        return Detections.from_arrays(found[:, :4], found[:, 4], (height, width))

    def _find(self, image: NDArray[np.uint8], zoom: float) -> FloatArray:
        self._network.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._network.detect(np.ascontiguousarray(image[..., ::-1]))
        if rows is None:
            return np.zeros((0, 5), np.float32)
        corners = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]]) / zoom
        return np.column_stack([corners, rows[:, -1]]).astype(np.float32)


# ------------------------------------------------------------------------------------- on the grid

# A block belongs to a head that fills half of it. Of a small head it need not fill as much, where
# a good part of the head lies in it. What is filled less is taught neither as head nor as none.
HEAD_SHARE, SMALL_HEAD_SHARE, PART_OF_HEAD = 0.5, 0.12, 0.3
# Price of the blocks around a head, relative to that of the head's own: what is hidden beyond a
# head costs the person below it.
AROUND_HEAD = 1.5
HEAD, PERSON = 0, 1


def block_targets(
    labels: RegionLabels, rows: int, columns: int, block_px: int
) -> tuple[FloatArray, FloatArray]:
    """Wanted probabilities and prices of each block, both float32 [2, rows, columns].

    labels: in pixels of the picture that the grid of blocks of ``block_px`` lies on. Small heads
    and persons weigh more; the edges of persons, the corners of their boxes, and where nobody
    knows of a head weigh little or nothing.
    """
    wanted = np.zeros((2, rows, columns), np.float32)
    prices = np.ones((2, rows, columns), np.float32)
    grid = _Grid(rows, columns, block_px)
    for box in labels.unknown:
        prices[HEAD][grid.share(box) > 0.05] = 0.0
    for box in labels.heads:
        _add_head(wanted[HEAD], prices[HEAD], grid, box)
    for box in labels.persons:
        _add_person(wanted[PERSON], prices[PERSON], grid, box)
    return wanted, prices


@dataclass(frozen=True)
class _Grid:
    rows: int
    columns: int
    block_px: int

    def share(self, box: FloatArray) -> FloatArray:
        """Share of each block that a box covers, [rows, columns]."""

        def along(low: float, high: float, count: int) -> FloatArray:
            starts = np.arange(count) * self.block_px
            inside = np.minimum(starts + self.block_px, high) - np.maximum(starts, low)
            return inside.clip(0) / self.block_px

        x0, y0, x1, y1 = box[:4]
        return np.outer(along(y0, y1, self.rows), along(x0, x1, self.columns))

    def centres(self) -> tuple[FloatArray, FloatArray]:
        half = self.block_px / 2
        return (
            np.arange(self.rows, dtype=np.float32)[:, None] * self.block_px + half,
            np.arange(self.columns, dtype=np.float32)[None] * self.block_px + half,
        )


def _add_head(wanted: FloatArray, prices: FloatArray, grid: _Grid, box: FloatArray) -> None:
    x0, y0, x1, y1, sure = box
    area = (x1 - x0) * (y1 - y0)
    if area < 6:
        return
    share = grid.share(box)
    mostly = share >= PART_OF_HEAD * share.sum()
    part = (share >= HEAD_SHARE) | (mostly & (share >= SMALL_HEAD_SHARE))
    if not part.any():
        prices[share > 0.02] = 0.0
        return
    prices[(share > SMALL_HEAD_SHARE) & ~part & (wanted == 0)] = 0.0
    wanted[part] = np.maximum(wanted[part], sure)
    small = 3.0 * min(1.0, 256.0 / max(area, 16.0)) if sure == 1 else 1.0
    price = max(1.0, small)
    prices[part] = price
    around = cv2.dilate(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > part
    taught = around & (share <= SMALL_HEAD_SHARE) & (wanted == 0) & (prices > 0)
    prices[taught] = np.maximum(prices[taught], AROUND_HEAD * price)


def _add_person(wanted: FloatArray, prices: FloatArray, grid: _Grid, box: FloatArray) -> None:
    x0, y0, x1, y1, sure = box
    width, height = x1 - x0, y1 - y0
    share = grid.share(box)
    if width * height < 20:
        prices[share > 0] = 0.0
        return
    centre_y, centre_x = grid.centres()
    across = np.abs((centre_x - (x0 + x1) / 2) / (width / 2))
    down = np.abs((centre_y - (y0 + y1) / 2) / (height / 2))
    inside = (share > 0.4) & (across**3 + down**3 <= 1.15)  # a body fills no corners
    edge = (share > 0) & ~inside & (wanted == 0)
    prices[edge] = np.minimum(prices[edge], 0.15)
    better = inside & (sure > wanted)
    wanted[better] = sure
    prices[inside] = max(1.0, min(4.0, 1200.0 / (width * height))) if sure > 0.9 else 1.0
