# SPDX-License-Identifier: Apache-2.0
"""Networks that map heads: how they learn, and what they are beside another network."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("compressai")

from roi_codec_ros.cli import main
from roi_codec_ros.codec import RoiCodecError, UsageError, find_model, get_preset, load_model
from roi_codec_ros.lab.training import losses
from roi_codec_ros.lab.training.checkpoints import averaged_codec, read_checkpoint
from roi_codec_ros.lab.training.config import parse_config
from roi_codec_ros.lab.training.normalized import NormalizedCodec
from roi_codec_ros.lab.training.side_by_side import side_by_side
from roi_codec_ros.lab.training.teaching import Readouts, Seen, Teacher
from roi_codec_ros.lab.training.trainable import TrainableCodec

DETECTOR = str(find_model("fast").with_name("person-yolov8n-fast.pt"))
NARROW = {"analysis": [4, 6, 8], "synthesis": [8, 4]}


def drawn(codec: TrainableCodec, x: Tensor) -> Tensor:
    """What a codec makes of an image without rounding its latent."""
    with torch.no_grad():
        return codec.decoded(codec.code(x, False), False)


def scattered(preset: str, seed: int) -> TrainableCodec:
    """A codec whose weights are all somewhat off their start."""
    torch.manual_seed(seed)
    codec = TrainableCodec(preset)
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return codec.eval()


def test_networks_side_by_side_add_up_what_they_reconstruct() -> None:
    first, second = scattered("paper-24-1", 1), scattered("paper-12-1", 2)
    parts = [(get_preset(f"paper-{n}-1"), c.state_dict()) for n, c in ((24, first), (12, second))]
    wide = TrainableCodec("paper-40-1").eval()
    wide.load_state_dict(side_by_side(parts, get_preset("paper-40-1")))
    x = torch.rand(1, 3, 64, 48)

    torch.testing.assert_close(drawn(wide, x), drawn(first, x) + drawn(second, x))
    latents = wide.code(x, False)
    torch.testing.assert_close(latents[:, :24], first.code(x, False))
    torch.testing.assert_close(latents[:, 24:36], second.code(x, False))
    assert latents[:, 36:].std() > 0  # spare channels see something that training can use
    torch.testing.assert_close(wide.means()[:24], first.means())
    y = torch.randn(2, 40, 4, 4)
    (_, likelihoods), (_, expected) = wide.bottleneck(y), second.bottleneck(y[:, 24:36])
    torch.testing.assert_close(likelihoods[:, 24:36], expected)


@pytest.mark.parametrize(
    ("presets", "wide", "message"),
    [
        (["paper-24-1", "paper-24-1"], "paper-40-1", r"40 channels together.* found 24 \+ 24$"),
        (
            ["paper-24-1", "paper-12-2"],
            "paper-40-1",
            r"as many layers as paper-40-1.* paper-12-2$",
        ),
        (["paper-24-1"], "nano", r"networks of the paper .*, found paper-24-1$"),
    ],
)
def test_what_does_not_fit_side_by_side_is_refused(
    presets: list[str], wide: str, message: str
) -> None:
    parts = [(get_preset(name), TrainableCodec(name).state_dict()) for name in presets]
    with pytest.raises(RoiCodecError, match=message):
        side_by_side(parts, get_preset(wide))


def test_a_folded_network_draws_what_the_normalized_one_does() -> None:
    torch.manual_seed(3)
    codec = NormalizedCodec(get_preset("paper-16-1"), **taken(NARROW))
    for _ in range(3):  # statistics that are not those of the start
        codec.decoded(codec.code(torch.rand(2, 3, 64, 64) * 3, False), False)
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if not name.startswith("bottleneck."):
                parameter.add_(0.05 * torch.randn_like(parameter).abs())
    codec.eval()
    whole = TrainableCodec("paper-16-1").eval()
    whole.load_state_dict(codec.folded())

    x = torch.rand(1, 3, 96, 64)
    expected = drawn(codec, x)
    torch.testing.assert_close(drawn(whole, x), expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 1e-3
    torch.testing.assert_close(whole.code(x, False)[:, :8], codec.code(x, False))
    assert not whole.code(x, False)[:, 8:].any()


def taken(widths: dict[str, list[int]]) -> dict[str, list[int]]:
    return {f"{part}_widths": numbers for part, numbers in widths.items()}


@pytest.mark.parametrize("analysis", [[4, 6], [4, 6, 17], [0, 6, 8]])
def test_widths_must_fit_the_preset(analysis: list[int]) -> None:
    with pytest.raises(UsageError, match=r"expected 3 widths of 1 to 16 for paper-16-1, found"):
        NormalizedCodec(get_preset("paper-16-1"), analysis, [8, 4])


def test_widths_are_whole_numbers() -> None:
    values = {"preset": "paper-16-1", "normalized": {"analysis": [4, "six", 8]}}
    with pytest.raises(UsageError, match=r"list of whole numbers as normalized.analysis, found"):
        parse_config(values)


@pytest.mark.parametrize("name", ["paper-16-5", "paper-0-1", "paper-16", "paper--1-1"])
def test_only_papers_sizes_make_a_preset(name: str) -> None:
    with pytest.raises(UsageError, match=rf"paper-N-M; found '{name}'"):
        get_preset(name)
    assert get_preset("paper-16-1").stride == 8


def test_the_map_is_white_in_boxes() -> None:
    boxes = [torch.tensor([[0.0, 0, 4, 8]]), torch.zeros(0, 4)]
    right = torch.zeros(2, 3, 8, 8)
    right[0, :, :, :4] = 1.0
    sure = np.log1p(np.exp(-2.5))  # nats of a pixel that is right
    # A quarter of the pixels lies in a box and counts twice.
    assert losses.map_loss(right, boxes).item() == pytest.approx(sure * (0.75 + 0.5), rel=1e-5)
    wrong = losses.map_loss(1 - right, boxes).item()
    assert wrong == pytest.approx((sure + 2.5) * (0.75 + 0.5), rel=1e-5)
    known = torch.zeros(2, 1, 8, 8)
    known[1] = 1.0
    assert losses.map_loss(right, boxes, known).item() == pytest.approx(sure * 0.5, rel=1e-5)


def test_hidden_layers_learn_what_a_detector_sees() -> None:
    torch.manual_seed(4)
    teacher = Teacher(DETECTOR)
    assert [(seen.stride, seen.early) for seen in teacher.layers] == [
        (4, True), (8, True), (8, False), (16, False),
    ]  # fmt: skip
    x = torch.rand(2, 3, 64, 64)
    taught = teacher(x)
    hidden = [Seen(6, 4, early=True), Seen(5, 4, early=False)]
    readouts = Readouts(hidden, teacher.layers)
    layers = [torch.randn(2, 6, 16, 16), torch.randn(2, 5, 16, 16)]
    with torch.no_grad():
        for readout in readouts:
            readout.weight.zero_()
            readout.bias.zero_()
        # Of variance 1: that is what knowing nothing costs, for each of two layers.
        nothing = readouts(layers, taught)
    assert nothing.item() == pytest.approx(2.0, rel=0.02)
    with torch.no_grad():
        readouts[0].bias[3] = 1.0  # of a mean of 0: its square is added to one channel's error
    channels = teacher.layers[0].channels
    assert readouts(layers, taught).item() == pytest.approx(
        nothing.item() + 1 / channels, rel=1e-3
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs with a person each."""
    root = tmp_path_factory.mktemp("data")
    (root / "images" / "train").mkdir(parents=True)
    boxes = [
        {"tag": "person", "vbox": [10, 10, 60, 80], "hbox": [30, 12, 20, 24], "head_attr": {}}
    ]
    rng = np.random.default_rng(0)
    lines = []
    for index in range(2):
        picture = cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (96, 96))
        assert cv2.imwrite(str(root / "images" / "train" / f"p{index}.jpg"), picture)
        lines.append(json.dumps({"ID": f"p{index}", "gtboxes": boxes}))
    (root / "annotation_train.odgt").write_text("\n".join(lines))
    return root


