# SPDX-License-Identifier: Apache-2.0
"""Analysis and synthesis transforms, by architecture.

    x ──► analysis ──► y ──► round(y − mean) ──► rANS ──► payload
    x̂ ◄── synthesis ◄── ŷ = symbols + mean ◄── rANS ◄── payload

An architecture is a pair of such networks, built from a :class:`~.presets.Preset` by the name in
its ``architecture`` field. Images are float tensors [B, 3, H, W] in [0, 1] with H and W multiples
of the preset's stride; latents are [B, latent_channels, H / stride, W / stride].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from roi_codec_ros.codec.presets import Preset
from roi_codec_ros.common.errors import UsageError

Builder = Callable[..., tuple[nn.Module, nn.Module]]
_ARCHITECTURES: dict[str, Builder] = {}
# What networks start with: steps per unit of an orthonormal coefficient of pixels in [0, 1].
QUANTISER_GAIN = 3.0


def register_architecture(name: str) -> Callable[[Builder], Builder]:
    """Register a builder ``(latent_channels, **options) -> (analysis, synthesis)`` as ``name``."""

    def register(builder: Builder) -> Builder:
        if name in _ARCHITECTURES:
            raise ValueError(f"architecture {name!r} is registered already")
        _ARCHITECTURES[name] = builder
        return builder

    return register


def build_transforms(preset: Preset) -> tuple[nn.Module, nn.Module]:
    """New, randomly initialised ``(analysis, synthesis)`` of a preset."""
    try:
        builder = _ARCHITECTURES[preset.architecture]
    except KeyError:
        raise UsageError(
            f"expected an architecture among {', '.join(_ARCHITECTURES)}; "
            f"found {preset.architecture!r}"
        ) from None
    return builder(preset.latent_channels, **preset.options)


def _set_bias(layer: nn.Conv2d | nn.ConvTranspose2d, value: Tensor | float) -> None:
    assert layer.bias is not None
    with torch.no_grad():
        layer.bias.copy_(torch.as_tensor(value))


# --------------------------------------------------------------------------- the paper's network


class _LowerBound(torch.autograd.Function):
    """max(x, bound) whose gradient still lets x rise when it lies below the bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        passes = (x >= ctx.bound) | (grad < 0)
        return grad * passes, None


