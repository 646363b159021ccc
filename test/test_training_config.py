# SPDX-License-Identifier: Apache-2.0
"""Configurations that ship, how options override them, and what a mistake says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("compressai")

from roi_codec_ros.cli import main
from roi_codec_ros.codec import UsageError
from roi_codec_ros.codec.presets import BLOCKS, PRESETS, get_preset
from roi_codec_ros.lab.commands import train
from roi_codec_ros.lab.training.block_config import BlockTrainingConfig, parse_block_config
from roi_codec_ros.lab.training.config import (
    TrainingConfig,
    parse_config,
    preset_config,
    read_mapping,
)
from roi_codec_ros.lab.training.objectives import Fill, Invert, Keep


def asked(*options: str) -> TrainingConfig:
    """The configuration of `roi-codec train` with these options."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    args = parser.parse_args(["--data", "d", "--out", "o", *options])
    return train.configuration(args)


def asked_blocks(*options: str) -> BlockTrainingConfig:
    """The same for a preset that codes blocks."""
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    args = parser.parse_args(["--data", "d", "--out", "o", *options])
    assert train.codes_blocks(args)
    return train.block_configuration(args)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_configuration(preset: str) -> None:
    parse = parse_block_config if get_preset(preset).architecture == BLOCKS else parse_config
    config = parse(read_mapping(preset_config(preset)))
    assert config.preset == preset
    ask = asked_blocks if parse is parse_block_config else asked
    assert ask("--preset", preset).preset == preset


@pytest.mark.parametrize(
    ("preset", "epochs"), [("paper-128-2", 750), ("paper-256-1", 293), ("paper-256-2", 874)]
)
def test_the_papers_numbers(preset: str, epochs: int) -> None:
    config = asked("--preset", preset)
    assert config.regions == {"head": {"invert": Invert(0.6)}, "person": {"keep": Keep(1.0)}}
    assert (config.lambda_background, config.epochs) == (1.0, epochs)
    assert (config.crops.squash_to, config.crops.size) == (512, 512)
    assert config.crops.min_zoom == config.crops.max_zoom == 1.0
    crops = config.crops
    assert (crops.mirror, crops.jitter, crops.gamma, crops.grey, crops.jpeg) == (0, 0, 1, 0, 0)
    assert (config.minutes, config.skip_unknown_heads) == (None, False)


def test_a_run_of_the_papers_presets_ends_on_the_papers_loss() -> None:
    config = asked("--preset", "paper-128-2")
    first, last = config.stage(0.1), config.stage(0.5)
    assert first.regions["head"] == {"fill": Fill(1.0, cells=1)}
    assert (last.regions, last.stages) == (config.regions, ())
    assert config.stage(1.0) == last
    # Only what a stage names is another one's.
    assert (first.lambda_rate, first.regions["person"]) == (0.006, config.regions["person"])


def test_stages_share_the_budget_and_know_the_classes_of_the_run() -> None:
    config = parse_config(
        {"stages": [{"share": 1.0, "lambda_rate": 0.1}, {"share": 3.0, "feature_weight": 2.0}]}
    )
    assert [config.stage(p).lambda_rate for p in (0.0, 0.2, 0.3)] == [0.1, 0.1, 0.04]
    assert [config.stage(p).feature_weight for p in (0.2, 0.3)] == [0.0, 2.0]
    for stages, complaint in (
        ([{"regions": {"plate": {"fill": {}}}}], r"stages.0.regions, found plate"),
        ([{}, {"regions": {"head": {"blur": {}}}}], r"stages.1.regions.head, found 'blur'"),
        ([{"minutes": 3}], r"found 'stages.0.minutes'"),
        ([{"share": 0}], r"above 0 as stages.0.share"),
        (3, r"expected a list of stages"),
    ):
        with pytest.raises(UsageError, match=complaint):
            parse_config({"stages": stages})


