# SPDX-License-Identifier: Apache-2.0
"""A detector that learns decoded images: pairs, images made once, runs that go on, weights."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.codec.models import load_model, untrained_model
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import is_ours
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.training.detector_data import (
    PADDING_GREY,
    PairBatches,
    PairCrops,
    by_turns,
    divide,
    write_images,
)

DETECTOR = os.environ.get("ROI_CODEC_TEST_DETECTOR", "")
needs_detector = pytest.mark.skipif(
    not DETECTOR, reason="ROI_CODEC_TEST_DETECTOR names no person weights"
)


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def annotation(
    name: str = "a",
    persons: np.ndarray | None = None,
    ignored: np.ndarray | None = None,
    path: Path = Path("a.png"),
    made_by: str = "human",
) -> Annotation:
    return Annotation(
        image_path=path,
        image_id=name,
        width=200,
        height=100,
        persons=boxes() if persons is None else persons,
        heads=boxes(),
        ignored=boxes() if ignored is None else ignored,
        person_boxes=made_by,
    )


# Which photographs


def test_a_part_is_held_out_that_people_have_marked() -> None:
    human = [annotation(f"h{i}") for i in range(50)]
    machine = [annotation(f"m{i}", made_by="teacher") for i in range(50)]
    nobody = [annotation(f"n{i}", made_by="none") for i in range(7)]

    division = divide([*machine, *human, *nobody])

    assert (len(division.train), len(division.held_out)) == (101, 6)
    assert {item.person_boxes for item in division.held_out} == {"human"}
    assert sum(item.person_boxes == "none" for item in division.train) == 7, "no box is needed"
    assert not {i.image_id for i in division.train} & {i.image_id for i in division.held_out}
    again = divide([*nobody, *human[::-1], *machine])
    assert {i.image_id for i in again.held_out} == {i.image_id for i in division.held_out}
    assert len(divide(human, limit=10).train) == 9
    assert {i.person_boxes for i in divide(machine).held_out} == {"teacher"}, "better than none"


def test_without_a_photograph_to_judge_by_there_is_no_training() -> None:
    with pytest.raises(RoiCodecError, match="judge by; found 2, 0 of them with boxes"):
        divide([annotation("b", made_by="none"), annotation("c", made_by="none")])
    with pytest.raises(RoiCodecError, match="at least two photographs"):
        divide([annotation("a")])


def test_photographs_take_turns_by_their_names() -> None:
    items = [annotation(str(i)) for i in range(200)]
    turns = by_turns(items, (0.0, 0.0, 3.0))
    assert 100 < len(turns[0.0]) < 170 and len(turns[0.0]) + len(turns[3.0]) == 200
    again = by_turns(items[::-1], (0.0, 0.0, 3.0))
    assert {i.image_id for i in again[3.0]} == {i.image_id for i in turns[3.0]}


# Images made once


@pytest.fixture
def photographs(tmp_path: Path) -> list[Annotation]:
    rng = np.random.default_rng(1)
    items = []
    for name in "abc":
        path = tmp_path / f"{name}.png"
        cv2.imwrite(str(path), rng.integers(0, 255, (100, 200, 3), np.uint8))
        items.append(annotation(name, boxes((10, 20, 50, 80)), path=path))
    return items


class Decode:
    """Counts, and gives a picture of one colour."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, item: Annotation) -> np.ndarray:
        self.calls += 1
        return np.full((item.height, item.width, 3), (10, 20, 30), np.uint8)


def test_what_was_decoded_is_not_decoded_again(
    photographs: list[Annotation], tmp_path: Path
) -> None:
    decode = Decode()
    first = write_images(photographs, tmp_path / "decoded-1", decode)
    assert (first.made, decode.calls) == (3, 3)
    path = first.images[0][1]
    assert cv2.imread(str(path))[0, 0].tolist() == [30, 20, 10]

    moved = [dataclasses.replace(photographs[0], persons=boxes()), *photographs[1:]]
    second = write_images(moved, tmp_path / "decoded-1", decode)
    assert (second.made, decode.calls) == (0, 3)
    assert [p for _, p in second.images] == [p for _, p in first.images]


def test_another_codec_or_photograph_is_decoded(
    photographs: list[Annotation], tmp_path: Path
) -> None:
    decode = Decode()
    write_images(photographs, tmp_path / "decoded-1", decode)
    assert write_images(photographs, tmp_path / "decoded-2", decode).made == 3
    cv2.imwrite(str(photographs[1].image_path), np.zeros((100, 200, 3), np.uint8))
    assert write_images(photographs, tmp_path / "decoded-1", decode).made == 1


def test_a_photograph_that_breaks_is_left_out_and_named(
    photographs: list[Annotation], tmp_path: Path
) -> None:
    def decode(item: Annotation) -> np.ndarray:
        if item.image_id == "b":
            raise RoiCodecError("expected an image, found noise")
        return np.zeros((100, 200, 3), np.uint8)

    photographs[2].image_path.unlink()
    written = write_images(photographs, tmp_path / "decoded", decode)
    assert [item.image_id for item, _ in written.images] == ["a"]
    assert written.failures == [
        ("b", "expected an image, found noise"),
        ("c", "expected an image, found: No such file or directory"),
    ]