class SimplifiedGDN(nn.Module):
    """Simplified generalized divisive normalization of Johnston et al. 2019 (the paper's GDN1).

    ``y_i = x_i / (beta_i + sum_j gamma_ij |x_j|)``, or the product with that sum when ``inverse``.
    ``beta`` and ``gamma`` are kept as square roots with a small pedestal, so that training cannot
    make them negative; the state dict has the layout of compressai's ``GDN1``.
    """

    _PEDESTAL = 2.0**-36

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self._beta_bound = (1e-6 + self._PEDESTAL) ** 0.5
        self._gamma_bound = self._PEDESTAL**0.5
        self.beta = nn.Parameter((torch.ones(channels) + self._PEDESTAL).sqrt())
        self.gamma = nn.Parameter((0.1 * torch.eye(channels) + self._PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        beta = _LowerBound.apply(self.beta, self._beta_bound) ** 2 - self._PEDESTAL
        gamma = _LowerBound.apply(self.gamma, self._gamma_bound) ** 2 - self._PEDESTAL
        norm = functional.conv2d(x.abs(), gamma[:, :, None, None], beta)
        return x * norm if self.inverse else x / norm


@register_architecture("paper")
def build_paper(channels: int, hidden_layers: int) -> tuple[nn.Module, nn.Module]:
    """Fig. 3 of the paper: M + 2 convolutions 5×5, stride 2, onto N channels, GDN1 between."""
    convolutions = hidden_layers + 2
    analysis: list[nn.Module] = []
    synthesis: list[nn.Module] = []
    for index in range(convolutions):
        first, last = index == 0, index == convolutions - 1
        analysis.append(nn.Conv2d(3 if first else channels, channels, 5, stride=2, padding=2))
        synthesis.append(
            nn.ConvTranspose2d(
                channels, 3 if last else channels, 5, stride=2, padding=2, output_padding=1
            )
        )
        if not last:
            analysis.append(SimplifiedGDN(channels))
            synthesis.append(SimplifiedGDN(channels, inverse=True))
    if not analysis[0].weight.is_meta:
        _start_as_transform(analysis, synthesis, channels)
    return nn.Sequential(*analysis), nn.Sequential(*synthesis)


@torch.no_grad()
def _start_as_transform(
    analysis: list[nn.Module], synthesis: list[nn.Module], channels: int
) -> None:
    """Make the paper's networks compute a block transform and its inverse, GDN nearly linear.

    The paper does not say what it starts from. After s convolutions the first channels are the
    lowest frequencies of blocks of 2^s pixels; those to spare see them too, but none
    of what they say is heard.
    """
    convolutions = [layer for layer in analysis if isinstance(layer, nn.Conv2d)]
    mirrored = [layer for layer in synthesis if isinstance(layer, nn.ConvTranspose2d)][::-1]
    basis = torch.eye(3)[:, :, None, None]
    for stage, (layer, mirror) in enumerate(zip(convolutions, mirrored, strict=True), start=1):
        blocks = lowest_frequencies(min(channels, 3 * 4**stage), 2**stage)
        weight = _by_quadrants(blocks, basis)
        gain = QUANTISER_GAIN if layer is convolutions[-1] else 1.0
        used, seen = weight.shape[:2]
        layer.weight[:used] = 0.0
        layer.weight[:used, :seen, 2:4, 2:4] = gain * weight
        mirror.weight[:, :seen] = 0.0
        mirror.weight[used:] = 0.0
        mirror.weight[:used, :seen, 2:4, 2:4] = weight / gain
        _set_bias(layer, 0.0)
        _set_bias(mirror, 0.0)
        basis = blocks
    _set_bias(convolutions[0], -0.5 * convolutions[0].weight.sum(dim=(1, 2, 3)))
    _set_bias(mirrored[0], 0.5)
    for module in (*analysis, *synthesis):
        if isinstance(module, SimplifiedGDN):
            module.gamma.mul_(0.1)  # a square root


# ------------------------------------------------------------------------------- our own networks


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), 3×3, starting as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        _set_bias(self.second, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.relu(self.first(x)))


def _by_quadrants(blocks: Tensor, basis: Tensor) -> Tensor:
    """The 2 × 2 kernel that makes inner products with ``blocks`` of those with a smaller basis.

    blocks: [C, 3, 2 n, 2 n]; basis: orthonormal, [S, 3, n, n]. Returns [C, S, 2, 2].
    """
    half = basis.shape[-1]
    quadrants = blocks.unfold(2, half, half).unfold(3, half, half)  # [C, 3, 2, 2, n, n]
    return torch.einsum("cdijyx,sdyx->csij", quadrants, basis)


def lowest_frequencies(count: int, size: int) -> Tensor:
    """Orthonormal colour DCT basis of blocks: float32 [count, 3, size, size], lowest first.

    Of every sixteen ten are brightness and three each are two opponent colours, so that a larger
    basis begins with a smaller one; used to start networks as a transform that already codes
    images.
    """
    positions = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    waves = torch.cos(torch.pi * torch.arange(size, dtype=torch.float64)[:, None] * positions)
    waves /= waves.norm(dim=1, keepdim=True)
    order = sorted(
        ((u, v) for u in range(size) for v in range(size)),
        key=lambda f: (f[0] ** 2 + f[1] ** 2, f),
    )
    colours = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colours /= colours.norm(dim=1, keepdim=True)
    turns = (0, 1, 2, 0, 0, 0, 1, 2, 0, 0, 0, 1, 2, 0, 0, 0)
    taken, basis = [0, 0, 0], []
    for index in range(count):
        colour = turns[index % len(turns)]
        if taken[colour] == len(order):
            colour = taken.index(min(taken))
        u, v = order[taken[colour]]
        taken[colour] += 1
        basis.append(colours[colour][:, None, None] * waves[u][:, None] * waves[v])
    return torch.stack(basis).float()


class ShuffleAnalysis(nn.Module):
    """Pixels are shuffled down by 8 first, so that every convolution runs on a small map.

        x ─► unshuffle 8 ─► stem ─┬─► down ─► body ─┬─────────────► + ─┬─► head ────► + ─► y
                                  │                 └─► context ──► ┘  └─► gate ─► × ─► ┘
                                  └──────────────── skip ────────────────────────►─┘

    The linear way through ``stem`` and ``skip`` starts as a 16×16 block DCT, the rest starts
    silent and learns what to change, above all what to leave out. ``context`` at stride 32 widens
    the receptive field at little cost, the more the more residual blocks it has: what is to be
    hidden (a head) has to be recognised before it is coded. ``gate``, 0 to 2 for each latent,
    starts at 1: to leave something out it has to be recognised, without it the rest would have to
    compute the very details that are to be taken away.
    """

    def __init__(
        self,
        latent_channels: int,
        stem_width: int,
        width: int,
        context_blocks: int = 0,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.shuffle = nn.PixelUnshuffle(8)
        self.stem = nn.Conv2d(3 * 8 * 8, stem_width, 1)
        self.skip = nn.Conv2d(stem_width, latent_channels, 2, stride=2)
        self.down = nn.Conv2d(stem_width, width, 3, stride=2, padding=1)
        self.body = nn.Conv2d(width, width, 3, padding=1)
        self.context_down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.context_body = nn.Conv2d(width, width, 3, padding=1)
        self.context_blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(context_blocks)))
        self.head = nn.Conv2d(width, latent_channels, 1)
        self.gate = nn.Conv2d(width, latent_channels, 1) if gated else None

    def linear_parameters(self) -> list[nn.Parameter]:
        """What starts as a transform of many small weights, and wants smaller steps."""
        return list(self.stem.parameters())

    def start_as(self, blocks: Tensor, gain: float) -> Tensor:
        """Make ``stem`` and ``skip`` compute ``gain`` times the inner products with ``blocks``.

        ``blocks``: [latent_channels, 3, 16, 16]. Returns the blocks that the narrow stem really
        lets through, which span what the latent then holds; [latent_channels, 768].
        """
        stem = lowest_frequencies(self.stem.out_channels, 8)
        skip = _by_quadrants(blocks, stem)
        for layer in (self.down, self.body, self.context_down, self.context_body):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        silent = [self.head] if self.gate is None else [self.head, self.gate]
        for layer in silent:
            nn.init.zeros_(layer.weight)
            _set_bias(layer, 0.0)
        with torch.no_grad():
            self.stem.weight.copy_(stem.flatten(1)[:, :, None, None])
            self.skip.weight.copy_(gain * skip)
            # Mid-grey becomes 0, so that every latent is centred.
            _set_bias(self.stem, -0.5 * self.stem.weight.sum(dim=(1, 2, 3)))
            _set_bias(self.skip, 0.0)
        seen = torch.einsum("csij,sdyx->cdiyjx", skip, stem)
        return seen.reshape(len(blocks), -1)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(self.shuffle(x))
        x = functional.relu(self.down(stem))
        x = functional.relu(self.body(x))
        context = functional.relu(self.context_down(x))
        context = self.context_blocks(functional.relu(self.context_body(context)))
        context = functional.interpolate(context, scale_factor=2.0, mode="nearest")
        x = x + context[..., : x.shape[-2], : x.shape[-1]]
        if self.gate is None:
            return self.head(x) + self.skip(stem)
        return self.head(x) + 2.0 * self.gate(x).sigmoid() * self.skip(stem)


