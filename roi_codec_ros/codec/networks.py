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

from roi_codec_ros.codec.block_transform import MEANS, block_basis
from roi_codec_ros.codec.ladder import LEVELS, SMOOTH_CHANNELS, SMOOTH_FROM, SMOOTH_WHOLLY
from roi_codec_ros.codec.presets import PAPER, Preset
from roi_codec_ros.common.errors import UsageError

Builder = Callable[..., tuple[nn.Module, nn.Module]]
_ARCHITECTURES: dict[str, Builder] = {}
# At initialisation: steps per unit of an orthonormal coefficient of pixels in [0, 1].
QUANTISER_GAIN = 3.0
# Besides its coefficients, a synthesis is told the level of a block and whether it is hidden.
TOLD_OF_BLOCKS = 2


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
    """max(x, bound) with a gradient that still lets x rise while it is below the bound."""

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
        """x [B, C, H, W] divided by its norm, or multiplied where `inverse`."""
        beta = _LowerBound.apply(self.beta, self._beta_bound) ** 2 - self._PEDESTAL
        gamma = _LowerBound.apply(self.gamma, self._gamma_bound) ** 2 - self._PEDESTAL
        norm = functional.conv2d(x.abs(), gamma[:, :, None, None], beta)
        return x * norm if self.inverse else x / norm


@register_architecture(PAPER)
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

    The paper does not state its initialisation. After s convolutions the first channels are the
    lowest frequencies of blocks of 2^s pixels; spare channels receive them too, but have output
    weights of zero.
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
            module.gamma.mul_(0.1)  # stored as a square root


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
        """x [B, C, H, W] and what the block adds to it."""
        return x + self.second(functional.relu(self.first(x)))


def _by_quadrants(blocks: Tensor, basis: Tensor) -> Tensor:
    """The 2 × 2 kernel that turns inner products with a smaller basis into those with ``blocks``.

    blocks: [C, 3, 2 n, 2 n]; basis: orthonormal, [S, 3, n, n]. Returns [C, S, 2, 2].
    """
    half = basis.shape[-1]
    quadrants = blocks.unfold(2, half, half).unfold(3, half, half)  # [C, 3, 2, 2, n, n]
    return torch.einsum("cdijyx,sdyx->csij", quadrants, basis)


def lowest_frequencies(count: int, size: int) -> Tensor:
    """Orthonormal colour DCT basis of blocks: float32 [count, 3, size, size], lowest first.

    In the order of `ladder.frequencies`; used to initialise networks as a working image transform,
    and as the analysis of block-based models.
    """
    basis = torch.from_numpy(block_basis(count, size))
    return basis.reshape(count, size, size, 3).permute(0, 3, 1, 2).contiguous()


# ------------------------------------------------------------------------------- blocks with steps


