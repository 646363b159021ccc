# SPDX-License-Identifier: Apache-2.0
"""The paper's own numbers as data, and which of our rows they belong to.

They are of CrowdHuman's validation set, 4370 images: beside any other they say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roi_codec_ros.lab.datasets.annotations import Annotation

CROWDHUMAN_VAL_IMAGES = 4370

Key = tuple[str, str]  # method and preset; ours are "paper" and the architecture

# The paper's order of rows: method and preset, and how the paper prints them.
ROWS: dict[Key, tuple[str, str]] = {
    ("paper", "paper-256-2"): ("(256, 2)", ""),
    ("paper", "paper-256-1"): ("(256, 1)", ""),
    ("paper", "paper-128-2"): ("(128, 2)", ""),
    ("av1", "1"): ("AV1", "1%"),
    ("av1", "5"): ("AV1", "5%"),
    ("av1", "10"): ("AV1", "10%"),
    ("jpeg", "1"): ("JPEG", "1%"),
    ("jpeg", "5"): ("JPEG", "5%"),
    ("jpeg", "10"): ("JPEG", "10%"),
}

# Table I: true and false positive face detections.
FACES: dict[Key, tuple[int, int]] = {
    ("paper", "paper-256-2"): (234, 1159),
    ("paper", "paper-256-1"): (191, 1488),
    ("paper", "paper-128-2"): (150, 1105),
    ("av1", "1"): (1408, 1949),
    ("av1", "5"): (2253, 2966),
    ("av1", "10"): (3138, 4345),
    ("jpeg", "1"): (424, 613),
    ("jpeg", "5"): (1995, 3180),
    ("jpeg", "10"): (4031, 6399),
}


@dataclass(frozen=True)
class PaperLatency:
    """Encoding, in ms: arithmetic mean, sample standard deviation, minimum."""

    mean: float
    std: float
    min: float


# Table II: Jetson Nano. Ours on its GPU.
JETSON_NANO: dict[tuple[Key, str], PaperLatency] = {
    (("paper", "paper-256-2"), "GPU"): PaperLatency(634, 69, 610),
    (("paper", "paper-256-1"), "GPU"): PaperLatency(789, 10, 755),
    (("paper", "paper-128-2"), "GPU"): PaperLatency(239, 49, 221),
    (("av1", "1"), "CPU"): PaperLatency(350, 100, 180),
    (("av1", "5"), "CPU"): PaperLatency(420, 110, 200),
    (("av1", "10"), "CPU"): PaperLatency(490, 130, 220),
    (("jpeg", "1"), "CPU"): PaperLatency(4.03, 0.15, 3.72),
    (("jpeg", "5"), "CPU"): PaperLatency(4.10, 0.15, 3.76),
    (("jpeg", "10"), "CPU"): PaperLatency(4.24, 0.16, 3.79),
}

# Table III: DGX station.
DGX_STATION: dict[tuple[Key, str], PaperLatency] = {
    (("paper", "paper-256-2"), "GPU"): PaperLatency(21.43, 0.46, 20.81),
    (("paper", "paper-256-2"), "CPU"): PaperLatency(134.1, 4.5, 111.3),
    (("paper", "paper-256-1"), "GPU"): PaperLatency(72.9, 1.0, 70.7),
    (("paper", "paper-256-1"), "CPU"): PaperLatency(181.6, 6.6, 147.5),
    (("paper", "paper-128-2"), "GPU"): PaperLatency(11.50, 0.71, 10.41),
    (("paper", "paper-128-2"), "CPU"): PaperLatency(66.4, 4.9, 40.9),
    (("av1", "1"), "CPU"): PaperLatency(52, 20, 20),
    (("av1", "5"), "CPU"): PaperLatency(64, 21, 25),
    (("av1", "10"), "CPU"): PaperLatency(76, 24, 29),
    (("jpeg", "1"), "CPU"): PaperLatency(0.633, 0.073, 0.564),
    (("jpeg", "5"), "CPU"): PaperLatency(0.637, 0.028, 0.570),
    (("jpeg", "10"), "CPU"): PaperLatency(0.671, 0.029, 0.577),
}


@dataclass(frozen=True)
class PaperPoint:
    """What section V says of a point of Fig. 4; None where it gives no number."""

    bpp: float | None
    person_ap50: float | None
    face_ap50: float | None


FIGURE_4: dict[Key, PaperPoint] = {
    ("paper", "paper-256-2"): PaperPoint(0.24, 0.19, 0.001),
    ("paper", "paper-256-1"): PaperPoint(0.26, 0.16, 0.0008),
    ("paper", "paper-128-2"): PaperPoint(None, None, 0.0007),
    ("av1", "1"): PaperPoint(None, None, 0.007),
    ("av1", "10"): PaperPoint(0.14, 0.20, None),
    ("jpeg", "5"): PaperPoint(None, None, 0.009),
    ("jpeg", "10"): PaperPoint(0.39, 0.20, None),
}


def key_of(row: dict[str, Any]) -> Key | None:
    """Which of the paper's rows a row of ours repeats, or None."""
    method = "paper" if row.get("model_id") else row["method"]
    key = (method, row["preset"])
    return key if key in ROWS else None


def is_crowdhuman_val(annotations: Sequence[Annotation], split: str) -> bool:
    """Whether a split is the paper's: by its name, its size and the form of its image names."""
    return (
        split == "val"
        and len(annotations) == CROWDHUMAN_VAL_IMAGES
        and all("," in item.image_id for item in annotations)
    )