def test_a_target_of_bits_needs_a_price_to_start_with() -> None:
    config = parse_config({"target_bpp": 0.3, "stages": [{"lambda_rate": 0.1}]})
    assert (config.stage(0.5).target_bpp, config.stage(0.5).lambda_rate) == (0.3, 0.1)
    for values in ({"lambda_rate": 0.0}, {"stages": [{"lambda_rate": 0.0}]}):
        with pytest.raises(UsageError, match="lambda_rate above 0 for target_bpp"):
            parse_config({"target_bpp": 0.3, **values})


def test_a_plain_run_takes_the_presets_configuration() -> None:
    config = asked_blocks()
    shipped = read_mapping(preset_config("fast"))
    assert (config.minutes, config.steps, config.preset) == (shipped["minutes"], None, "fast")
    assert (config.feature_weight, config.detection_weight) == (0.0, 0.0)
    told = asked_blocks("--feature-detector", "yolov8n.pt")
    assert told.feature_weight == shipped["feature_weight"] > 0
    with pytest.raises(UsageError, match="found 'regions'"):
        asked_blocks("--objective", "fill")
    with pytest.raises(UsageError, match="analysis is trained, found 'fast', which codes blocks"):
        asked("--preset", "paper-128-2", "--set", "preset=fast")


def test_options_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(
        "preset: paper-128-2\nepochs: 3\nregions: {head: {fill: {weight: 5}}}\nseed: 4\n"
    )
    assert asked("--config", str(file)).epochs == 3
    config = asked(
        *("--config", str(file), "--steps", "7", "--lambda-head", "2", "--head-cells", "3"),
        *("--lambda-person", "4", "--lambda-rate", "0.3"),
        *("--set", "regions.number plate.fill.cells=1", "--set", "crops.size=128"),
    )
    assert (config.preset, config.steps, config.epochs, config.seed) == ("paper-128-2", 7, None, 4)
    assert config.regions == {
        "head": {"fill": Fill(2.0, cells=3)},
        "person": {"keep": Keep(4.0)},
        "number plate": {"fill": Fill(cells=1)},
    }
    assert (config.lambda_rate, config.crops.size) == (0.3, 128)


def test_objectives_of_heads_by_name() -> None:
    paper = asked("--preset", "paper-128-2", "--objective", "paper", "--lambda-head", "0.7")
    assert paper.regions["head"] == {"invert": Invert(0.7)}
    assert not paper.skip_unknown_heads
    several = asked("--preset", "paper-128-2", "--objective", "fill,invert", "--head-cells", "1")
    assert several.regions["head"] == {"fill": Fill(cells=1), "invert": Invert(0.6)}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--objective", "blur"], r"--objective paper, or some of invert, .*found 'blur'"),
        (["--objective", "paper", "--head-cells", "2"], r"objective fill for --head-cells"),
        (["--set", "crops.sise=3"], r"a key among size, .*; found 'crops.sise'"),
        (["--set", "precision=fp8"], r"one of bf16, fp32 as precision, found 'fp8'"),
        (["--set", "batch_size"], r"--set KEY=VALUE, found 'batch_size'"),
        (["--set", "seed=!!timestamp 1"], r"a value in YAML for seed, found '!!timestamp 1'"),
        (["--learning-rate", "0"], r"a number above 0 as learning_rate, found 0.0"),
        (["--seed", "-1"], r"a number of 0 or more as seed, found -1"),
        (["--set", "crops=3"], r"expected settings \(size, .* as crops, found 3"),
        (["--preset", "huge"], r"a preset among fast"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(options: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        asked("--preset", "paper-128-2", *options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("minutes: soon", r"expected a number as minutes, found 'soon'"),
        ("minutes: 3\nsteps: 4", r"expected one of minutes, steps, epochs; found minutes, steps"),
        ("lambda: 3", r"found 'lambda'"),
        ("[1", r"expected a configuration in YAML at"),
        ("- 1", r"expected keys and values in"),
    ],
)
def test_a_broken_file_is_one_line(
    tmp_path: Path, text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        asked("--config", str(file))
    arguments: list[Any] = ["train", "--config", file, "--data", tmp_path, "--out", tmp_path]
    assert main([str(argument) for argument in arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