class BlockAnalysis(nn.Module):
    """Inner products of blocks of 16×16 pixels, less mid-grey, with a fixed orthonormal basis."""

    def __init__(self, channels: int, size: int = 16) -> None:
        super().__init__()
        self.basis = nn.Conv2d(3, channels, size, stride=size)
        if not self.basis.weight.is_meta:
            with torch.no_grad():
                self.basis.weight.copy_(lowest_frequencies(channels, size))
            _set_bias(self.basis, -0.5 * self.basis.weight.detach().sum(dim=(1, 2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients [B, C, h, w] of images [B, 3, 16 h, 16 w]."""
        return torch.as_tensor(self.basis(x))


def smooth_share(levels: Tensor) -> Tensor:
    """Share, 0 to 1, to which a block of a level (float) is interpolated from its neighbours."""
    return ((levels - SMOOTH_FROM) / (SMOOTH_WHOLLY - SMOOTH_FROM)).clamp(0.0, 1.0)


def inverse_of_blocks(channels: int) -> Tensor:
    """Weights [3 · 16 · 16, channels, 1, 1] that turn coefficients of blocks into their pixels."""
    return lowest_frequencies(channels, 16).flatten(1).T[:, :, None, None].contiguous()


def _spline_through_means() -> Tensor:
    """Weights [3 · 16 · 16, SMOOTH_CHANNELS, 3, 3]: quadratic B-splines over means of blocks."""
    t = (torch.arange(16) + 0.5) / 16 - 0.5
    waves = torch.stack([(0.5 - t) ** 2 / 2, 0.75 - t**2, (0.5 + t) ** 2 / 2])
    basis = lowest_frequencies(SMOOTH_CHANNELS, 16)[:MEANS]
    weight = torch.zeros(3, 16, 16, SMOOTH_CHANNELS, 3, 3)
    weight[:, :, :, :MEANS] = torch.einsum("kcyx,iy,jx->cyxkij", basis, waves, waves)
    return weight.reshape(3 * 16 * 16, SMOOTH_CHANNELS, 3, 3)


class BlockSynthesis(nn.Module):
    """From dequantised blocks, with the level of each and whether it is hidden, to pixels.

    y ─┬─► stem ─► blocks (stride 16) ─► blocks (stride 8) ─► blocks (stride 4) ─► head ─► + ─► x̂
       └── inverse transform of fine blocks, interpolation of coarse and hidden ones ───►─┘

    The base is fixed: the inverse of the analysis for fine blocks, a quadratic spline through the
        means of coarse ones. The network learns a correction, interpolated from every fourth
        pixel, that sharpens what a person detector uses and draws the placeholder of hidden heads.
        Nothing is added to coarse blocks.
    """

    def __init__(
        self,
        latent_channels: int,
        coarse_width: int,
        coarse_blocks: int,
        middle_width: int,
        middle_blocks: int,
        fine_width: int,
        fine_blocks: int,
    ) -> None:
        super().__init__()
        self.base = nn.Conv2d(latent_channels, 3 * 16 * 16, 1)
        self.smooth = nn.Conv2d(SMOOTH_CHANNELS, 3 * 16 * 16, 3, bias=False)
        for fixed in (self.base, self.smooth):
            fixed.requires_grad_(False)
        self.stem = nn.Conv2d(latent_channels + TOLD_OF_BLOCKS, coarse_width, 3, padding=1)
        self.coarse = nn.Sequential(*(ResidualBlock(coarse_width) for _ in range(coarse_blocks)))
        self.to_middle = nn.Conv2d(coarse_width, 4 * middle_width, 1)
        self.middle = nn.Sequential(*(ResidualBlock(middle_width) for _ in range(middle_blocks)))
        self.to_fine = nn.Conv2d(middle_width, 4 * fine_width, 1)
        self.fine = nn.Sequential(*(ResidualBlock(fine_width) for _ in range(fine_blocks)))
        self.head = nn.Conv2d(fine_width + 3, 3 * 4 * 4, 3, padding=1)
        self.soft_head = nn.Conv2d(fine_width + 3, 3, 3, padding=1)
        if not self.head.weight.is_meta:
            for head in (self.head, self.soft_head):
                nn.init.zeros_(head.weight)
                _set_bias(head, 0.0)
            with torch.no_grad():
                self.base.weight.copy_(inverse_of_blocks(latent_channels))
                self.smooth.weight.copy_(_spline_through_means())
            _set_bias(self.base, 0.5)

    def forward(self, y: Tensor, levels: Tensor, hidden: Tensor) -> Tensor:
        """Images [B, 3, 16 h, 16 w], not clipped.

        Args:
            y: dequantised coefficients [B, C, h, w], the means of hidden blocks filled in
                (`block_transform.fill_hidden`), 0 in unknown blocks.
            levels: [B, 1, h, w], of `ladder`, as floats.
            hidden: [B, 1, h, w], 1 where a block is hidden, else 0.
        """
        share = torch.maximum(smooth_share(levels), hidden)
        around = functional.pad(y[:, :SMOOTH_CHANNELS], (1, 1, 1, 1), mode="replicate")
        blocks = self.base(y * (1 - share)) + self.smooth(around) * share
        base = functional.pixel_shuffle(blocks, 16)
        told = torch.cat([0.5 * y, levels / LEVELS, hidden], dim=1)
        x = self.coarse(functional.relu(self.stem(told)))
        x = self.middle(functional.relu(functional.pixel_shuffle(self.to_middle(x), 2)))
        x = self.fine(functional.relu(functional.pixel_shuffle(self.to_fine(x), 2)))
        seen = torch.cat([x, functional.avg_pool2d(base, 4)], dim=1)
        told = torch.cat([1 - share, hidden], dim=1)
        sharp, drawn = functional.interpolate(told, scale_factor=4.0).split(1, dim=1)
        details = functional.pixel_shuffle(self.head(seen) * sharp, 4)
        heads = functional.interpolate(
            self.soft_head(seen) * drawn, scale_factor=4.0, mode="bilinear"
        )
        return base + details + heads


@register_architecture("blocks")
def build_blocks(latent_channels: int, **sizes: int) -> tuple[nn.Module, nn.Module]:
    """A fixed block transform, and a synthesis that takes the level of each block."""
    return BlockAnalysis(latent_channels), BlockSynthesis(latent_channels, **sizes)
