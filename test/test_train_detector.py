# SPDX-License-Identifier: Apache-2.0
"""A detector fine-tuned on decoded images: labels, images made once, runs that go on, weights."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.codec.models import load_model, untrained_model
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import is_ours
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.datasets.annotations_odgt import read_odgt
from roi_codec_ros.lab.training.detector_data import (
    IGNORED_GREY,
    divide,
    hide_ignored,
    some,
    write_images,
    write_yolo_data,
    yolo_label,
)
from roi_codec_ros.lab.training.detector_training import FineTuning, fine_tune, interpolate

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


# Labels


def test_a_label_is_the_centre_and_size_in_shares_of_the_image() -> None:
    label = yolo_label(annotation(persons=boxes((10, 20, 50, 80), (0, 0, 200, 100))))
    assert (
        label == "0 0.150000 0.500000 0.200000 0.600000\n0 0.500000 0.500000 1.000000 1.000000\n"
    )


def test_a_box_ends_at_the_border_and_one_beyond_it_is_none() -> None:
    label = yolo_label(annotation(persons=boxes((-20, 40, 30, 120), (210, 10, 240, 50))))
    assert label == "0 0.075000 0.700000 0.150000 0.600000\n"


def test_an_image_without_persons_has_an_empty_label() -> None:
    assert yolo_label(annotation()) == ""


def test_bodies_that_were_estimated_are_hidden_and_no_label(tmp_path: Path) -> None:
    """Neither a person nor background: grey, except where somebody is marked."""
    (tmp_path / "images" / "train").mkdir(parents=True)
    body: dict[str, object] = {"tag": "person", "vbox": [20, 10, 40, 80]}
    guessed = {"tag": "person", "vbox": [50, 10, 40, 60], "extra": {"estimated": 1}}
    crowd = {"tag": "mask", "vbox": [150.5, 50, 49, 49], "extra": {"ignore": 1}}
    line = {"ID": "a", "gtboxes": [body, guessed, crowd], "width": 200, "height": 100}
    (tmp_path / "annotation_train.odgt").write_text(json.dumps(line) + "\n")
    (item,) = read_odgt(tmp_path, "train")

    white = np.full((100, 200, 3), 255, np.uint8)
    shown = hide_ignored(white, item)

    assert yolo_label(item) == "0 0.200000 0.500000 0.200000 0.800000\n"
    grey = (shown == IGNORED_GREY).all(axis=2)
    assert grey[10:70, 60:90].all(), "the guessed body beside the marked one"
    assert not grey[:, 20:60].any(), "the marked person"
    assert grey[50:99, 150:200].all(), "the crowd, to the whole pixel"
    assert grey.sum() == 60 * 30 + 49 * 50
    assert white.min() == 255, "the image given stays as it is"


# Which photographs


def test_a_part_is_held_out_that_people_have_marked() -> None:
    human = [annotation(f"h{i}") for i in range(50)]
    machine = [annotation(f"m{i}", made_by="teacher") for i in range(50)]
    nobody = [annotation(f"n{i}", made_by="none") for i in range(7)]

    division = divide([*machine, *human, *nobody])

    assert division.unknown == 7
    assert (len(division.train), len(division.held_out)) == (94, 6)
    assert {item.person_boxes for item in division.held_out} == {"human"}
    assert not {i.image_id for i in division.train} & {i.image_id for i in division.held_out}
    again = divide([*human[::-1], *machine])
    assert {i.image_id for i in again.held_out} == {i.image_id for i in division.held_out}
    assert len(divide(human, limit=10).train) == 9
    assert {i.person_boxes for i in divide(machine).held_out} == {"teacher"}, "better than none"


def test_photographs_whose_persons_are_unknown_are_nothing_to_train_on() -> None:
    with pytest.raises(RoiCodecError, match=r"at least two .* found 1 and 2 whose persons"):
        divide([annotation("a"), annotation("b", made_by="none"), annotation("c", made_by="none")])


def test_a_share_of_originals_is_always_the_same() -> None:
    items = [annotation(str(i)) for i in range(40)]
    quarter = {i.image_id for i in some(items, 0.25)}
    assert len(quarter) == 10
    assert quarter == {i.image_id for i in some(items[::-1], 0.25)}
    assert some(items, 0) == []


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
    label = path.parents[1] / "labels" / f"{path.stem}.txt"
    assert label.read_text() == "0 0.150000 0.500000 0.200000 0.600000\n"

    moved = [dataclasses.replace(photographs[0], persons=boxes()), *photographs[1:]]
    second = write_images(moved, tmp_path / "decoded-1", decode)
    assert (second.made, decode.calls) == (0, 3)
    assert [p for _, p in second.images] == [p for _, p in first.images]
    assert label.read_text() == "", "boxes may change without decoding"


def test_another_codec_or_photograph_is_decoded(
    photographs: list[Annotation], tmp_path: Path
) -> None:
    decode = Decode()
    write_images(photographs, tmp_path / "decoded-1", decode)
    assert write_images(photographs, tmp_path / "decoded-2", decode).made == 3
    cv2.imwrite(str(photographs[1].image_path), np.zeros((100, 200, 3), np.uint8))
    hidden = dataclasses.replace(photographs[2], ignored=boxes((0, 0, 9, 9)))
    changed = [photographs[0], photographs[1], hidden]
    assert write_images(changed, tmp_path / "decoded-1", decode).made == 2


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
        ({"--image-size": "100"}, 2, "a multiple of 32 as image size, found 100"),
        ({"--originals": "2"}, 2, "a share of 0 to 1 for --originals, found 2"),
        ({"--tuned-share": "-1"}, 2, "a share of 0 to 1 for --tuned-share, found -1"),
        ({"--freeze": "-1"}, 2, "expected 0 or more layers"),
        ({"--out": "{tmp}/it's/tuned.pt"}, 2, "without an apostrophe"),
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


def test_a_budget_is_epochs_or_minutes() -> None:
    with pytest.raises(UsageError, match="either epochs or minutes"):
        FineTuning()
    with pytest.raises(UsageError, match="either epochs or minutes"):
        FineTuning(epochs=1, minutes=1)


@needs_detector
def test_a_tiny_run_gives_weights_with_a_card(
    site: Path, codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ultralytics")
    from roi_codec_ros.perception.person_detector import PersonDetector, load_network

    out = tmp_path / "models" / "person-site.pt"
    command = ["train-detector", "--codec", str(codec), "--data", str(site), "--weights", DETECTOR]
    command += ["--out", str(out), "--epochs", "1", "--image-size", "64", "--batch-size", "2"]
    command += ["--originals", "0.34", "--threads", "1"]
    assert main(command) == 0
    assert "4 decoded now" in capsys.readouterr().out

    detector = PersonDetector(out, image_size=64)
    detector.detect(np.zeros((64, 64, 3), np.uint8))
    tuned, started_from = (load_network(Path(p)).model.state_dict() for p in (out, DETECTOR))
    assert load_network(out).names == {0: "person"}
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
    assert (card["epochs"], card["steps"], card["image_size"]) == (1.0, 2, 64)
    counts = {key: card["images"][key] for key in ("decoded", "originals", "held_out", "persons")}
    assert counts == {"decoded": 3, "originals": 1, "held_out": 1, "persons": 3}
    for kind in ("decoded", "originals"):
        assert 0 <= card["held_out_person_ap50"][kind]["before"] <= 1
        assert 0 <= card["held_out_person_ap50"][kind]["after"] <= 1
    assert str(tmp_path) not in json.dumps(card)

    # What a run left is not lost where --resume was forgotten.
    made = out.read_bytes()
    assert main(command) == 1
    assert "--resume goes on with it, --force starts over" in capsys.readouterr().err
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
    command += ["--weights", str(weights), "--out", "models/p ñ.pt", "--image-size", "32"]
    assert main([*command, "--batch-size", "4", "--originals", "0", "--threads", "1"]) == 0
    assert is_ours(tmp_path / "models" / "p ñ.pt")
    assert not elsewhere.exists()


@needs_detector
def test_the_result_stands_between_what_it_was_and_what_it_became() -> None:
    pytest.importorskip("ultralytics")
    import torch

    from roi_codec_ros.perception.person_detector import load_network

    network = load_network(Path(DETECTOR)).model.float()
    name, weights = next(iter(network.named_parameters()))
    began = weights.detach().clone()
    with torch.no_grad():
        weights += 4.0
    assert interpolate(network, Path(DETECTOR), 0.25) == 0.25
    assert network.state_dict()[name].allclose(began + 1.0, atol=1e-5)

    network.model[-1].cv3[0][-1] = torch.nn.Conv2d(80, 3, 1)  # as for three classes
    with torch.no_grad():
        dict(network.named_parameters())[name].add_(1.0)
    assert interpolate(network, Path(DETECTOR), 0.25) == 1.0
    assert network.state_dict()[name].allclose(began + 2.0, atol=1e-5)


@needs_detector
def test_a_run_that_was_stopped_goes_on_from_its_last_epoch(
    photographs: list[Annotation], tmp_path: Path
) -> None:
    pytest.importorskip("ultralytics")
    written = write_images(photographs, tmp_path / "decoded", Decode())
    files = [path for _, path in written.images]
    data = write_yolo_data(tmp_path, files, files[:1])

    def tune(on_step: Callable[[float], None], **options: object) -> int:
        config = FineTuning(epochs=2, image_size=64, batch_size=1)
        folder = tmp_path / "run"
        tuned = fine_tune(
            Path(DETECTOR), data, config, folder, threads=1, on_step=on_step, **options
        )  # type: ignore[arg-type]
        return tuned.steps

    def stop_in_the_second_epoch(progress: float) -> None:
        if progress > 0.8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(stop_in_the_second_epoch)
    seen: list[float] = []
    with pytest.raises(RoiCodecError, match="found another; start anew without --resume"):
        tune(seen.append, resume=True, identity="other images")
    assert tune(seen.append, resume=True) == 6
    assert seen == pytest.approx([4 / 6, 5 / 6, 1])
