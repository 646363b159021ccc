# SPDX-License-Identifier: Apache-2.0
"""People cut out of a photograph that is bundled with `ultralytics`.

Two of its passers-by are seen from head to toe. Their outlines below are drawn by hand; GrabCut
moves them to the edges of the photograph. Mirrored and re-dyed they make a small crowd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.photographs import read_photograph
from roi_codec_ros.common.plugins import package_root

PHOTOGRAPH = ("ultralytics", "assets/bus.jpg")
PHOTOGRAPH_SIZE = (1080, 810)  # of the one that the outlines were drawn on
_MARGIN_PX = 12  # around an outline, where GrabCut learns what is not the person
_SOFT_EDGE_PX = 1.0
_NECK = 0.17  # of the height, from above: what is below may be dyed

# Corners "x,y" of each outline, px of the photograph, clockwise from the hair.
_OUTLINES = (
    "115,401 105,407 103,422 104,440 105,447 98,449 90,460 72,475 62,497 61,530 60,560 65,575 "
    "62,610 58,645 58,696 72,701 73,735 69,785 63,820 61,849 54,865 51,885 70,895 104,900 "
    "107,887 94,871 85,859 86,850 90,815 96,780 110,755 119,710 126,705 140,730 147,765 "
    "160,810 172,847 178,862 176,885 177,898 205,895 244,886 245,877 225,867 206,856 202,845 "
    "199,825 192,785 186,745 180,710 177,687 185,691 192,691 192,680 189,650 184,610 181,600 "
    "195,587 201,567 199,547 187,530 183,512 176,495 157,475 146,470 155,455 158,435 159,420 "
    "152,405 137,399 125,400",
    "285,406 271,414 263,430 264,442 269,451 274,465 276,479 255,492 241,507 236,522 240,539 "
    "238,560 237,610 234,640 227,675 225,702 243,705 245,740 249,775 255,805 259,821 256,840 "
    "258,854 280,861 292,858 294,849 286,837 281,820 280,811 289,819 299,819 300,810 290,796 "
    "288,781 310,761 331,735 338,717 339,685 336,630 326,590 326,569 340,563 344,550 338,520 "
    "331,492 310,480 303,470 307,455 309,435 307,420 297,408",
)

# Which outline, and for red, green and blue below the neck: gains of what is bright (the first
# one's coat), and how much of 255 is added to what is dark (the second one's coat).
_WARDROBE: tuple[tuple[int, tuple[float, float, float], tuple[float, float, float]], ...] = (
    (0, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    (1, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
    (0, (0.50, 0.72, 1.0), (0.0, 0.0, 0.0)),
    (1, (1.0, 1.0, 1.0), (0.32, 0.20, 0.08)),
    (0, (0.95, 0.52, 0.45), (0.0, 0.0, 0.0)),
    (1, (1.0, 1.0, 1.0), (0.06, 0.24, 0.20)),
)


@dataclass(frozen=True, eq=False)
class Cutout:
    """One person without what was behind them.

    rgb: uint8 [H, W, 3]. alpha: float32 [H, W] in [0, 1]. Soles touch the lower edge.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.float32]

    @property
    def aspect(self) -> float:
        """Width per height."""
        return self.rgb.shape[1] / self.rgb.shape[0]

    def mirrored(self) -> Cutout:
        """The same person, walking the other way."""
        return Cutout(self.rgb[:, ::-1].copy(), self.alpha[:, ::-1].copy())

    def dyed(self, gains: Sequence[float], added_to_dark: Sequence[float]) -> Cutout:
        """The same person in other clothes, as the wardrobe has them."""
        neck = round(_NECK * len(self.rgb))
        rgb = self.rgb.astype(np.float32)
        clothes = rgb[neck:]
        darkness = (1.0 - clothes.max(axis=2, keepdims=True) / 255.0) ** 3
        clothes *= np.asarray(gains, np.float32)
        clothes += 255.0 * darkness * np.asarray(added_to_dark, np.float32)
        return Cutout(np.clip(rgb, 0, 255).astype(np.uint8), self.alpha)


@lru_cache(maxsize=1)
def wardrobe() -> tuple[Cutout, ...]:
    """All people that can be drawn. Raises RoiCodecError if their photograph is missing."""
    package, file = PHOTOGRAPH
    root = package_root(package)
    if root is None or not (root / file).is_file():
        raise RoiCodecError(
            f"expected {file} of the {package} package, out of which people are cut, found none: "
            f"pip install {package}"
        )
    photograph = read_photograph(root / file)
    if photograph.shape[:2] != PHOTOGRAPH_SIZE:
        raise RoiCodecError(
            f"expected {package}'s {file} with {PHOTOGRAPH_SIZE[1]}×{PHOTOGRAPH_SIZE[0]} pixels, "
            f"found {photograph.shape[1]}×{photograph.shape[0]}"
        )
    people = [cut_out(photograph, _corners(outline)) for outline in _OUTLINES]
    return tuple(people[index].dyed(*dye) for index, *dye in _WARDROBE)


def _corners(outline: str) -> list[tuple[float, float]]:
    pairs = (word.split(",") for word in outline.split())
    return [(float(x), float(y)) for x, y in pairs]


def cut_out(photograph: NDArray[np.uint8], outline: Sequence[tuple[float, float]]) -> Cutout:
    """The person of a rough outline (corners, px) in uint8 [H, W, 3]."""
    corners = np.asarray(outline, np.float64)
    left, top = np.floor(corners.min(axis=0) - _MARGIN_PX).clip(0).astype(int)
    right, bottom = np.ceil(corners.max(axis=0) + _MARGIN_PX).astype(int)
    crop = np.ascontiguousarray(photograph[top:bottom, left:right])
    rough = np.zeros(crop.shape[:2], np.uint8)
    cv2.fillPoly(rough, [np.rint(corners - (left, top)).astype(np.int32)], 255)
    inside = _to_the_edges(crop, rough)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    alpha = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), _SOFT_EDGE_PX)
    return Cutout(crop[box].copy(), np.asarray(alpha[box], np.float32))


def _to_the_edges(crop: NDArray[np.uint8], rough: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The rough mask, moved by GrabCut within some pixels to where colours change."""
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    deep = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    labels = np.full(rough.shape, cv2.GC_BGD, np.uint8)
    labels[cv2.dilate(rough, near) > 0] = cv2.GC_PR_BGD
    labels[rough > 0] = cv2.GC_PR_FGD
    labels[cv2.erode(rough, deep) > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # it starts from random clusters
    cv2.grabCut(crop, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    inside = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    count, parts, figures, _ = cv2.connectedComponentsWithStats(inside)
    if count < 2:
        return rough > 0
    return np.asarray(parts == 1 + int(figures[1:, cv2.CC_STAT_AREA].argmax()))