class ShuffleSynthesis(nn.Module):
    """The big half: residual blocks at stride 16 and 8 refine a linear base image.

    y ─┬─► stem ─► blocks (stride 16) ─► up ─► details (stride 8) ─► head ─► shuffle 8 ─► + ─► x̂
       └────────────────────── base ─► shuffle 16 ──────────────────────────────────────►┘
    """

    def __init__(
        self,
        latent_channels: int,
        decoder_width: int,
        decoder_blocks: int,
        detail_width: int,
        detail_blocks: int,
    ) -> None:
        super().__init__()
        self.base = nn.Conv2d(latent_channels, 3 * 16 * 16, 1)
        self.stem = nn.Conv2d(latent_channels, decoder_width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(decoder_width) for _ in range(decoder_blocks)))
        self.up = nn.Conv2d(decoder_width, 4 * detail_width, 3, padding=1)
        self.details = nn.Sequential(*(ResidualBlock(detail_width) for _ in range(detail_blocks)))
        self.head = nn.Conv2d(detail_width, 3 * 8 * 8, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        _set_bias(self.head, 0.0)

    def linear_parameters(self) -> list[nn.Parameter]:
        """What starts as a transform of many small weights, and wants smaller steps."""
        return list(self.base.parameters())

    def start_as(self, blocks: Tensor, gain: float) -> None:
        """Make ``base`` the least-squares inverse of an analysis by ``blocks``, [C, 768]."""
        with torch.no_grad():
            self.base.weight.copy_(torch.linalg.pinv(gain * blocks)[:, :, None, None])
            _set_bias(self.base, 0.5)

    def forward(self, y: Tensor) -> Tensor:
        base = functional.pixel_shuffle(self.base(y), 16)
        y = self.blocks(self.stem(y))
        y = self.details(functional.pixel_shuffle(self.up(y), 2))
        return base + functional.pixel_shuffle(self.head(y), 8)


@register_architecture("shuffle")
def build_shuffle(
    latent_channels: int,
    stem_width: int,
    width: int,
    decoder_width: int,
    decoder_blocks: int,
    detail_width: int,
    detail_blocks: int,
    context_blocks: int = 0,
    gated: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """Our presets: a cheap encoder on shuffled pixels, a decoder many times its size."""
    analysis = ShuffleAnalysis(
        latent_channels, stem_width, width, context_blocks=context_blocks, gated=bool(gated)
    )
    synthesis = ShuffleSynthesis(
        latent_channels, decoder_width, decoder_blocks, detail_width, detail_blocks
    )
    if not analysis.stem.weight.is_meta:  # which a model file's weights will take the place of
        blocks = lowest_frequencies(latent_channels, 16)
        synthesis.start_as(analysis.start_as(blocks, QUANTISER_GAIN), QUANTISER_GAIN)
    return analysis, synthesis
