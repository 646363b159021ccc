# SPDX-License-Identifier: Apache-2.0
"""A larger preset that starts from a smaller one's weights."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("compressai")

from roi_codec_ros.codec import PRESETS
from roi_codec_ros.lab.training.growth import can_grow, grown
from roi_codec_ros.lab.training.trainable import TrainableCodec


def trained(preset: str) -> TrainableCodec:
    """A codec in which nothing is at its start any more."""
    torch.manual_seed(5)
    codec = TrainableCodec(preset)
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return codec.eval()


@pytest.mark.parametrize(("small", "large"), [("fast", "quality"), ("nano", "fast")])
def test_latents_and_picture_are_those_of_the_smaller_network(small: str, large: str) -> None:
    old, new = trained(small), TrainableCodec(large).eval()
    new.load_state_dict(grown(old.state_dict(), new.state_dict()))
    x = torch.rand(1, 3, 96, 128)
    channels = PRESETS[small].latent_channels

    with torch.inference_mode():
        y, y_old = new.analysis(x), old.analysis(x)
        torch.testing.assert_close(y[:, :channels], y_old, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(new.synthesis(y), old.synthesis(y_old))
        bottlenecks = (c.bottleneck(z)[1] for c, z in ((new, y), (old, y_old)))
        likelihoods, likelihoods_old = bottlenecks
        torch.testing.assert_close(likelihoods[:, :channels], likelihoods_old)


def test_added_latents_are_gated_as_the_old_ones_are_on_average() -> None:
    old, new = trained("nano"), TrainableCodec("fast")
    new.load_state_dict(grown(old.state_dict(), new.state_dict()))
    gate, gate_old = new.analysis.gate, old.analysis.gate
    width, channels = gate_old.weight.shape[1], len(gate_old.weight)
    for row in gate.weight[channels:, :width]:
        torch.testing.assert_close(row, gate_old.weight.mean(dim=0))


def test_added_latents_cost_no_more_bits_than_the_last_of_the_old() -> None:
    old, new = trained("nano"), TrainableCodec("fast")
    new.load_state_dict(grown(old.state_dict(), new.state_dict()))
    channels = PRESETS["nano"].latent_channels
    y = torch.randn(1, 1, 4, 4)
    with torch.inference_mode():
        old_likelihoods = old.bottleneck(y.expand(1, channels, 4, 4))[1]
        likelihoods = new.eval().bottleneck(y.expand(1, PRESETS["fast"].latent_channels, 4, 4))[1]
    for channel in range(channels, likelihoods.shape[1]):
        torch.testing.assert_close(likelihoods[:, channel], old_likelihoods[:, -1])


def test_only_what_fits_grows() -> None:
    assert can_grow(PRESETS["nano"], PRESETS["fast"])
    assert can_grow(PRESETS["fast"], PRESETS["quality"])
    assert not can_grow(PRESETS["quality"], PRESETS["fast"])
    assert not can_grow(PRESETS["paper-128-2"], PRESETS["paper-256-2"])