# Crops


def test_both_crops_of_a_pair_show_the_same_place(
    photographs: list[Annotation], tmp_path: Path
) -> None:
    def darker(item: Annotation) -> np.ndarray:
        return cv2.imread(str(item.image_path))[:, :, ::-1] // 2

    pairs = write_images(photographs, tmp_path / "decoded", darker).images
    crops = PairCrops(size=64, longest_px=200, originals=0.5)
    batch = PairBatches(pairs, crops).batch(16, np.random.default_rng(3))

    assert batch.originals.shape == batch.decoded.shape == (16, 64, 64, 3)
    clear = [np.array_equal(a, b) for a, b in zip(batch.originals, batch.decoded, strict=True)]
    assert 2 < sum(clear) < 14
    for original, decoded, same in zip(batch.originals, batch.decoded, clear, strict=True):
        if not same:
            outside = (original == PADDING_GREY).all(2) & (decoded == PADDING_GREY).all(2)
            difference = np.abs(original / 2.0 - decoded)[~outside]
            assert difference.max() < 3
    again = PairBatches(pairs, crops).batch(16, np.random.default_rng(3))
    assert np.array_equal(again.originals, batch.originals)


# The command


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    untrained_model("nano").save(tmp_path / "nano.safetensors")
    return tmp_path / "nano.safetensors"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Four cuttings of a photograph of a person, in CrowdHuman's layout."""
    skimage_data = pytest.importorskip("skimage.data")
    pixels = cv2.cvtColor(skimage_data.astronaut(), cv2.COLOR_RGB2BGR)
    folder = tmp_path / "site" / "images" / "train"
    folder.mkdir(parents=True)
    lines = []
    for shift in (0, 40, 80, 120):
        cv2.imwrite(str(folder / f"s{shift}.png"), pixels[shift // 4 :, : 512 - shift])
        body = {"tag": "person", "vbox": [20, 5, 420 - shift, 470]}
        lines.append(json.dumps({"ID": f"s{shift}", "gtboxes": [body]}) + "\n")
    (tmp_path / "site" / "annotation_train.odgt").write_text("".join(lines))
    return tmp_path / "site"


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"--weights": "absent.pt"}, 1, "expected YOLO weights at absent.pt"),
        ({"--weights": "{tmp}/noise.pt"}, 1, "expected YOLO weights in"),
        ({"--codec": "barn"}, 1, "found 'barn'"),
        ({"--split": "empty"}, 1, "expected annotated images in"),
        ({"--split": "val"}, 1, "expected annotation_val.odgt"),
        ({"--crop-size": "100"}, 2, "a multiple of 32 for --crop-size, found 100"),
        ({"--originals": "2"}, 2, "a share of 0 to 1 for --originals, found 2"),
        ({"--box-weight": "-1"}, 2, "a number of 0 or more as box_weight, found -1"),
        ({"--teacher": "absent.pt"}, 1, "expected YOLO weights at absent.pt"),
        ({"--out": "{tmp}/tuned.onnx"}, 2, "expected --out to end in .pt"),
    ],
)
def test_what_can_not_work_is_one_line(
    changes: dict[str, str],
    status: int,
    sentence: str,
    site: Path,
    codec: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "noise" in changes.get("--weights", ""):
        pytest.importorskip("ultralytics")
    (tmp_path / "noise.pt").write_bytes(bytes(100))
    (site / "annotation_empty.odgt").write_text("")
    options = {
        "--codec": str(codec),
        "--data": str(site),
        "--weights": str(tmp_path / "noise.pt"),
        "--out": str(tmp_path / "tuned.pt"),
        "--epochs": "1",
    } | {key: value.format(tmp=tmp_path) for key, value in changes.items()}

    assert main(["train-detector", *(word for pair in options.items() for word in pair)]) == status

    error = capsys.readouterr().err
    assert sentence in error
    lines = [line for line in error.splitlines() if line.startswith("roi-codec")]
    assert len(lines) == 1
    assert "Traceback" not in error
    assert not (tmp_path / "tuned.pt").exists()


@needs_detector
def test_a_tiny_run_gives_weights_with_a_card(
    site: Path, codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ultralytics")
    from roi_codec_ros.perception.person_detector import PersonDetector, load_network

    out = tmp_path / "models" / "person-site.pt"
    command = ["train-detector", "--codec", str(codec), "--data", str(site), "--weights", DETECTOR]
    command += ["--out", str(out), "--epochs", "1", "--crop-size", "64", "--batch-size", "2"]
    command += ["--learning-rate", "0.01", "--threads", "1"]
    assert main(command) == 0
    assert "4 decoded now" in capsys.readouterr().out

    PersonDetector(out).detect(np.zeros((64, 64, 3), np.uint8))
    tuned, started_from = (load_network(Path(p)).model.state_dict() for p in (out, DETECTOR))
    assert load_network(out).names == load_network(Path(DETECTOR)).names
    assert out.stat().st_size < 0.6 * 4 * sum(v.numel() for v in tuned.values()), "half precision"
    assert str(tmp_path).encode() not in out.read_bytes(), "no paths of this machine"
    for name, value in tuned.items():
        same = value.allclose(started_from[name], atol=1e-6)
        if "running" in name:
            assert same, f"{name}: statistics of batch normalisation stay"
        elif name.endswith("conv.weight") and ".dfl." not in name:
            assert not same, f"{name} has not learned"

    card = json.loads(out.with_suffix(".json").read_text())
    assert card["started_from"]["file"] == Path(DETECTOR).name
    assert len(card["started_from"]["sha256"]) == len(card["sha256"]) == 64
    assert card["codec"]["id"] == load_model(str(codec)).id.hex()
    assert "AGPL-3.0" in card["licence"]
    assert card["data"] == {"name": "site", "split": "train"}
    assert card["teacher"] == card["started_from"]
    assert (card["steps"], card["history"][0]["config"]["crops"]["size"]) == (2, 64)
    assert (card["images"]["decoded"], card["images"]["held_out"]) == (3, 1)
    for kind in ("decoded", "originals"):
        assert 0 <= card["held_out_person_ap50"][kind]["before"] <= 1
        assert 0 <= card["held_out_person_ap50"][kind]["after"] <= 1
    assert str(tmp_path) not in json.dumps(card)

    # What a run left is not lost where --resume was forgotten.
    made = out.read_bytes()
    assert main(command) == 1
    assert "--resume continues it, --force replaces it" in capsys.readouterr().err
    assert main([*command[:5], "--weights", str(out), *command[7:], "--force"]) == 2
    assert "cannot write over the input" in capsys.readouterr().err
    assert out.read_bytes() == made

    # Nothing is decoded twice, and a run that has come to its end is not trained on.
    assert main([*command, "--resume"]) == 0
    assert "; 0 decoded now" in capsys.readouterr().out
    again = load_network(out).model.state_dict()
    assert all(value.equal(tuned[name]) for name, value in again.items())


@needs_detector
def test_paths_may_be_relative_and_weights_lie_anywhere(
    site: Path, codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ultralytics = pytest.importorskip("ultralytics")
    elsewhere = tmp_path / "elsewhere"  # where ultralytics would put what has a relative path
    monkeypatch.setitem(ultralytics.settings, "runs_dir", str(elsewhere))
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "it's #1: ñ" / "person.pt"
    weights.parent.mkdir()
    shutil.copy(DETECTOR, weights)
    command = ["train-detector", "--codec", str(codec), "--data", str(site), "--epochs", "1"]
    command += ["--weights", str(weights), "--out", "models/p ñ.pt", "--crop-size", "32"]
    assert main([*command, "--batch-size", "4", "--originals", "0", "--threads", "1"]) == 0
    assert is_ours(tmp_path / "models" / "p ñ.pt")
    assert not elsewhere.exists()


@needs_detector
def test_a_run_that_was_stopped_goes_on_and_no_other_does(
    photographs: list[Annotation], tmp_path: Path
) -> None:
    pytest.importorskip("ultralytics")
    from roi_codec_ros.lab.training.detector_training import (
        DetectorTrainer,
        DetectorTrainingConfig,
    )
    from roi_codec_ros.perception.person_detector import load_network

    pairs = write_images(photographs, tmp_path / "decoded", Decode()).images

    def trainer(steps: int, images: str) -> DetectorTrainer:
        crops = PairCrops(size=64, longest_px=200)
        config = DetectorTrainingConfig(steps=steps, batch_size=1, teacher_share=1.0, crops=crops)
        return DetectorTrainer(
            config,
            PairBatches(pairs, crops),
            tmp_path / "checkpoint.pt",
            Path(DETECTOR),
            Path(DETECTOR),
            about={"images": images},
        )

    losses: list[float] = []
    trainer(2, "these").run(lambda report: losses.append(report.figures["loss"]))
    with pytest.raises(RoiCodecError, match="found another; start over without --resume"):
        trainer(4, "others").resume()
    second = trainer(4, "these")
    second.resume()
    second.run(lambda report: losses.append(report.figures["loss"]))
    assert (second.step, len(losses)) == (4, 4)
    assert all(np.isfinite(losses)) and min(losses) > 0

    written = tmp_path / "all_of_the_teacher.pt"
    written.write_bytes(second.weights_file())
    known, made = (load_network(path).model.state_dict() for path in (Path(DETECTOR), written))
    assert all(value.half().equal(made[name].half()) for name, value in known.items())
    assert any(
        not value.equal(learnt)
        for value, learnt in zip(known.values(), second.average.values(), strict=False)
    )
