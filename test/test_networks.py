# SPDX-License-Identifier: Apache-2.0
"""The transforms: the paper's sizes, our simplified GDN beside compressai's, odd images."""

from __future__ import annotations

import pytest
import torch

from roi_codec_ros.codec import PRESETS, UsageError, get_preset
from roi_codec_ros.codec.networks import SimplifiedGDN, build_transforms, lowest_frequencies
from roi_codec_ros.codec.presets import BLOCKS

GDN1 = pytest.importorskip("compressai.layers").GDN1


@pytest.mark.parametrize("inverse", [False, True])
def test_simplified_gdn_equals_compressais(inverse: bool) -> None:
    torch.manual_seed(0)
    theirs = GDN1(12, inverse=inverse)
    with torch.no_grad():
        theirs.beta.add_(torch.rand(12))
        theirs.gamma.add_(torch.randn(12, 12) * 0.05)  # some of it below the lower bound
    ours = SimplifiedGDN(12, inverse=inverse)
    ours.load_state_dict(
        {name: theirs.state_dict()[name] for name in ("beta", "gamma")}, strict=True
    )
    x = torch.randn(2, 12, 5, 7)

    for module in (ours, theirs):
        module.zero_grad()
        module(x).square().sum().backward()

    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.beta.grad, theirs.beta.grad)
    torch.testing.assert_close(ours.gamma.grad, theirs.gamma.grad)


@pytest.mark.parametrize(
    ("name", "width", "convolutions"),
    [("paper-256-2", 256, 4), ("paper-256-1", 256, 3), ("paper-128-2", 128, 4)],
)
def test_paper_presets_are_the_papers(name: str, width: int, convolutions: int) -> None:
    analysis, synthesis = build_transforms(get_preset(name))

    layers = [m for m in analysis if isinstance(m, torch.nn.Conv2d)]
    mirrored = [m for m in synthesis if isinstance(m, torch.nn.ConvTranspose2d)]
    assert len(layers) == len(mirrored) == convolutions
    assert {m.kernel_size for m in (*layers, *mirrored)} == {(5, 5)}
    assert {m.stride for m in (*layers, *mirrored)} == {(2, 2)}
    assert {m.out_channels for m in layers} == {width}
    assert sum(isinstance(m, SimplifiedGDN) for m in analysis) == convolutions - 1
    assert get_preset(name).stride == 2**convolutions


def told(preset: str, y: torch.Tensor) -> list[torch.Tensor]:
    """What a synthesis of blocks is told beside latents: all at the finest level, none hidden."""
    plane = torch.zeros_like(y[:, :1])
    return [plane, plane] if get_preset(preset).architecture == BLOCKS else []


@pytest.mark.parametrize("name", PRESETS)
def test_latent_and_image_have_the_presets_sizes(name: str) -> None:
    preset = get_preset(name)
    analysis, synthesis = build_transforms(preset)
    height, width = 3 * preset.stride, 5 * preset.stride
    with torch.inference_mode():
        y = analysis(torch.rand(2, 3, height, width))
        x = synthesis(y, *told(name, y))
    assert y.shape == (2, preset.latent_channels, 3, 5)
    assert x.shape == (2, 3, height, width)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_start_as_a_transform_that_codes_images(preset: str) -> None:
    torch.manual_seed(0)
    analysis, synthesis = build_transforms(get_preset(preset))
    ramp = torch.linspace(0.2, 0.8, 64)
    smooth = torch.stack(
        [ramp.expand(64, 64), ramp[:, None].expand(64, 64), 1 - ramp.expand(64, 64)]
    )
    with torch.inference_mode():
        y = analysis(smooth[None])
        restored = synthesis(y, *told(preset, y))[0]
    assert (restored - smooth).abs().max() < 0.02


def test_lowest_frequencies_are_orthonormal() -> None:
    basis = lowest_frequencies(48, 8).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(48), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("small", "large", "size"), [(24, 48, 8), (48, 96, 8), (64, 96, 16)])
def test_a_larger_basis_begins_with_a_smaller_one(small: int, large: int, size: int) -> None:
    assert torch.equal(lowest_frequencies(large, size)[:small], lowest_frequencies(small, size))


def test_unknown_preset_is_one_clear_error() -> None:
    with pytest.raises(UsageError, match=r"expected a preset among fast, .*; found 'faster'"):
        get_preset("faster")