def test_a_head_map_is_trained_and_set_beside_pictures(data: Path, tmp_path: Path) -> None:
    common = ["train", "--data", str(data), "--threads", "1", "--batch-size", "2", "--steps", "2"]
    common += ["--pictures-every", "0", "--set", "crops.size=64"]
    narrow = ["--config", str(heads_config()), "--preset", "paper-16-1"]
    narrow += [f"--set=normalized.{part}={widths}" for part, widths in NARROW.items()]
    maps, pictures, both = (tmp_path / name for name in ("maps", "pictures", "both"))
    assert main([*common, *narrow, "--out", str(maps), "--feature-detector", DETECTOR]) == 0
    assert main([*common, *narrow, "--out", str(maps), "--resume", "--steps", "3",
                 "--feature-detector", DETECTOR]) == 0  # fmt: skip
    logged = [json.loads(line) for line in (maps / "log.jsonl").read_text().splitlines()]
    assert {"head.mark", "teaching"} <= set(logged[-1])

    paper = ["--config", str(heads_config().with_name("paper-128-2.yaml"))]
    start = [*paper, "--preset", "paper-24-1", "--out", str(pictures)]
    assert main([*common, *start]) == 0
    parts = ["--init-from", str(pictures / "checkpoint.pt"), str(maps / "paper-16-1.safetensors")]
    wide = [*paper, "--preset", "paper-40-1", "--out", str(both), "--learning-rate", "1e-12"]
    assert main([*common, *wide, *parts]) == 0

    model = load_model(both / "paper-40-1.safetensors")
    origins = model.header["training"]["started_from"]["side_by_side"]
    assert [origin["preset"] for origin in origins] == ["paper-24-1", "paper-16-1"]
    widened = [*paper, "--preset", "paper-48-1", "--out", str(tmp_path / "widened")]
    widened += ["--learning-rate", "1e-12", "--init-from", str(both / "checkpoint.pt")]
    assert main([*common, *widened]) == 0
    x = torch.rand(1, 3, 64, 64)
    wider = averaged_codec(read_checkpoint(tmp_path / "widened" / "checkpoint.pt"))
    codecs = [averaged_codec(read_checkpoint(d / "checkpoint.pt")) for d in (both, pictures, maps)]
    sum_of_parts = drawn(codecs[1], x) + drawn(codecs[2], x)
    torch.testing.assert_close(drawn(codecs[0], x), sum_of_parts, rtol=0.02, atol=0.005)
    torch.testing.assert_close(drawn(wider, x), drawn(codecs[0], x), rtol=0.02, atol=0.005)


