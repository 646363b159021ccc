# SPDX-License-Identifier: Apache-2.0
"""One of the paper's networks with batch normalization, which helps it to learn to recognise.

Its layers may be narrower than the preset's. Afterwards it is folded: the normalization into the
convolutions before it, the narrow layers into the preset's; what is left is the paper's network.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from roi_codec_ros.codec.networks import SimplifiedGDN
from roi_codec_ros.codec.presets import PAPER, Preset, get_preset
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.training.teaching import Readouts, Seen
from roi_codec_ros.lab.training.trainable import TrainableCodec

_LATENT_SPREAD = 1.5  # standard deviation of each latent channel at first, in quantiser steps
_FIRST_LAYER = 3  # modules of the synthesis: convolution, batch and divisive normalization
_FOLLOWS = 0.02  # how fast the running statistics follow a batch's


class NormalizedCodec(TrainableCodec):
    """A `TrainableCodec` of fewer channels, normalized over batches, that draws in grey."""

    def __init__(
        self,
        preset: Preset,
        analysis_widths: Sequence[int],
        synthesis_widths: Sequence[int],
        taught: Sequence[Seen] = (),
    ) -> None:
        """analysis_widths: channels of each convolution of the analysis, the latent's last.
        synthesis_widths: of each hidden layer of the synthesis. taught: a teacher's layers, which
        latent and first hidden layer of the synthesis shall foretell.

        Raises UsageError where widths are not as many as the preset's layers, or too large.
        """
        if preset.architecture != PAPER:
            raise UsageError(f"expected one of the paper's presets, found {preset.name}")
        layers = int(preset.options["hidden_layers"]) + 2
        for widths, count in ((analysis_widths, layers), (synthesis_widths, layers - 1)):
            if len(widths) != count or not all(0 < n <= preset.latent_channels for n in widths):
                raise UsageError(
                    f"expected {count} widths of 1 to {preset.latent_channels} for {preset.name}, "
                    f"found {list(widths)}"
                )
        latents = analysis_widths[-1]
        super().__init__(f"paper-{latents}-{layers - 2}")  # for its entropy model
        self._preset = preset
        self.analysis = _stack([3, *analysis_widths], inverse=False)
        self.synthesis = _stack([latents, *synthesis_widths, 1], inverse=True)
        of_latent = self.analysis[-1]
        assert isinstance(of_latent, nn.BatchNorm2d)
        nn.init.constant_(of_latent.weight, _LATENT_SPREAD)
        hidden = [
            *(Seen(n, 2 << i, early=True) for i, n in enumerate(analysis_widths[:-1])),
            Seen(latents, preset.stride, early=False),
            Seen(synthesis_widths[0], preset.stride // 2, early=False),
        ]
        self.readouts = Readouts(hidden, taught) if taught else None
        self._analysed: list[Tensor] = []
        self._first: Tensor | None = None

    def teaching_loss(self, y: Tensor, taught: Sequence[Tensor]) -> Tensor:
        """How badly a latent, the hidden layers that `code` made it of, and the first one that
        `decoded` made of it foretell what a teacher sees, `Readouts`.
        """
        assert self.readouts is not None and self._first is not None
        return torch.as_tensor(self.readouts([*self._analysed, y, self._first], taught))

    def code(self, x: Tensor, reduced_precision: bool) -> Tensor:
        """As of `TrainableCodec`."""
        self._analysed = []
        with torch.autocast(x.device.type, torch.bfloat16, enabled=reduced_precision):
            for layer in _layers(self.analysis):
                x = layer(x)
                if isinstance(layer, SimplifiedGDN):
                    self._analysed.append(x)
        return x.float()

    def transform_parameters(self) -> list[nn.Parameter]:
        """Those of both networks, and of what is read out of them."""
        readouts = [] if self.readouts is None else list(self.readouts.parameters())
        return [*super().transform_parameters(), *readouts]

    def decoded(self, y_hat: Tensor, reduced_precision: bool) -> Tensor:
        """The drawing, float32 [B, 3, H, W], not clipped to [0, 1]; all colours are the same."""
        with torch.autocast(y_hat.device.type, torch.bfloat16, enabled=reduced_precision):
            for index, layer in enumerate(_layers(self.synthesis), start=1):
                y_hat = layer(y_hat)
                if index == _FIRST_LAYER:
                    self._first = y_hat
        return y_hat.float().expand(-1, 3, -1, -1)

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """The state of a `TrainableCodec` of the preset that computes the same."""
        whole = TrainableCodec(self._preset.name)
        for part in ("analysis", "synthesis"):
            layers = _layers(getattr(self, part))
            for target in _layers(getattr(whole, part)):
                layer = layers.pop(0)
                if isinstance(target, SimplifiedGDN):
                    assert isinstance(layer, SimplifiedGDN)
                    _put_norm(layer, target)
                    continue
                assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
                assert isinstance(target, nn.Conv2d | nn.ConvTranspose2d)
                norm = layers.pop(0) if layers else None
                assert isinstance(norm, nn.BatchNorm2d | None)
                _put_convolution(layer, norm, target)
        state = whole.state_dict()
        for key, value in self.state_dict().items():
            if key.startswith("bottleneck.") and value.shape == state[key].shape:
                state[key] = value
            elif key.startswith("bottleneck."):
                state[key][: len(value)] = value
        return state


def codec_to_train(
    preset_name: str,
    analysis_widths: Sequence[int] = (),
    synthesis_widths: Sequence[int] = (),
    taught: Sequence[Seen] = (),
) -> TrainableCodec:
    """A preset's network, or, where widths are given, the narrower one of `NormalizedCodec`."""
    if not analysis_widths:
        return TrainableCodec(preset_name)
    return NormalizedCodec(get_preset(preset_name), analysis_widths, synthesis_widths, taught)


