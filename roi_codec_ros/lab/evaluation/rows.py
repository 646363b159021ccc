# SPDX-License-Identifier: Apache-2.0
"""The results of many images, pooled into one row of figures per method, and these as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from roi_codec_ros.common.tables import number, text_table
from roi_codec_ros.lab.evaluation.average_precision import Matches, average_precision
from roi_codec_ros.lab.evaluation.distortion import PERSONS_SHOWN, REGIONS
from roi_codec_ros.lab.evaluation.measurement import LOWEST_CONFIDENCE
from roi_codec_ros.lab.evaluation.results import ImageResult, RowName

PAPER_CONFIDENCE = 0.25


def make_rows(names: Sequence[RowName], results: Sequence[Sequence[ImageResult]]) -> list[dict]:
    """One row a method, of its results on all images; the first is what ratios are taken to."""
    rows = [make_row(name, images) for name, images in zip(names, results, strict=True)]
    for row in rows:
        _add_ratios(row, rows[0])
    return rows


def make_row(name: RowName, results: Sequence[ImageResult]) -> dict[str, Any]:
    """The figures of one method."""
    bits = [result.bits_per_pixel for result in results]
    row: dict[str, Any] = {"method": name.method, "preset": name.preset}
    row |= {key: value for key in ("model_id", "device") if (value := getattr(name, key))}
    row["bpp_mean"] = _mean(bits)
    row["bpp_std"] = _sample_std(bits)
    for measure, figures in (
        ("psnr", [result.psnr_db for result in results]),
        ("ms_ssim", [result.ms_ssim for result in results]),
    ):
        row[f"{measure}_mean"] = _finite_mean(image.get("image") for image in figures)
        row[f"{measure}_regions"] = {
            region: _finite_mean(image.get(region) for image in figures) for region in REGIONS
        }
    row["psnr_persons_shown"] = _finite_mean(
        result.psnr_db.get(PERSONS_SHOWN) for result in results
    )
    persons = [result.persons for result in results if result.persons is not None]
    faces = [result.faces for result in results]
    for kind, matches in (("person", persons), ("face", faces)):
        row |= _scores(kind, matches, LOWEST_CONFIDENCE, "")
        row |= _scores(kind, matches, PAPER_CONFIDENCE, "_conf025")
    row["faces_found"] = sum(len(found.scores) for found in faces)
    row["encode_ms"] = _latency([ms for result in results for ms in result.encode_ms])
    row["decode_ms"] = _latency([ms for result in results for ms in result.decode_ms])
    return row


def _scores(
    kind: str, matches: Sequence[Matches], confidence: float, suffix: str
) -> dict[str, float | int | None]:
    score = average_precision(image.at_confidence(confidence) for image in matches)
    return {
        f"{kind}_ap50{suffix}": None if math.isnan(score.ap) else score.ap,
        f"{kind}_tp{suffix}": score.true_positives,
        f"{kind}_fp{suffix}": score.false_positives,
    }


def _add_ratios(row: dict[str, Any], original: dict[str, Any]) -> None:
    for ratio, key in (("person_ap50_ratio", "person_ap50"), ("faces_ratio", "faces_found")):
        row[ratio] = row[key] / original[key] if original[key] else None


def _latency(times_ms: Sequence[float]) -> dict[str, float | None]:
    """Pooled over images and repeats, as in the paper; std is the sample standard deviation."""
    return {
        "min": min(times_ms) if times_ms else None,
        "mean": _mean(times_ms),
        "std": _sample_std(times_ms),
    }


def _finite_mean(values: Iterable[float | None]) -> float | None:
    """Mean of the images' figures.

    Leaves out images without one, and lossless ones, whose PSNR would make it infinite.
    """
    return _mean([value for value in values if value is not None and math.isfinite(value)])


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _sample_std(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def format_table(rows: Sequence[Row]) -> str:
    """Plain text, one line per row; what was not measured is a dash."""
    header = [title for title, _ in COLUMNS]
    return text_table(header, [[show(row) for _, show in COLUMNS] for row in rows])


def _figure(key: str, form: str) -> Callable[[Row], str]:
    return lambda row: number(row[key], form)


def _mean_ms(key: str) -> Callable[[Row], str]:
    return lambda row: number(row[key]["mean"], ".1f")


def row_name(row: Row) -> str:
    """What the row is called: a preset only where the name leaves it open, a device if no CPU."""
    method, preset = row["method"], row["preset"]
    device = row.get("device") or "cpu"
    preset = preset.removeprefix(method).strip()
    words = [method, preset, "" if device == "cpu" else device]
    return " ".join(word for word in words if word)


COLUMNS: tuple[Column, ...] = (
    ("method", row_name),
    ("bpp", _figure("bpp_mean", ".3f")),
    ("± std", _figure("bpp_std", ".3f")),
    ("PSNR", _figure("psnr_mean", ".1f")),
    ("persons'", _figure("psnr_persons_shown", ".1f")),
    ("MS-SSIM", _figure("ms_ssim_mean", ".3f")),
    ("persons AP50", _figure("person_ap50", ".3f")),
    ("of original", _figure("person_ap50_ratio", ".1%")),
    ("at conf 0.25", _figure("person_ap50_conf025", ".3f")),
    ("faces", _figure("faces_found", "d")),
    ("of original", _figure("faces_ratio", ".1%")),
    ("face AP50", _figure("face_ap50", ".4f")),
    ("encode ms", _mean_ms("encode_ms")),
    ("decode ms", _mean_ms("decode_ms")),
)
