# SPDX-License-Identifier: Apache-2.0
"""The result of one method on one image, and the record of an image that failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.evaluation.average_precision import Matches

ORIGINAL = "original"


@dataclass(frozen=True)
class EvaluationSettings:
    """How it is measured.

    repeats: timed runs of each codec on each image, besides an untimed one for each new size.
    plus_one: boxes inclusive of their last pixel, for parity with the paper's tool.
    resize: width and height in px that every image is stretched to first (the paper: 512 × 512),
    None to leave them as they are.
    timed: False where other work shares the machine, so that a latency would mean nothing.
    """

    repeats: int = 1
    plus_one: bool = False
    resize: tuple[int, int] | None = None
    timed: bool = True

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError(f"expected at least one repeat, found {self.repeats}")
        if self.resize is not None and min(self.resize) < 1:
            raise UsageError(f"expected a size of at least 1 × 1 px, found {self.resize}")


@dataclass(frozen=True)
class RowName:
    """What tells one row of the tables from the others; device: where a model of ours ran."""

    method: str
    preset: str
    model_id: str | None = None
    device: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.preset}".strip()


ORIGINAL_ROW = RowName(ORIGINAL, "")


@dataclass(frozen=True, eq=False)
class ImageResult:
    """What one method made of one image.

    bits_per_pixel: of all bytes coded, by the pixels of the image given.
    psnr_db, ms_ssim: by "image" and region, PSNR also of `distortion.PERSONS_SHOWN`; PSNR is
    infinite where nothing was lost, None where there is no such region, MS-SSIM where there is no
    measure of it.
    encode_ms, decode_ms: one figure a repeat.
    persons: None where the image's person boxes are not human-made.
    """

    bits_per_pixel: float
    psnr_db: dict[str, float | None]
    encode_ms: tuple[float, ...]
    decode_ms: tuple[float, ...]
    persons: Matches | None
    faces: Matches
    ms_ssim: dict[str, float | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON types only; `from_json` gives the very same figures back."""
        return {
            "bits_per_pixel": self.bits_per_pixel,
            "psnr_db": self.psnr_db,
            "ms_ssim": self.ms_ssim,
            "encode_ms": list(self.encode_ms),
            "decode_ms": list(self.decode_ms),
            "persons": None if self.persons is None else _matches_to_json(self.persons),
            "faces": _matches_to_json(self.faces),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ImageResult:
        """Raises KeyError, TypeError or ValueError for anything that `to_json` did not make."""
        return cls(
            bits_per_pixel=float(data["bits_per_pixel"]),
            psnr_db=dict(data["psnr_db"]),
            ms_ssim=dict(data["ms_ssim"]),
            encode_ms=tuple(data["encode_ms"]),
            decode_ms=tuple(data["decode_ms"]),
            persons=None if data["persons"] is None else _matches_from_json(data["persons"]),
            faces=_matches_from_json(data["faces"]),
        )


def _matches_to_json(matches: Matches) -> dict[str, Any]:
    hits = "".join("01"[int(hit)] for hit in matches.hits)
    return {"scores": matches.scores.tolist(), "hits": hits, "positives": matches.positives}


def _matches_from_json(data: dict[str, Any]) -> Matches:
    scores = np.array(data["scores"], dtype=np.float64)
    hits = np.array([hit == "1" for hit in data["hits"]], dtype=np.bool_)
    if scores.shape != hits.shape:
        raise ValueError(f"expected a hit for each score, found {len(hits)} for {len(scores)}")
    return Matches(scores, hits, int(data["positives"]))


@dataclass(frozen=True)
class Failure:
    """An image that was left out, and why."""

    image: str
    reason: str

    def __str__(self) -> str:
        return f"{self.image}: {self.reason}"