def _layers(network: nn.Module) -> list[nn.Module]:
    return list(network.children())


def _stack(widths: Sequence[int], inverse: bool) -> nn.Sequential:
    """Convolutions from each width to the next, batch-normalized, and a norm between two; of a
    synthesis the last is not normalized.
    """
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(itertools.pairwise(widths)):
        last = index == len(widths) - 2
        layer = (
            nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1)
            if inverse
            else nn.Conv2d(before, after, 5, stride=2, padding=2)
        )
        seen = before * (25 / 4 if inverse else 25)  # values that one output depends on
        nn.init.normal_(layer.weight, std=seen**-0.5)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
        layers.append(layer)
        if not (inverse and last):
            layers.append(nn.BatchNorm2d(after, momentum=_FOLLOWS))
        if not last:
            norm = SimplifiedGDN(after, inverse)
            _bend(norm)
            layers.append(norm)
    return nn.Sequential(*layers)


@torch.no_grad()
def _bend(norm: SimplifiedGDN) -> None:
    """Start the analysis' normalizations far from linear, the synthesis' close to it."""
    share = 0.02 if norm.inverse else 0.7
    size = len(norm.beta)
    norm.gamma.copy_((share * (torch.eye(size) + 0.3 / size)).sqrt())
    if not norm.inverse:
        norm.beta.fill_(0.5**0.5)


def _put_norm(norm: SimplifiedGDN, whole: SimplifiedGDN) -> None:
    used = len(norm.beta)
    whole.beta[:used] = norm.beta
    whole.gamma[:] = torch.diag(whole.gamma.diagonal())
    whole.gamma[:used, :used] = norm.gamma


def _put_convolution(
    layer: nn.Conv2d | nn.ConvTranspose2d,
    norm: nn.BatchNorm2d | None,
    whole: nn.Conv2d | nn.ConvTranspose2d,
) -> None:
    outwards = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    weight, bias = layer.weight, layer.bias
    assert bias is not None and whole.bias is not None
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = weight * scale.reshape([-1 if d == outwards else 1 for d in range(4)])
        bias = (bias - norm.running_mean) * scale + norm.bias
    if whole.weight.shape[outwards] == 3:  # grey
        weight, bias = weight.expand(-1, 3, -1, -1), bias.expand(3)
    whole.weight.zero_()
    whole.bias.zero_()
    whole.weight[tuple(slice(n) for n in weight.shape)] = weight
    whole.bias[: len(bias)] = bias
