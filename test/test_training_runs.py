# SPDX-License-Identifier: Apache-2.0
"""`roi-codec train` as processes: killed, resumed, several at once, short of disk, misled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from test_disk_full import no_file_larger_than

pytest.importorskip("compressai")
pytest.importorskip("lightning_fabric")

from roi_codec_ros.cli import main
from roi_codec_ros.codec import (
    Decoder,
    Encoder,
    Model,
    RoiCodecError,
    find_model,
    get_preset,
    load_model,
)
from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.codec.models import untrained_model
from roi_codec_ros.codec.networks import build_transforms
from roi_codec_ros.codec.policy import model_policy
from roi_codec_ros.codec.presets import Preset
from roi_codec_ros.lab.datasets.annotations_any import read_annotations
from roi_codec_ros.lab.training.checkpoints import (
    initial_weights,
    read_checkpoint,
    synthesis_weights,
)
from roi_codec_ros.lab.training.config import TrainingConfig
from roi_codec_ros.lab.training.data import CropSampler, CropSettings
from roi_codec_ros.lab.training.trainer import Trainer

SIDE = 96
MODEL = "paper-128-2.safetensors"
TINY = ["--preset", "paper-128-2", "--threads", "1", "--batch-size", "1"]
TINY += ["--pictures-every", "0", "--set", "crops.size=64"]
EVERY_OBJECTIVE = ["--objective", "fill,invert"]


def save_model(preset: Preset, path: Path) -> None:
    """A model file of random weights."""
    torch.manual_seed(3)
    analysis, synthesis = build_transforms(preset)
    parts = (("analysis", analysis), ("synthesis", synthesis))
    tensors = {f"{n}.{k}": v.numpy() for n, net in parts for k, v in net.state_dict().items()}
    tensors["latent_mean"] = np.zeros(preset.latent_channels, np.float32)
    tables = EntropyTables.laplace(preset.latent_channels)
    Model.build(path.stem, preset, tensors, tables, card={}).save(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs to train on and one to judge by, each in a colour of its own."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    box = {"tag": "person", "vbox": [10, 10, 60, 80], "hbox": [30, 12, 20, 24], "head_attr": {}}
    for split, names in {"train": "abc", "val": "v"}.items():
        (root / "images" / split).mkdir(parents=True)
        lines = []
        for number, name in enumerate(names):
            level = 200 if split == "val" else 10 + 30 * number
            pixels = rng.integers(level, level + 20, (SIDE, SIDE, 3)).astype(np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{name}.png"), pixels)
            lines.append(json.dumps({"ID": name, "gtboxes": [box], "width": SIDE, "height": SIDE}))
        (root / f"annotation_{split}.odgt").write_text("\n".join(lines) + "\n")
    return root


def arguments(data: Path, out: Path, *options: object) -> list[str]:
    return ["train", "--data", str(data), "--out", str(out), *TINY, *map(str, options)]


def process(arguments: list[str], *wrapper: str) -> subprocess.Popen[str]:
    command = [*wrapper] if wrapper else [sys.executable, "-W", "ignore"]
    return subprocess.Popen(
        [*command, "-m", "roi_codec_ros.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Everything a checkpoint holds that a next step depends on, flat."""
    state = read_checkpoint(out / "checkpoint.pt")
    kept = ("model", "average", "optimizer", "quantile_optimizer", "step")
    flat: dict[str, torch.Tensor] = {}

    def collect(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{name}.{key}", inner)
        elif isinstance(value, (torch.Tensor, int, float)):
            flat[name] = torch.as_tensor(value)

    collect("", {key: state[key] for key in kept})
    return flat


def test_a_run_that_was_killed_and_resumed_ends_as_one_that_was_not(
    data: Path, tmp_path: Path
) -> None:
    options = [*EVERY_OBJECTIVE, "--steps", 8, "--set", "checkpoint_every_s=0"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert main(arguments(data, whole, *options)) == 0

    running = process(arguments(data, killed, *options))
    checkpoint = killed / "checkpoint.pt"
    written: set[int] = set()
    while len(written) < 3 and running.poll() is None:
        if checkpoint.is_file():
            written.add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    reached = read_checkpoint(checkpoint)["step"]
    assert 0 < reached < 8
    assert main(arguments(data, killed, *options, "--resume")) == 0

    ours, theirs = weights(killed), weights(whole)
    assert ours.keys() == theirs.keys()
    assert ours[".step"] == 8
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


def test_a_run_is_not_lost_where_resume_was_forgotten(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(arguments(data, out, "--steps", 2)) == 0
    run = {path.name: path.read_bytes() for path in out.iterdir()}
    assert run.keys() == {".roi-codec.json", "checkpoint.pt", "log.jsonl", MODEL}
    capsys.readouterr()

    assert main(arguments(data, out, "--steps", 1)) == 1
    assert "--resume continues it, --force replaces it" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == run
    weights_of_it = ["--init-from", out / "checkpoint.pt", "--force"]
    assert main(arguments(data, out, "--steps", 1, *weights_of_it)) == 2
    assert main(arguments(data / "absent", out, "--steps", 1, "--force")) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == run

    assert main(arguments(data, out, "--steps", 3, "--resume")) == 0
    assert main(arguments(data, out, "--steps", 1, "--force")) == 0
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [1], "of one run alone"
    assert read_checkpoint(out / "checkpoint.pt")["step"] == 1


def test_what_somebody_keeps_in_the_folder_of_a_run_stays(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(find_model("fast"), tmp_path / "notes.txt")
    (tmp_path / "log.jsonl").write_text("mine")
    assert main(arguments(data, tmp_path, "--steps", 1)) == 1
    assert "log.jsonl: it is something that roi-codec did not make" in capsys.readouterr().err
    assert (tmp_path / "log.jsonl").read_text() == "mine"


def test_two_runs_do_not_share_a_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = process(arguments(data, tmp_path, "--minutes", 5))
    try:
        while not (tmp_path / "log.jsonl").exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        assert main(arguments(data, tmp_path, "--steps", 1, "--force")) == 1
        assert "expected no other run in" in capsys.readouterr().err
        assert first.poll() is None, "the first goes on"
    finally:
        first.kill()
        first.communicate()


def test_what_is_frozen_has_counted_on_what_it_was_trained_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(data, tmp_path, "--steps", 2)) == 0
    trained = load_model(tmp_path / MODEL)
    export = [
        "export-model",
        str(tmp_path / "checkpoint.pt"),
        "--out",
        str(tmp_path / "again.safetensors"),
    ]
    assert main([*export, "--count-on", str(data)]) == 0
    again = load_model(tmp_path / "again.safetensors")

    assert trained.header["training"]["counted_on"] == again.header["training"]["counted_on"] == 3
    assert trained.tables.contexts == again.tables.contexts == 8
    np.testing.assert_array_equal(trained.tables.cdf, again.tables.cdf)
    photograph = cv2.imread(str(data / "images" / "val" / "v.png"))
    frame = Encoder(again).encode(photograph)
    assert Decoder(again).decode(frame.data).image.shape == (512, 512, 3)
    # Photographs that it shall be judged by are none to count on.
    judged = ["--data", str(data), "--split", "train", "--detector", "none.pt"]
    assert main([*export, "--count-on", str(data), *judged]) == 1
    assert "expected no photograph in both splits, found 3" in capsys.readouterr().err


def test_two_processes_train_one_model(data: Path, tmp_path: Path) -> None:
    options = [*EVERY_OBJECTIVE, "--steps", 2]
    port = str(29500 + os.getpid() % 1000)
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]
    torchrun += ["--nproc-per-node", "2", "--master-port", port]
    both = process(arguments(data, tmp_path / "both", *options), *torchrun)
    output, errors = both.communicate(timeout=500)
    assert both.returncode == 0, errors
    assert output.count("wrote") == 1
    model = Model.from_bytes((tmp_path / "both" / MODEL).read_bytes())
    assert model.header["training"]["steps"] == 2
    # Two crops a step, of which the first is what one process draws alone: other weights.
    assert main(arguments(data, tmp_path / "alone", *options)) == 0
    ours, theirs = weights(tmp_path / "both"), weights(tmp_path / "alone")
    moved = (ours[".model.analysis.0.weight"] - theirs[".model.analysis.0.weight"]).abs()
    assert 0 < moved.max() < 1e-2


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stands(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(arguments(data, out, "--steps", 1)) == 0
    before = (out / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    with no_file_larger_than(1 << 20):  # a checkpoint has some 30 MB
        assert main(arguments(data, out, "--steps", 2, "--resume")) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "cannot write a checkpoint to" in last
    assert last.endswith("File too large; the last one stands")
    assert (out / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in out.glob("*.partial")] == []


def test_a_loss_that_is_not_a_number_is_one_line_and_the_last_checkpoint_stands(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(arguments(data, out, "--steps", 1)) == 0
    before = (out / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    options = ["--steps", 20, "--resume", "--set", "learning_rate=1.0e+30"]
    assert main(arguments(data, out, *options)) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("roi-codec train: expected a finite ")
    assert f"the checkpoint {out / 'checkpoint.pt'} stands" in last
    assert (out / "checkpoint.pt").read_bytes() == before


def test_too_little_memory_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(preset="paper-128-2", steps=2, crops=CropSettings(size=64))
    sampler = CropSampler(read_annotations(data, "train"), config.crops)
    run = Trainer(config, sampler, tmp_path / "checkpoint.pt")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(run, "_loss", full)
    monkeypatch.setattr(run, "_train_step", full)
    with pytest.raises(RoiCodecError, match=r"8 crops of 64 px to fit .* there is no checkpoint"):
        run.run(lambda report: None)


def test_no_photograph_of_the_judging_split_is_drawn(data: Path) -> None:
    sampler = CropSampler(read_annotations(data, "train"), CropSettings(size=64, jpeg=0.0))
    sampler.read_ahead()
    assert sampler.left_out == []
    seen = {path.name for path in sampler.photographs._kept}
    assert seen == {"a.png", "b.png", "c.png"}
    still = CropSettings(size=64, jitter=0.0, gamma=1.0, grey=0.0, jpeg=0.0)
    drawn = CropSampler(read_annotations(data, "train"), still).batch(
        200, np.random.default_rng(0)
    )
    # Photographs to train on are dark, those to judge by are bright.
    assert drawn.images.max().item() < 100


def test_a_photograph_in_both_splits_is_an_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("annotation_train.odgt", "annotation_val.odgt"):
        (tmp_path / name).write_text((data / "annotation_train.odgt").read_text())
    (tmp_path / "images").mkdir()
    for split in ("train", "val"):
        (tmp_path / "images" / split).symlink_to(data / "images" / "train")
    assert main(arguments(tmp_path, tmp_path / "out", "--steps", 1)) == 1
    message = capsys.readouterr().err
    assert "expected no photograph in both splits, found 3, the first a" in message


def test_a_broken_split_to_judge_by_is_an_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "annotation_train.odgt").write_text((data / "annotation_train.odgt").read_text())
    (tmp_path / "annotation_val.odgt").write_text("{")
    (tmp_path / "images").symlink_to(data / "images")
    assert main(arguments(tmp_path, tmp_path / "out", "--steps", 1)) == 1
    assert "annotation_val.odgt" in capsys.readouterr().err


def test_what_is_broken_is_left_out_and_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (data / "annotation_train.odgt").read_text()
    (tmp_path / "annotation_train.odgt").write_text(text)
    images = tmp_path / "images" / "train"
    images.mkdir(parents=True)
    (images / "a.png").write_bytes((data / "images" / "train" / "a.png").read_bytes())
    whole = cv2.imencode(".jpg", np.zeros((SIDE, SIDE, 3), np.uint8))[1].tobytes()
    (images / "b.jpg").write_bytes(whole[: len(whole) // 2])
    assert main(arguments(tmp_path, tmp_path / "out", "--steps", 1)) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "1 photographs (1 in memory) with boxes: 1 head, 1 person" in lines
    assert "1 of 3 photographs left out, the first c: no such file" in lines
    cut = f"expected a photograph at {images / 'b.jpg'}, found a picture that is cut off"
    assert f"1 of 2 photographs left out, the first: {cut}" in lines


def test_photographs_that_do_not_fit_their_boxes_are_left_out_and_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One was made smaller since, the boxes of another are of it before its tag turns it."""
    lines = [
        json.loads(line) for line in (data / "annotation_train.odgt").read_text().split("\n")[:3]
    ]
    lines[2]["height"] = SIDE - 8
    (tmp_path / "annotation_train.odgt").write_text("\n".join(map(json.dumps, lines)))
    images = tmp_path / "images" / "train"
    images.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(data / "images" / "train" / "a.png").save(images / "a.png", exif=exif)  # a square
    Image.new("RGB", (SIDE // 2, SIDE // 2)).save(images / "b.png")
    Image.new("RGB", (SIDE, SIDE - 8)).save(images / "c.jpg", exif=exif)
    assert main(arguments(tmp_path, tmp_path / "out", "--steps", 1)) == 0
    (line,) = [s for s in capsys.readouterr().err.splitlines() if "left out" in s]
    assert line.startswith("2 of 3 photographs left out, the first: ")
    assert line.endswith("b.png, found 48×48 px where boxes are of 96×96 px")


def test_a_class_that_no_photograph_has_is_an_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", 1, "--set", "regions.number plate.fill.cells=1"]
    assert main(arguments(data, tmp_path, *options)) == 1
    assert capsys.readouterr().err.strip() == (
        "roi-codec train: expected boxes of number plate in 3 photographs, found only boxes of "
        "head, person"
    )


def test_a_new_run_starts_from_a_model_or_a_checkpoint(data: Path, tmp_path: Path) -> None:
    model = untrained_model("paper-128-2", seed=5)
    file = tmp_path / "start.safetensors"
    file.write_bytes(model.content)
    config = TrainingConfig(preset="paper-128-2", steps=1, crops=CropSettings(size=64))
    sampler = CropSampler(read_annotations(data, "train"), config.crops)

    run = Trainer(config, sampler, tmp_path / "checkpoint.pt")
    run.start_from(*initial_weights([file], config))
    name = "synthesis.0.weight"
    expected = torch.tensor(model.tensors[name])
    torch.testing.assert_close(run.model.state_dict()[name], expected)
    torch.testing.assert_close(run.average[name], expected)
    assert run.about["started_from"] == {"model": "untrained-paper-128-2", "id": model.id.hex()}
    run.save()

    again = Trainer(config, sampler, tmp_path / "again.pt")
    again.start_from(*initial_weights([tmp_path / "checkpoint.pt"], config))
    torch.testing.assert_close(again.average[name], expected)
    assert (again.step, again.about["started_from"]["steps"]) == (0, 0)
    with pytest.raises(
        RoiCodecError, match=r"expected a .* of preset 'paper-256-1'.*'paper-128-2'"
    ):
        initial_weights([file], replace(config, preset="paper-256-1"))


def test_a_model_of_other_sizes_is_no_start(tmp_path: Path) -> None:
    narrower = replace(get_preset("paper-128-2"), latent_channels=64)
    save_model(narrower, tmp_path / "narrower.safetensors")
    with pytest.raises(
        RoiCodecError, match=r"expected weights of the sizes of preset paper-128-2"
    ):
        initial_weights([tmp_path / "narrower.safetensors"], TrainingConfig(preset="paper-128-2"))


def test_a_checkpoint_of_the_format_before_is_read(data: Path, tmp_path: Path) -> None:
    config = TrainingConfig(preset="paper-128-2", steps=1, crops=CropSettings(size=64))
    sampler = CropSampler(read_annotations(data, "train"), config.crops)
    run = Trainer(config, sampler, tmp_path / "checkpoint.pt")
    run.run(lambda report: None)
    state = read_checkpoint(tmp_path / "checkpoint.pt")
    torch.save(state | {"format": 2}, tmp_path / "checkpoint.pt")
    later = Trainer(config, sampler, tmp_path / "checkpoint.pt")
    later.resume()
    assert later.step == 1
    for name, value in run.model.state_dict().items():
        assert torch.equal(later.model.state_dict()[name], value), name


def test_curves_without_tensorboard_say_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(arguments(data, tmp_path, "--steps", 1, "--tensorboard")) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("pip install tensorboard")


def test_curves_and_pictures_are_written_as_it_goes(data: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = ["--steps", 2, "--tensorboard", "--pictures-every", 2]
    assert main(arguments(data, tmp_path, *options)) == 0
    curves = events.EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    assert {"loss", "bpp", "psnr_db", "head/invert", "person/keep"} <= set(
        curves.Tags()["scalars"]
    )
    assert curves.Tags()["images"] == ["original and decoded"]
    assert cv2.imread(str(tmp_path / "strip.png")).shape == (4 * 64, 2 * 64, 3)
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    logged = json.loads(line)
    assert logged["step"] == 2
    assert 0 <= logged["loader"] <= 1
    assert logged["bpp"] == pytest.approx(curves.Scalars("bpp")[0].value, rel=1e-3)


def test_a_block_codec_holds_the_steps_of_its_configuration(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "nano"
    tiny = ["--preset", "nano", "--threads", "1", "--batch-size", "1", "--set", "crops.size=64"]

    steps = ["--set", "levels.near=16.5", "--set", "levels.person=12"]
    steps += ["--init-from", str(find_model("fast"))]
    words = ["train", "--data", str(data), "--out", str(out), *tiny, "--steps", "1", *steps]
    assert main(words) == 0

    assert model_policy(load_model(str(out / "nano.safetensors"))).levels == (23, 16.5, 12, 9)

    export = ["export-model", str(out / "checkpoint.pt"), "--count-on", str(data)]
    other = ["--out", str(tmp_path / "coarse.safetensors"), "--levels", "23", "20", "18", "16"]
    assert main([*export, *other]) == 0
    coarse = load_model(tmp_path / "coarse.safetensors")
    assert model_policy(coarse).levels == (23, 20, 18, 16)

    # A model file serves as its checkpoint does: its weights and what its card says are kept.
    again = ["export-model", str(tmp_path / "coarse.safetensors"), "--count-on", str(data)]
    fine = ["--out", str(tmp_path / "fine.safetensors"), "--levels", "20", "10", "8", "6"]
    assert main([*again, *fine]) == 0
    made = load_model(tmp_path / "fine.safetensors")
    assert model_policy(made).levels == (20, 10, 8, 6)
    weights, kept = (model.weights("synthesis") for model in (coarse, made))
    assert all(np.array_equal(value, kept[name]) for name, value in weights.items())
    assert made.header["training"]["steps"] == coarse.header["training"]["steps"] == 1


def test_a_synthesis_starts_from_one_of_other_coefficients() -> None:
    """What a preset codes besides is not used: at coarse levels, pictures stay the same."""
    fewer, origin = synthesis_weights(find_model("nano"), "nano")
    more, _ = synthesis_weights(find_model("nano"), "fast")
    back, _ = synthesis_weights(find_model("fast"), "nano")
    networks = []
    for preset, weights in (("nano", fewer), ("fast", more), ("nano", back)):
        networks.append(build_transforms(get_preset(preset))[1])
        networks[-1].load_state_dict(weights)
    y = torch.randn(1, 128, 4, 5)
    y[:, 96:] = 0
    levels, hidden = torch.full((1, 1, 4, 5), 9.0), torch.zeros(1, 1, 4, 5)

    with torch.inference_mode():
        pictures = [networks[0](y[:, :96], levels, hidden), networks[1](y, levels, hidden)]

    torch.testing.assert_close(*pictures, atol=2e-3, rtol=0)  # files hold 16 bits
    assert origin["model"] == "nano"


def test_weights_of_another_architecture_are_refused_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--data", str(data), "--steps", "1", "--preset", "fast", "--threads", "1"]
    paper = str(find_model("paper-128-2"))

    assert main([*words, "--out", str(tmp_path / "out"), "--init-from", paper]) == 1
    assert "expected weights of preset fast, found:" in capsys.readouterr().err
