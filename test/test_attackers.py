# SPDX-License-Identifier: Apache-2.0
"""Trained attackers: that they learn, repeat, start where they say, and restore payloads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from roi_codec_ros.codec.block_transform import STEPS  # noqa: E402
from roi_codec_ros.codec.decoding import Decoder  # noqa: E402
from roi_codec_ros.codec.encoding import Encoder  # noqa: E402
from roi_codec_ros.codec.entropy import EntropyTables  # noqa: E402
from roi_codec_ros.codec.ladder import ladder_steps  # noqa: E402
from roi_codec_ros.codec.model_file import Model  # noqa: E402
from roi_codec_ros.codec.models import block_tables_laplace, untrained_model  # noqa: E402
from roi_codec_ros.codec.networks import build_transforms  # noqa: E402
from roi_codec_ros.codec.policy import POLICY, StepPolicy  # noqa: E402
from roi_codec_ros.codec.presets import BLOCKS, Preset  # noqa: E402
from roi_codec_ros.common.errors import BitstreamError, RoiCodecError, UsageError  # noqa: E402
from roi_codec_ros.lab.datasets.annotations import Annotation  # noqa: E402
from roi_codec_ros.lab.privacy.attackers import (  # noqa: E402
    ATTACKERS,
    AttackConfig,
    AttackStep,
    AttackTrainer,
    FrozenCodec,
)
from roi_codec_ros.lab.training.data import Batch, CropSampler, CropSettings  # noqa: E402

SIDE = 96
CROPS = CropSettings(size=64, min_zoom=1.0, max_zoom=1.0, jitter=0.0)


SIZES = {"coarse": 16, "middle": 8, "fine": 8}
TINY = {
    "paper": Preset("tiny", "paper", 16, 16, options={"hidden_layers": 2}),
    BLOCKS: Preset(
        "tiny", BLOCKS, 16, 16,
        options={f"{name}_width": width for name, width in SIZES.items()}
        | {f"{name}_blocks": 1 for name in SIZES},
    ),
}  # fmt: skip


def negating_model(preset: Preset) -> Model:
    """Decodes the negative of what it was given, which an attacker should find out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        analysis, synthesis = build_transforms(preset)
    blocks = preset.architecture == BLOCKS
    with torch.no_grad():
        (synthesis.base if blocks else synthesis[-1]).weight.neg_()
    parts = {"synthesis": synthesis} if blocks else {"analysis": analysis, "synthesis": synthesis}
    tensors = {
        f"{part}.{key}": value.detach().numpy()
        for part, network in parts.items()
        for key, value in network.state_dict().items()
    }
    tensors["latent_mean"] = np.zeros(preset.latent_channels, np.float32)
    if not blocks:
        tables = EntropyTables.laplace(preset.latent_channels)
        return Model.build("negating", preset, tensors, tables, {"trained": False})
    tensors[STEPS] = ladder_steps(preset.latent_channels, preset.stride)
    tables = block_tables_laplace(preset.latent_channels)
    fine = {POLICY: asdict(StepPolicy(levels=(2.0, 2.0, 2.0, 2.0)))}
    return Model.build("negating", preset, tensors, tables, fine)


@pytest.fixture(scope="module", params=list(TINY))
def codec(request: pytest.FixtureRequest) -> FrozenCodec:
    return FrozenCodec(negating_model(TINY[request.param]))


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> CropSampler:
    folder = tmp_path_factory.mktemp("photographs")
    return CropSampler([photograph(folder, seed) for seed in range(4)], CROPS)


def picture(seed: int) -> np.ndarray:
    """Smooth colours with a bright disc for a head."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    down, across = np.mgrid[:SIDE, :SIDE]
    pixels[(down - 40) ** 2 + (across - 40) ** 2 < 144] = 240
    return pixels


def photograph(folder: Path, seed: int) -> Annotation:
    path = folder / f"{seed}.png"
    Image.fromarray(picture(seed)).save(path)
    none = np.zeros((0, 4), np.float32)
    heads = np.array([[28, 28, 52, 52]], np.float32)
    return Annotation(path, str(seed), SIDE, SIDE, none, heads, none)


def held_out() -> Batch:
    images = np.stack([picture(seed)[:64, :64] for seed in (100, 101)]).transpose(0, 3, 1, 2)
    heads = [torch.tensor([[28.0, 28.0, 52.0, 52.0]])] * 2
    none = [torch.zeros(0, 4)] * 2
    return Batch(torch.from_numpy(images.copy()), none, heads, none)


def config(steps: int, seed: int = 1) -> AttackConfig:
    return AttackConfig(steps=steps, batch_size=4, width=16, crops=CROPS, seed=seed)


@pytest.mark.parametrize("name", ATTACKERS)
def test_an_attacker_learns_to_undo_a_negative(
    codec: FrozenCodec, sampler: CropSampler, name: str
) -> None:
    trainer = AttackTrainer(name, codec, config(steps=40))
    with torch.no_grad():
        before = float(trainer.loss(held_out()))
    seen: list[AttackStep] = []
    attacker = trainer.run(sampler, seen.append)
    with torch.no_grad():
        after = float(trainer.loss(held_out()))
    assert before > 0.2
    assert after < 0.4 * before
    assert [step.step for step in seen] == list(range(1, 41))
    assert (attacker.name, attacker.steps, attacker.pairs) == (name, 40, 160)


def test_the_same_seed_gives_the_same_attacker(codec: FrozenCodec, sampler: CropSampler) -> None:
    data = Encoder(codec.model).encode(picture(7)).data
    one, same, other = (
        AttackTrainer("latents", codec, config(steps=3, seed=seed)).run(sampler).restore(data)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize("name", ATTACKERS)
def test_before_training_an_attacker_gives_what_the_decoder_gives(
    codec: FrozenCodec, name: str
) -> None:
    odd = picture(7)[:90, :75]
    data = Encoder(codec.model).encode(odd).data
    trainer = AttackTrainer(name, codec, config(steps=1))
    attacker = trainer.attacker()
    restored = attacker.restore(data)
    assert restored.shape == odd.shape
    decoded = Decoder(codec.model).decode(data).image
    assert np.abs(restored.astype(int) - decoded).max() <= 1


def test_a_time_budget_ends_the_training(codec: FrozenCodec, sampler: CropSampler) -> None:
    short = AttackConfig(minutes=0.2 / 60, batch_size=2, width=8, crops=CROPS)
    attacker = AttackTrainer("decoded", codec, short).run(sampler)
    assert attacker.steps >= 1
    assert 0.2 <= attacker.elapsed_s < 20


def test_the_codec_itself_is_never_trained(codec: FrozenCodec, sampler: CropSampler) -> None:
    before = {key: value.clone() for key, value in codec.synthesis.state_dict().items()}
    for name in ATTACKERS:
        AttackTrainer(name, codec, config(steps=2)).run(sampler)
    for key, value in codec.synthesis.state_dict().items():
        assert torch.equal(value, before[key])


def test_wrong_use_is_said(codec: FrozenCodec) -> None:
    with pytest.raises(UsageError, match="expected an attacker of latents, decoded, found 'x'"):
        AttackTrainer("x", codec, config(steps=1))
    with pytest.raises(RoiCodecError, match="found -1 minutes"):
        AttackConfig(minutes=-1)
    stranger = Encoder(untrained_model("nano")).encode(picture(7)).data
    attacker = AttackTrainer("decoded", codec, config(steps=1)).attacker()
    with pytest.raises(BitstreamError, match="expected a payload of model"):
        attacker.restore(stranger)
