# SPDX-License-Identifier: Apache-2.0
"""The audit: its metrics on worked values, and the command on a tiny data set."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from roi_codec_ros.cli import main
from roi_codec_ros.codec.encoding import Encoder
from roi_codec_ros.codec.models import untrained_model
from roi_codec_ros.codec.presets import PRESETS
from roi_codec_ros.codec.receptive_field import ReceptiveField, receptive_field
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.faces.face_embedders import FACE_EMBEDDERS
from roi_codec_ros.lab.privacy.audit import (
    PLAIN,
    audit,
    head_size_bin,
    head_size_bins,
)
from roi_codec_ros.lab.privacy.audit_report import audit_report
from roi_codec_ros.lab.privacy.leakage import (
    HeadBits,
    HeadMeter,
    bits_of_boxes,
    erase,
    fano_success_bound,
    fano_table,
)
from roi_codec_ros.lab.privacy.map_code import (
    CHANGED,
    SENT,
    map_change_bits,
    with_standard_head,
)
from roi_codec_ros.lab.privacy.matching import found_by_any, pair_up, unite
from roi_codec_ros.lab.privacy.versions import INVERSIONS, jpeg_at_rate
from roi_codec_ros.perception.detections import Detections
from roi_codec_ros.perception.face_detectors import FACE_DETECTORS

SIDE = 64
HEAD = [16.0, 16.0, 32.0, 32.0]


def boxes(*corners: list[float]) -> np.ndarray:
    return np.array(corners, dtype=np.float32).reshape(-1, 4)


# ------------------------------------------------------------------------------ matching, binning


def test_a_head_is_found_by_any_detector_that_found_it() -> None:
    """Also where another one drew a box beside it, which the union keeps instead."""
    heads = boxes([0, 0, 10, 10], [40, 40, 50, 50], [80, 80, 90, 90])
    beside, at = boxes([6, 0, 16, 10]), boxes([1, 0, 13, 10], [40, 40, 50, 50])
    assert len(unite([beside, at])) == 2
    assert len(pair_up(heads, unite([beside, at]).xyxy, iou_threshold=0.4)) == 1
    assert found_by_any(heads, [beside, at], iou_threshold=0.4) == [0, 1]
    assert found_by_any(heads, [], iou_threshold=0.4) == []


def test_the_union_counts_a_face_once_however_many_saw_it() -> None:
    first = boxes([0, 0, 10, 10], [50, 50, 60, 60])
    second = boxes([2, 0, 12, 10], [80, 0, 90, 10])  # IoU of the first pair: 80 / 120
    third = boxes([0, 0, 10, 10])
    union = unite([first, second, third])
    assert union.xyxy.tolist() == [[0, 0, 10, 10], [50, 50, 60, 60], [80, 0, 90, 10]]
    assert union.votes.tolist() == [3, 1, 1]
    assert len(unite([boxes(), boxes()])) == 0


def test_two_boxes_of_one_detector_are_two_faces() -> None:
    union = unite([boxes([0, 0, 10, 10]), boxes([0, 0, 10, 10], [1, 0, 11, 10])])
    assert union.votes.tolist() == [2, 1]


def test_the_threshold_of_the_union_is_met_exactly() -> None:
    nearly = [boxes([0, 0, 10, 10]), boxes([5, 0, 15, 10])]  # IoU 50 / 150
    assert len(unite(nearly, iou_threshold=0.34)) == 2
    assert len(unite(nearly, iou_threshold=0.33)) == 1


def test_pairs_are_made_best_first_and_one_to_one() -> None:
    heads = boxes([0, 0, 10, 10], [4, 0, 14, 10])
    faces = boxes([4, 0, 14, 10], [100, 100, 110, 110])
    assert pair_up(heads, faces, iou_threshold=0.2) == [(1, 0)]
    assert pair_up(heads, boxes(), iou_threshold=0.0) == []
    assert pair_up(heads, boxes([100, 0, 110, 10]), iou_threshold=0.0) == []


@pytest.mark.parametrize(
    ("width", "height", "name"),
    [(15, 15, "0-16"), (16, 16, "16-24"), (8, 32, "16-24"), (95, 95, "64-96"), (96, 96, "96+")],
)
def test_a_head_goes_by_the_root_of_its_area(width: float, height: float, name: str) -> None:
    assert head_size_bin(np.array([5, 5, 5 + width, 5 + height], np.float32)) == name
    assert name in head_size_bins()


# ------------------------------------------------------------------------------------ information


def test_fano_bounds_on_worked_values() -> None:
    assert fano_success_bound(0.0, 2) == 0.5
    assert fano_success_bound(0.0, 8_000_000_000) == 1 / 8_000_000_000
    # N = 2: h(p) = 1 − bits, and h(0.11002786…) = 0.5.
    assert fano_success_bound(0.5, 2) == pytest.approx(0.8899721, abs=1e-6)
    # With p = 0.5: h + 0.5 log2 N−1 = 1 + 0.5 log2 15.
    bits = 4 - (1 + 0.5 * math.log2(15))
    assert fano_success_bound(bits, 16) == pytest.approx(0.5)
    assert fano_success_bound(10.0, 1024) == 1.0


def test_fano_grows_with_bits_and_falls_with_identities() -> None:
    rising = [fano_success_bound(bits, 100) for bits in (0, 1, 2, 4, 6)]
    assert rising == sorted(rising)
    falling = [fano_success_bound(3, count) for count in (10, 100, 1000)]
    assert falling == sorted(falling, reverse=True)
    for wrong in ((1.0, 1), (-1.0, 2)):
        with pytest.raises(ValueError, match="expected bits"):
            fano_success_bound(*wrong)


def test_the_table_says_where_the_bound_says_nothing() -> None:
    rows = fano_table(5.0, (16, 1024))
    assert [row["vacuous"] for row in rows] == [True, False]
    assert rows[0]["success_at_most"] == 1.0


def test_the_receptive_field_of_the_paper_s_network() -> None:
    pytest.importorskip("torch")
    # Four 5×5 convolutions of stride 2: 1 + 4 · (1 + 2 + 4 + 8) = 61 px, centred on the block's
    # first pixel; three of them: 29.
    assert receptive_field(PRESETS["paper-128-2"]).ranges == ((-30, 31),) * 4
    assert receptive_field(PRESETS["paper-256-1"]).ranges == ((-14, 15),) * 4


def test_no_latent_outside_its_receptive_field_changes() -> None:
    pytest.importorskip("torch")
    model = untrained_model("paper-128-2", seed=3)
    encoder = Encoder(model)
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (320, 320, 3), dtype=np.uint8)
    changed = image.copy()
    changed[150:170, 140:165] = random.integers(0, 256, (20, 25, 3), dtype=np.uint8)
    moved = (encoder.symbols(image) != encoder.symbols(changed)).any(axis=0)
    field = receptive_field(model.preset)
    may = np.outer(field.touching(150, 170, 20), field.touching(140, 165, 20))
    assert moved.any()
    assert not (moved & ~may).any()


def test_bits_are_summed_over_what_a_box_touches() -> None:
    bits = np.arange(16, dtype=np.float64).reshape(4, 4)
    own = ReceptiveField(16, ((0, 16),))
    inside = np.array([[16.0, 16.0, 32.0, 33.0]])
    assert bits_of_boxes(bits, inside, own, (64, 64)) == (5.0 + 9.0,)
    wide = ReceptiveField(16, ((-16, 32),))
    assert bits_of_boxes(bits, inside[:, [0, 1, 2, 2]], wide, (64, 64)) == (
        float(bits[:3, :3].sum()),
    )


def test_a_head_at_the_edge_is_in_the_padding_too() -> None:
    bits = np.ones((1, 3))
    own = ReceptiveField(16, ((0, 16),))
    assert bits_of_boxes(bits, np.array([[20.0, 0.0, 31.5, 16.0]]), own, (16, 32)) == (2.0,)


def test_touching_follows_the_phases() -> None:
    field = ReceptiveField(10, ((-10, 20), (0, 10)))
    assert field.touching(10, 20, 4).tolist() == [True, True, True, False]
    assert field.touching(30, 40, 4).tolist() == [False, False, True, True]


def test_the_meter_reads_the_stream_and_own_blocks_are_the_lesser_part() -> None:
    pytest.importorskip("torch")
    model = untrained_model("paper-128-2")
    image = np.random.default_rng(1).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    measured = HeadMeter(model).measure(image, boxes([60, 40, 80, 62], [10, 10, 30, 30]))
    assert len(measured.touching) == len(measured.own) == len(measured.changed) == 2
    assert all(0 < own < all_ for own, all_ in zip(measured.own, measured.touching, strict=True))
    assert all(0 < c <= all_ for c, all_ in zip(measured.changed, measured.touching, strict=True))


def test_a_map_costs_little_where_it_is_as_expected() -> None:
    expected = np.full((4, 4), 2, np.uint8)
    usual = -math.log2(1 - CHANGED[0][0])
    assert map_change_bits(expected, expected) == pytest.approx(16 * usual)
    other = expected.copy()
    other[3, 3] = 3  # the last block: nobody after it has it for a neighbour
    bits = 15 * usual - math.log2(CHANGED[0][0]) - math.log2(SENT[1, 2])
    assert map_change_bits(other, expected) == pytest.approx(bits)
    with pytest.raises(ValueError, match="expected blocks of 1 to 5"):
        map_change_bits(np.zeros((4, 4), np.uint8), expected)


def test_the_code_of_maps_is_one() -> None:
    """Whatever was expected, the probabilities of all maps add up to at most 1 (Kraft)."""
    assert (SENT.sum(axis=1) <= 1 + 1e-9).all()
    assert (np.diag(SENT) == 0).all()
    expected = np.array([[2, 1], [4, 5]], np.uint8)
    maps = np.stack(np.meshgrid(*[np.arange(1, 6)] * 4), axis=-1).reshape(-1, 2, 2)
    total = sum(2.0 ** -map_change_bits(one.astype(np.uint8), expected) for one in maps)
    assert total == pytest.approx(1.0, abs=0.02)


def test_what_is_expected_knows_nothing_of_the_head() -> None:
    random = np.random.default_rng(0)
    image, other = random.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    head = np.array([-4.0, 10.5, 20.0, 40.0], np.float32)
    other[40:], other[:10], other[:, 20:] = image[40:], image[:10], image[:, 20:]
    first, second = with_standard_head(image, head), with_standard_head(other, head)
    assert (first == second).all()
    assert (first[:, 20:] == image[:, 20:]).all()


def test_a_hidden_head_costs_what_the_map_says_of_it_and_no_symbol() -> None:
    pytest.importorskip("torch")
    image = np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut())
    head, sleeve = [190.0, 75.0, 250.0, 165.0], [60.0, 420.0, 120.0, 480.0]
    model = untrained_model("nano")
    measured = HeadMeter(model).measure(image, boxes(head, sleeve))
    assert measured.own[0] == 0 < measured.own[1]
    assert measured.touching[1] == measured.own[1] + measured.of_map[1]
    encoder = Encoder(model)
    expected = encoder.encode(with_standard_head(image, np.array(head, np.float32))).blocks
    changes = map_change_bits(encoder.encode(image).blocks, expected)
    assert measured.touching[0] == measured.of_map[0] == changes > 0


# ------------------------------------------------------------------------- inversions, references


def test_inversions_on_worked_values() -> None:
    image = np.array([[[0, 51, 255]]], dtype=np.uint8)
    assert INVERSIONS["negated"](image).tolist() == [[[255, 204, 0]]]
    assert INVERSIONS["gamma_brighter"](image).tolist() == [[[0, 114, 255]]]
    assert INVERSIONS["gamma_darker"](image).tolist() == [[[0, 10, 255]]]
    ramp = np.repeat(np.arange(100, 150, dtype=np.uint8)[:, None, None], 3, axis=2)
    stretched = INVERSIONS["contrast_stretch"](ramp)
    assert (stretched.min(), stretched.max()) == (0, 255)


@pytest.mark.parametrize("name", INVERSIONS)
def test_an_inversion_gives_an_image_of_the_same_shape_or_twice_it(name: str) -> None:
    image = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    result = INVERSIONS[name](image.copy())
    assert result.dtype == np.uint8
    scale = 2 if name == "super_resolution" else 1
    assert result.shape == (20 * scale, 30 * scale, 3)
    flat = np.full((20, 30, 3), 128, np.uint8)
    assert INVERSIONS[name](flat).shape == result.shape


def test_erasing_leaves_the_mean_colour_and_the_rest_alone() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[1, 1] = (100, 40, 8)
    erased = erase(image, boxes([1, 1, 3, 2]))
    assert erased[1, 1:3].tolist() == [[50, 20, 4], [50, 20, 4]]
    assert image[1, 1, 0] == 100
    assert not erased[2:].any()


def test_jpeg_keeps_to_the_rate_and_shrinks_where_it_has_to() -> None:
    image = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rich, rich_bytes = jpeg_at_rate(image, 6000)
    poor, poor_bytes = jpeg_at_rate(image, 900)
    assert rich.shape == poor.shape == image.shape
    assert poor_bytes <= 900 < rich_bytes <= 6000
    _, least = jpeg_at_rate(image, 1)
    assert 1 < least <= poor_bytes


# ------------------------------------------------------------------------------------- the whole


class Bright:
    """Sees a face on HEAD where the image is bright there; fails where all of it is red."""

    def __init__(self, name: str, shift: int = 0) -> None:
        self.name = name
        self.shift = shift

    def detect(self, image: np.ndarray) -> Detections:
        if (image[..., 0] == 255).all():
            raise RuntimeError("too\nred")
        scale = image.shape[1] // SIDE
        seen = bool(image[24 * scale, 24 * scale].mean() > 150)
        box = (np.array(HEAD) + self.shift) * scale
        return Detections.from_arrays([box] if seen else [], [0.9] * seen, image.shape[:2])


class Negative:
    """A codec that gives the negative: the leak that the audit has to see."""

    name, preset, model_id = "negative", "none", None

    def encode(self, image: np.ndarray) -> bytes:
        return bytes(5000) + image.tobytes()

    def decode(self, data: bytes) -> np.ndarray:
        return 255 - np.frombuffer(data[5000:], np.uint8).reshape(SIDE, SIDE, 3)


class TenBits:
    def measure(self, image: np.ndarray, heads: np.ndarray) -> HeadBits:
        return HeadBits((10.0,) * len(heads), (6.0,) * len(heads), (4.0,) * len(heads), (1.0,))


def photograph(folder: Path, name: str, colour: tuple[int, int, int] = (10, 10, 10)) -> Annotation:
    pixels = np.full((SIDE, SIDE, 3), colour, np.uint8)
    pixels[20:28, 20:28] = np.maximum(pixels[20:28, 20:28], 220)
    Image.fromarray(pixels).save(folder / f"{name}.png")
    none = np.zeros((0, 4), np.float32)
    return Annotation(folder / f"{name}.png", name, SIDE, SIDE, none, boxes(HEAD), none)


def test_a_negative_is_seen_through(tmp_path: Path) -> None:
    images = [photograph(tmp_path, "a"), photograph(tmp_path, "b")]
    result = audit(images, Negative(), [Bright("one"), Bright("two", 1)], TenBits(), quick=True)
    report = audit_report(result, ["one", "two"], model="negative")
    for counts in (*report["detectors"].values(), report["union"], report["agreed_by_two"]):
        assert (counts["original"], counts["decoded"], counts["negated"]) == (2, 0, 2)
        assert (counts["jpeg"], counts["erased"]) == (2, 0)
    assert report["union"]["any"] == 2
    assert "any" not in report["agreed_by_two"]
    heads = report["heads"]
    assert heads["annotated"] == heads["annotated_by_size_px"]["16-24"] == 2
    assert heads["found"]["union"]["negated"] == 2
    assert heads["found_by_size_px"]["one"]["original"]["16-24"] == 2
    assert heads["by_chance"] == {
        **heads["by_chance"], "heads": 1, "original": 1, "decoded": 0, "negated": 1
    }  # fmt: skip
    assert report["bits_per_head"] | {"fano": None} == {
        "median": 10.0, "p95": 10.0, "mean": 10.0, "heads": 2, "fano": None,
        "own_blocks": {"median": 4.0, "p95": 4.0},
        "map": {"median": 6.0, "p95": 6.0},
        "wholly_hidden": {"heads": 0, "median": None, "p95": None},
        "changed": {"median": 1.0, "p95": 1.0, "heads": 2},
    }  # fmt: skip
    assert report["same_inversions_on"] == {}
    json.dumps(report, allow_nan=False)


def test_in_full_the_same_is_tried_on_what_it_is_held_against(tmp_path: Path) -> None:
    result = audit([photograph(tmp_path, "a")], Negative(), [Bright("one")], TenBits())
    same = audit_report(result, ["one"])["same_inversions_on"]
    assert set(same) == {"original", "jpeg", "erased"}
    assert same["original"]["negated"] == {"one": 0, "union": 0}
    assert same["original"]["super_resolution"]["one"] == 1


def test_what_breaks_is_named_and_does_not_end_the_audit(tmp_path: Path) -> None:
    cut = photograph(tmp_path, "cut")
    cut.image_path.write_bytes(cut.image_path.read_bytes()[:40])
    images = [cut, photograph(tmp_path, "red", (255, 0, 0)), photograph(tmp_path, "good")]
    result = audit(images, Negative(), [Bright("one")], TenBits(), quick=True)
    assert [failure.image for failure in result.failures] == ["cut", "red"]
    assert result.failures[1].reason == "RuntimeError: too red"
    assert (result.images, result.faces["original", PLAIN]["one"]) == (1, 1)
    with pytest.raises(RoiCodecError, match="found 1 that failed; the first is cut: "):
        audit([cut], Negative(), [Bright("one")], TenBits())


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "photographs"
    (folder / "images" / "val").mkdir(parents=True)
    box = {"tag": "person", "vbox": [4, 4, 40, 60], "hbox": [16, 16, 16, 16]}
    lines = []
    for name in ("a", "<b>"):
        photograph(folder / "images" / "val", name)
        lines.append(json.dumps({"ID": name, "gtboxes": [box], "width": SIDE, "height": SIDE}))
    (folder / "annotation_val.odgt").write_text("\n".join(lines))
    monkeypatch.setitem(FACE_DETECTORS, "bright", lambda argument, device: Bright("bright"))
    return folder


def test_the_command_writes_json_and_a_page_that_needs_nothing_else(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    model = untrained_model("nano")
    model.save(tmp_path / "nano.safetensors")
    (data / "images" / "val" / "<b>.png").write_bytes(b"")
    result, page = tmp_path / "audit.json", tmp_path / "audit.html"
    status = main(
        ["audit", str(tmp_path / "nano.safetensors"), "--data", str(data), "--split", "val",
         "--quick", "--limit", "8", "--detectors", "bright,haar", "--threads", "1",
         "--json", str(result), "--html", str(page)]
    )  # fmt: skip
    printed = capsys.readouterr()
    assert status == 0, printed.err
    report = json.loads(result.read_text())
    assert (report["model"], report["model_id"]) == (model.name, model.id.hex())
    assert (report["images"], [f["image"] for f in report["failures"]]) == (1, ["<b>"])
    assert set(report["detectors"]) == {"bright", "haar"}
    assert report["detectors"]["bright"]["original"] == 1
    assert {"original", "decoded", "negated"} <= set(report["union"])
    assert 0 < report["bits_per_head"]["median"] <= report["bits_per_head"]["p95"]
    assert report["quick"] is True
    assert report["regions"]["heads"]["all"]["number"] == 1
    assert "What regions hide and overlook" in page.read_text()
    assert "annotated heads that any detector finds, of 1: original 1" in printed.out
    html = page.read_text()
    assert "&lt;b&gt;" in html and "<b>:" not in html
    assert "vacuous" in html
    assert "data:image/jpeg;base64," in html
    assert not [word for word in ("http:", "https:", "<script", "url(") if word in html]
    assert str(tmp_path) not in html + result.read_text()
    assert "1 of 2 images audited" in printed.out
    assert "left out: <b>: expected a photograph" in printed.err


class Square:
    """Sees a face of 70 px in every picture that is red or blue in its middle."""

    name = "square"

    def detect(self, image: np.ndarray) -> Detections:
        red, _, blue = image[100, 100].astype(int)
        seen = bool(abs(red - blue) > 100)
        return Detections.from_arrays([[65, 65, 135, 135]] * seen, [0.99] * seen, image.shape[:2])


class Colour:
    """Recognises a face by the mean colour of its box."""

    name, same_person_distance = "colour", 5.0

    def embed(self, image: np.ndarray, face: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = face.round().astype(int)
        return image[y0:y1, x0:x1].reshape(-1, 3).mean(axis=0).astype(np.float32)


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two identities and a scene to audit, and one of these to train attackers on."""
    folder = tmp_path / "people"
    colours = {"red": (220, 40, 40), "blue": (40, 40, 220), "scene": (128, 128, 128)}
    for split, names in (("val", list(colours)), ("train", ["red"])):
        (folder / "images" / split).mkdir(parents=True)
        lines = []
        for name in names:
            pixels = np.full((200, 200, 3), 128, np.uint8)
            pixels[60:140, 60:140] = colours[name]
            Image.fromarray(pixels).save(folder / "images" / split / f"{name}.png")
            boxes = [{"tag": "person", "vbox": [50, 50, 90, 140], "hbox": [60, 60, 80, 80]}]
            box = boxes if name != "scene" else []
            lines.append(json.dumps({"ID": name, "gtboxes": box, "width": 200, "height": 200}))
        (folder / f"annotation_{split}.odgt").write_text("\n".join(lines))
    monkeypatch.setitem(FACE_DETECTORS, "square", lambda argument, device: Square())
    monkeypatch.setitem(FACE_DETECTORS, "mtcnn", lambda argument, device: Square())
    monkeypatch.setitem(FACE_EMBEDDERS, "colour", lambda argument, device: Colour())
    return folder


