# SPDX-License-Identifier: Apache-2.0
"""BD-rate, the paper's tables and figures, and the picture, from small worked reports."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.baselines import jpeg
from roi_codec_ros.lab.evaluation.bd_rate import bd_rate, bd_rates
from roi_codec_ros.lab.evaluation.comparison import choose_picture, nearest_rate
from roi_codec_ros.lab.evaluation.distortion import REGIONS
from roi_codec_ros.lab.evaluation.markdown import format_report
from roi_codec_ros.lab.evaluation.paper import is_crowdhuman_val


def row(method: str, preset: str, bpp: float, ap: float, **more: Any) -> dict[str, Any]:
    regions = dict.fromkeys(REGIONS, 20.0)
    figures: dict[str, Any] = {"method": method, "preset": preset}
    figures |= {"bpp_mean": bpp, "bpp_std": bpp / 4, "psnr_mean": 20.0, "psnr_regions": regions}
    figures |= {"psnr_persons_shown": 21.0}
    figures |= {"ms_ssim_mean": 0.9, "ms_ssim_regions": dict.fromkeys(REGIONS)}
    for kind in ("person", "face"):
        figures |= {f"{kind}_ap50": ap, f"{kind}_ap50_conf025": ap / 2}
        figures |= {f"{kind}_tp_conf025": 12, f"{kind}_fp_conf025": 3}
    times = {"min": 5.0, "mean": 10.0, "std": 2.0}
    return figures | {"encode_ms": times, "decode_ms": times} | more


def report(**more: Any) -> dict[str, Any]:
    rows = [
        row("original", "", 24.0, 0.7),
        row("shed", "paper-256-2", 0.2, 0.3, model_id="00ff", device="cuda"),
        *(row("jpeg", str(q), q / 10, q / 20) for q in (1, 5, 10)),
        row("av1", "1", 0.1, 0.0),
    ]
    rows[0]["encode_ms"] = rows[0]["decode_ms"] = dict.fromkeys(("min", "mean", "std"))
    about = {"dataset": "streets", "split": "val", "images": 7, "machine": {"cores": 2}}
    about |= {"detector": "person.pt", "face_detector": "mtcnn", "settings": {"timed": True}}
    return about | {"rows": rows, "bd_rate": bd_rates(rows)} | more


def test_half_the_bits_at_every_precision_are_minus_fifty_percent() -> None:
    pytest.importorskip("bjontegaard")
    anchor = [(0.1, 0.1), (0.2, 0.2), (0.4, 0.3), (0.8, 0.35)]
    test = [(rate / 2, ap) for rate, ap in anchor]
    percent, overlap = bd_rate(anchor, test)
    assert percent == pytest.approx(-50.0)
    assert overlap == 1.0


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ([(0.1, 0.1), (0.2, 0.2)], "expected 3 points of the codec under test, found 2"),
        ([(0.1, 0.1), (0.2, 0.3), (0.3, 0.2)], "found a fall"),
        ([(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)], "APs that both codecs reach, found none"),
    ],
)
def test_no_bd_rate_without_comparable_curves(
    test: list[tuple[float, float]], reason: str
) -> None:
    with pytest.raises(RoiCodecError, match=reason):
        bd_rate([(0.1, 0.1), (0.2, 0.2), (0.4, 0.3)], test)


def test_each_baseline_has_an_entry_or_a_reason() -> None:
    entries = bd_rates(report()["rows"])
    assert [(entry["test"], entry["anchor"]) for entry in entries] == [
        ("ours", "jpeg"),
        ("ours", "av1"),
    ]
    assert all(entry["percent"] is None and "3 points" in entry["reason"] for entry in entries)


def test_a_model_at_several_qualities_is_a_curve_of_its_own() -> None:
    pytest.importorskip("bjontegaard")
    points = [(0.1, 0.1), (0.2, 0.2), (0.4, 0.3)]
    rows = [
        row("original", "", 24.0, 0.7),
        *(row("fast", f"fast {q:+g}", bpp / 2, ap, model_id="00") for q, (bpp, ap) in
          zip((-4, 0, 4), points, strict=True)),
        row("nano", "nano", 0.05, 0.1, model_id="01"),
        *(row("av1", str(q), *point) for q, point in enumerate(points)),
    ]  # fmt: skip
    ours, alone = bd_rates(rows)
    assert (ours["test"], ours["anchor"], ours["percent"]) == ("fast", "av1", pytest.approx(-50))
    assert (alone["test"], alone["percent"]) == ("ours", None)
    page = format_report(report(rows=rows, bd_rate=[ours, alone]))
    assert "fast against av1: -50.0 % bits" in page
    assert "| fast -4 |" in page  # not twice the model's name


def test_the_papers_numbers_stand_only_beside_the_papers_images() -> None:
    ours = format_report(report())
    assert "| (256, 2) |  | 12 | 3 |" in ours
    assert "are of CrowdHuman's validation set, not of this" in ours
    both = format_report(report(crowdhuman_val=True))
    assert "| (256, 2) |  | 12 | 3 | 234 | 1159 |" in both
    assert "| JPEG | 10% | 12 | 3 | 4031 | 6399 |" in both
    assert "| (256, 2) | GPU | 10 ± 2 | 5 | 634 ± 69 | 21.43 ± 0.46 |" in both


def test_tables_say_when_no_latency_was_measured() -> None:
    assert format_report(report(settings={"timed": False})).count("Not measured.") == 2


def test_figures_are_pictures() -> None:
    pytest.importorskip("matplotlib")
    from roi_codec_ros.lab.evaluation.figures import figure_4, figure_5

    for draw in (figure_4, figure_5):
        with Image.open(io.BytesIO(draw(report(crowdhuman_val=True)))) as image:
            assert (image.format, image.width > 1000) == ("PNG", True)


def test_the_nearest_rate_is_found() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    wanted = len(jpeg(37).encode(image))
    codec, data = nearest_rate(jpeg, image, wanted)
    assert len(data) == wanted
    assert int(nearest_rate(jpeg, image, 1)[0].preset) <= 2  # all as small as it gets
    assert codec.decode(data).shape == image.shape


def annotation(name: str, *heads: list[float]) -> Annotation:
    boxes = np.array(heads, np.float32).reshape(-1, 4)
    return Annotation(Path(f"{name}.jpg"), name, 100, 100, boxes, boxes, boxes[:0])


def test_the_picture_is_the_one_with_the_largest_heads() -> None:
    images = [
        annotation("one large", [0, 0, 90, 90]),
        annotation("small", [0, 0, 5, 5], [10, 10, 15, 15]),
        annotation("large", [0, 0, 20, 20], [30, 30, 50, 50]),
    ]
    assert choose_picture(images).image_id == "large"
    assert choose_picture(images[:1]).image_id == "one large"
    with pytest.raises(RoiCodecError, match="found none"):
        choose_picture([])


def test_crowdhuman_is_known_by_its_names_and_size() -> None:
    item = annotation("273271,1a0d6000b9e1f5b7")
    assert is_crowdhuman_val([item] * 4370, "val")
    assert not is_crowdhuman_val([item] * 8, "val")
    assert not is_crowdhuman_val([annotation("a")] * 4370, "val")
