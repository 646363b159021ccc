# SPDX-License-Identifier: Apache-2.0
"""A tiny run on a real photograph: it learns, stops in time, resumes, freezes to a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("compressai")

from roi_codec_ros.cli import main
from roi_codec_ros.codec import Decoder, Encoder, Model, RoiCodecError
from roi_codec_ros.codec.spatial import code_length_bits
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.training.checkpoints import averaged_codec, read_checkpoint
from roi_codec_ros.lab.training.config import TrainingConfig
from roi_codec_ros.lab.training.data import (
    CropSampler,
    CropSettings,
    source_shares,
    unannotated_heads,
)
from roi_codec_ros.lab.training.freeze import freeze
from roi_codec_ros.lab.training.loader import Prefetcher
from roi_codec_ros.lab.training.objectives import Fill, Invert, Keep, Regions
from roi_codec_ros.lab.training.trainer import Trainer
from roi_codec_ros.lab.training.training_run import StepReport

BOXES = np.array([[60, 40, 260, 400]], np.float32)
STILL = CropSettings(size=128, jitter=0.0, gamma=1.0, grey=0.0, jpeg=0.0)
HEADS = np.array([[120, 50, 180, 120]], np.float32)
PAPER: Regions = {"head": {"invert": Invert(0.6)}, "person": {"keep": Keep(1.0)}}
FILL: Regions = {"head": {"fill": Fill(0.6, cells=1)}, "person": {"keep": Keep(1.0)}}


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Annotation:
    skimage_data = pytest.importorskip("skimage.data")
    pixels = cv2.cvtColor(skimage_data.astronaut(), cv2.COLOR_RGB2BGR)
    path = tmp_path_factory.mktemp("photographs") / "astronaut.png"
    cv2.imwrite(str(path), pixels)
    return Annotation(
        image_path=path,
        image_id="astronaut",
        width=512,
        height=512,
        persons=BOXES,
        heads=HEADS,
        ignored=np.zeros((0, 4), np.float32),
    )


def trainer(annotation: Annotation, checkpoint: Path, **changes: object) -> Trainer:
    config = TrainingConfig(
        **{
            "preset": "paper-128-2",
            "minutes": 0.2,
            "batch_size": 2,
            "crops": CropSettings(size=64),
        }
        | changes  # type: ignore[arg-type]
    )
    return Trainer(
        config,
        CropSampler([annotation], config.crops),
        checkpoint,
        about={"data": "one photograph"},
    )


def test_crops_carry_their_boxes_along(photograph: Annotation) -> None:
    """A head painted in one colour is found, in every crop, exactly where its box says."""
    pixels = np.zeros((512, 512, 3), np.uint8)
    pixels[50:120, 120:180] = 255
    sampler = CropSampler(
        [photograph], CropSettings(size=128, jitter=0.0, gamma=1.0, grey=0.0, jpeg=0.0)
    )
    sampler.photographs._kept[photograph.image_path] = pixels
    batch = sampler.batch(32, np.random.default_rng(3))

    seen = 0
    for image, heads in zip(batch.images, batch.heads, strict=True):
        bright = (image[0] > 127).nonzero()
        if not len(bright):
            continue
        seen += 1
        top, left = bright.min(dim=0).values.tolist()
        bottom, right = (bright.max(dim=0).values + 1).tolist()
        x1, y1, x2, y2 = heads[0].clamp(0, 128).tolist()
        np.testing.assert_allclose([left, top, right, bottom], [x1, y1, x2, y2], atol=1.5)
    assert seen > 10


def test_light_changes_a_crop_and_not_what_it_shows(photograph: Annotation) -> None:
    def crops(settings: CropSettings) -> np.ndarray:
        batch = CropSampler([photograph], settings).batch(1, np.random.default_rng(7))
        return batch.images[0].numpy().astype(float)

    plain = crops(STILL)
    grey = crops(dataclasses.replace(STILL, grey=1.0))
    assert np.ptp(grey, axis=0).max() == 0
    assert np.abs(grey.mean(axis=0) - plain.mean(axis=0)).mean() < 12
    coded = crops(dataclasses.replace(STILL, jpeg=1.0))
    assert 0.1 < np.abs(coded - plain).mean() < 12
    relit = crops(dataclasses.replace(STILL, jitter=0.15, gamma=1.6))
    assert np.abs(relit - plain).mean() > 2
    assert np.corrcoef(relit.ravel(), plain.ravel())[0, 1] > 0.9


def test_a_person_without_an_annotated_head_has_an_unknown_region(photograph: Annotation) -> None:
    assert len(unannotated_heads(photograph)) == 0
    headless = dataclasses.replace(photograph, heads=np.zeros((0, 4), np.float32))
    np.testing.assert_allclose(unannotated_heads(headless), [[60, 40, 260, 40 + 0.3 * 360]])


def test_batches_depend_on_seed_and_number_alone(photograph: Annotation) -> None:
    sampler = CropSampler([photograph], CropSettings(size=64))
    drawn = []
    for first in (0, 2):
        source = Prefetcher(sampler, 2, seed=5, first=first)
        batches = iter(source)
        drawn.append([next(batches).images for _ in range(4)])
        source.close()
    assert torch.equal(drawn[0][2], drawn[1][0])
    assert torch.equal(drawn[0][3], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[0][1])


@pytest.mark.parametrize("regions", [FILL, PAPER], ids=["fill", "paper"])
def test_a_tiny_run_learns_and_gives_a_model_that_codes(
    photograph: Annotation, tmp_path: Path, regions: Regions
) -> None:
    budget = {"minutes": None, "steps": 24, "warm_up_steps": 1}
    run = trainer(photograph, tmp_path / "checkpoint.pt", regions=regions, **budget)
    reports: list[StepReport] = []
    run.run(reports.append)

    first, last = reports[:5], reports[-5:]
    assert len(reports) == 24
    assert np.mean([r.figures["bpp"] for r in last]) < np.mean([r.figures["bpp"] for r in first])

    model = freeze(tmp_path / "checkpoint.pt")
    model.save(tmp_path / "codec.safetensors")
    loaded = Model.from_bytes((tmp_path / "codec.safetensors").read_bytes())
    assert loaded.header["training"]["steps"] == len(reports)
    assert loaded.header["training"]["data"] == "one photograph"
    image = cv2.cvtColor(cv2.imread(str(photograph.image_path)), cv2.COLOR_BGR2RGB)
    frame = Encoder(loaded).encode(image)
    decoded = Decoder(loaded).decode(frame.data).image
    # What decodes is what the averaged network restores, but for weights in half precision.
    network = averaged_codec(read_checkpoint(tmp_path / "checkpoint.pt"))
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        restored = network.decoded(network.quantised(network.code(x, False)), False)
    expected = restored[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255
    mse = np.mean((decoded.astype(float) - expected) ** 2)
    assert 10 * np.log10(255**2 / mse) > 35
    # What is coded costs what the frozen tables say it costs.
    ideal = code_length_bits(loaded.tables, Encoder(loaded).symbols(image)).sum()
    assert 8 * len(frame.data) < 1.02 * ideal + 8 * 100


def test_a_run_that_was_stopped_goes_on_where_it_was(
    photograph: Annotation, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    first = trainer(photograph, checkpoint, minutes=0.05)
    first.run(lambda report: None)
    assert first.elapsed_s >= 3 and first.progress() == 1.0

    second = trainer(photograph, checkpoint, minutes=0.05)
    second.resume()
    assert second.step == first.step
    assert second.elapsed_s == first.elapsed_s

    # The next step is the same for both: weights, optimizer state and averages are all there.
    steps = first.step
    for run in (first, second):
        run.config = dataclasses.replace(run.config, minutes=0.1)
        run.elapsed_s = 6 - 1e-6
        run.run(lambda report: None)
    assert second.step == first.step == steps + 1
    for state in ("model", "average"):
        ours, theirs = (
            {"model": r.model.state_dict(), "average": r.average}[state] for r in (first, second)
        )
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(("target", "rises"), [(0.5, True), (50.0, False)])
def test_the_price_of_a_bit_is_led_to_a_target_and_goes_on_from_a_checkpoint(
    photograph: Annotation, tmp_path: Path, target: float, rises: bool
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    first = trainer(photograph, checkpoint, minutes=None, steps=5, target_bpp=target)
    prices: list[float] = []
    first.run(lambda report: prices.append(report.figures["lambda_rate"]))
    assert prices[:2] == [0.04, 0.04]
    assert prices[1:] == sorted(set(prices), reverse=not rises)

    second = trainer(photograph, checkpoint, minutes=None, steps=6, target_bpp=target)
    second.resume()
    second.run(lambda report: prices.append(report.figures["lambda_rate"]))
    assert len(prices) == 6
    assert prices[1:] == sorted(set(prices), reverse=not rises)


def test_a_checkpoint_of_another_preset_is_refused(photograph: Annotation, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    trainer(photograph, checkpoint).save()
    other = trainer(photograph, checkpoint, preset="paper-256-1")
    complaint = r"a checkpoint of preset 'paper-256-1'.*of 'paper-128-2'"
    with pytest.raises(RoiCodecError, match=complaint):
        other.resume()


def test_a_broken_checkpoint_is_one_clear_error(photograph: Annotation, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(RoiCodecError, match="expected a training checkpoint at"):
        trainer(photograph, checkpoint).resume()
    torch.save({"format": 1}, checkpoint)
    with pytest.raises(RoiCodecError, match=r"checkpoint of format 2 or 3 .*found 1"):
        freeze(checkpoint)


def test_export_model_writes_what_the_checkpoint_holds(
    photograph: Annotation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = tmp_path / "checkpoint.pt", tmp_path / "lab.safetensors"
    trainer(photograph, checkpoint).save()
    assert main(["export-model", str(checkpoint), "--out", str(out), "--name", "lab"]) == 0
    exported = Model.from_bytes(out.read_bytes())
    assert exported.name == "lab"
    assert exported.content == freeze(checkpoint, "lab").content
    small = tmp_path / "small.safetensors"
    assert main(["export-model", str(checkpoint), "--out", str(small), "--eight-bits"]) == 0
    assert small.stat().st_size < 0.6 * out.stat().st_size
    assert main(["export-model", str(checkpoint), "--out", str(out), "--data", "x"]) == 2
    assert main(["export-model", str(out), "--out", str(out)]) == 2
    assert "cannot write over the input" in capsys.readouterr().err
    assert main(["export-model", str(out), "--out", str(small)]) == 2
    assert "expected a training checkpoint, or a model that codes" in capsys.readouterr().err


def test_a_blend_stands_between_two_checkpoints(photograph: Annotation, tmp_path: Path) -> None:
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    trainer(photograph, first).save()
    trainer(photograph, second, seed=2).save()
    ours, theirs = freeze(first), freeze(second)
    blended = freeze(first, blend=(second, 0.25))
    name = "analysis.0.bias"
    torch.testing.assert_close(
        torch.tensor(blended.tensors[name]).float(),
        0.75 * torch.tensor(ours.tensors[name]).float()
        + 0.25 * torch.tensor(theirs.tensors[name]).float(),
        atol=1e-3,
        rtol=0,
    )
    assert blended.header["training"]["blended_with"] == {"steps": 0, "share": 0.25}
    out = ["--out", str(tmp_path / "x.safetensors")]
    assert main(["export-model", str(first), *out, "--blend", str(second), "2"]) == 2
    assert main(["export-model", str(first), *out, "--blend", str(second), "half"]) == 2


def test_small_sources_are_not_drowned() -> None:
    shares = source_shares(["large"] * 16 + ["small"] * 4)
    assert shares.sum() == pytest.approx(1)
    assert shares[:16].sum() == pytest.approx(4 / 6)
    assert shares[16:].tolist() == pytest.approx([2 / 6 / 4] * 4)