def test_a_head_map_goes_on_from_one_as_narrow(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["train", "--data", str(data), "--threads", "1", "--batch-size", "2", "--steps", "1"]
    common += ["--pictures-every", "0", "--set", "crops.size=64", "--config", str(heads_config())]
    common += ["--preset", "paper-16-1", "--set=normalized.synthesis=[8, 4]"]
    narrow = [*common, "--set=normalized.analysis=[4, 6, 8]", "--set=normalized.teaching_weight=0"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*narrow, "--out", str(first)]) == 0
    start = ["--init-from", str(first / "checkpoint.pt"), "--learning-rate", "1e-12"]
    assert main([*narrow, "--out", str(second), *start]) == 0
    states = [read_checkpoint(folder / "checkpoint.pt")["average"] for folder in (first, second)]
    torch.testing.assert_close(states[1]["analysis.0.weight"], states[0]["analysis.0.weight"])

    other = [*common, "--set=normalized.analysis=[4, 6, 9]", "--set=normalized.teaching_weight=0"]
    assert main([*other, "--out", str(tmp_path / "third"), *start]) == 1
    expected = "with normalized.analysis = [4, 6, 9], found [4, 6, 8] at"
    assert expected in capsys.readouterr().err


def heads_config() -> Path:
    return Path(__file__).parents[1] / "config" / "training" / "paper-heads.yaml"


def test_teaching_needs_a_detector(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "--config", str(heads_config()), "--data", str(data), "--steps", "1"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    expected = "expected --feature-detector for normalized.teaching_weight = 1, found none"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted_by", "options"),
    [
        ("normalized.teaching_weight", ["--config", str(heads_config())]),
        ("--feature-detector", ["--preset", "paper-128-2", "--feature-weight", "1"]),
    ],
)
def test_a_detector_needs_crops_that_it_takes(
    wanted_by: str,
    options: list[str],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["train", *options, "--data", str(data), "--steps", "1"]
    words += ["--set", "crops.size=80", "--feature-detector", DETECTOR]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    expected = f"expected crops.size to be a multiple of 32 for {wanted_by}, found 80"
    assert expected in capsys.readouterr().err