def audit_people(people: Path, model: Path, *more: str) -> tuple[int, dict[str, Any], str]:
    result, page = people / "audit.json", people / "audit.html"
    status = main(
        ["audit", str(model), "--data", str(people), "--split", "val", "--detectors", "square",
         "--threads", "1", "--json", str(result), "--html", str(page), *more]
    )  # fmt: skip
    return status, json.loads(result.read_text()), page.read_text()


def test_attackers_and_recognition_are_in_the_report(people: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    untrained_model("nano").save(tmp_path / "nano.safetensors")
    status, report, html = audit_people(
        people, tmp_path / "nano.safetensors", "--attack-steps", "1", "--embedder", "colour"
    )
    assert status == 0
    attack = report["attacker"]
    assert set(attack) == {"latents", "decoded", "minutes", "steps", "pairs", "head_psnr_db"}
    assert (attack["steps"], attack["pairs"]) == (1, 8)
    assert attack["minutes"] > 0
    for name in ("latents", "decoded"):
        assert set(attack[name]) >= {"union", "rank1", "tar_at_far_1e3"}
        assert attack[name]["union"] == report["union"][f"attacker_{name}"]
        assert attack[name]["rank1"] == report["reid"][f"attacker_{name}"]["rank1"]
        assert attack[name]["head_psnr_db"] > 10  # one step from what nano decodes well
    reid = report["reid"]
    assert (reid["embedder"], reid["identities"]) == ("colour", 2)
    assert reid["chance"] == reid["probes"] / 2 >= 1
    for source in (
        "original", "jpeg", "decoded", "negated", "attacker_latents", "attacker_decoded"
    ):  # fmt: skip
        assert set(reid[source]) == {"rank1", "tar_at_far_1e3"}
        assert 0 <= reid[source]["rank1"] <= reid["probes"]
    assert reid["original"]["rank1"] == reid["probes"]
    assert "rank1" in next(iter(reid["by_size"].values()))["decoded"]
    assert report["left_out"] == {}
    assert "attacker, from latents" in html
    assert "by chance <span" in html
    assert "class='strips'" in html


def test_what_is_left_out_says_why(
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch")

    def missing(argument: str | None, device: str) -> None:
        raise RoiCodecError("expected dlib; install it with: pip")

    monkeypatch.setitem(FACE_EMBEDDERS, "dlib", missing)
    model = tmp_path / "nano.safetensors"
    untrained_model("nano").save(model)
    status, report, html = audit_people(people, model, "--no-attack")
    assert status == 0
    assert report["attacker"] is report["reid"] is None
    assert report["left_out"] == {
        "reid": "expected dlib; install it with: pip", "attacker": "--no-attack"
    }  # fmt: skip
    assert "Left out: expected dlib; install it with: pip." in html
    assert "left out: reid: expected dlib" in capsys.readouterr().err
    alone = ["audit", str(model), "--data", str(people), "--split", "val", "--no-attack"]
    assert main([*alone, "--embedder", "dlib"]) == 1


@pytest.mark.parametrize(
    ("more", "status", "complaint"),
    [
        (["--attack-split", "val"], 2, "expected attackers trained on another split"),
        (["--embedder", "nose"], 2, "expected a face embedder of"),
        (["--detectors", "eyes"], 2, "expected a face detector of"),
        (["--detectors", "bright,bright"], 2, "expected every detector once"),
        (["--inversions", "mirror"], 2, "expected inversions of negated"),
        (["--split", "test"], 1, "expected annotation_test.odgt"),
    ],
)
def test_wrong_use_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str],
    status: int, complaint: str,
) -> None:  # fmt: skip
    pytest.importorskip("torch")
    untrained_model("nano").save(tmp_path / "nano.safetensors")
    fixed = ["audit", str(tmp_path / "nano.safetensors"), "--data", str(data), "--split", "val"]
    assert main([*fixed, *more]) == status
    message = capsys.readouterr().err
    assert complaint in message
    assert len(message.splitlines()) == 1
