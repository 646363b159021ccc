# SPDX-License-Identifier: Apache-2.0
"""Attackers that train their own decoder to restore faces from the stream.

```
  photograph ─► encoder ──► ŷ ─┬─► synthesis ─────────► + ─► restored   `latents`
              (frozen)         │    (trained on) └► U-Net ┘
                               │                      ▲
                               ├──────────────────────┘
                               └─► synthesis ─► x̂ ──► + ─► restored     `decoded`
                                    (frozen)     └► U-Net ┘
```
Whoever can decode holds the model file, and with it the encoder: so an attacker makes as many
pairs of code and photograph as he likes, from photographs of his own. `latents` starts from the
synthesis network of the model file and trains it on, which is a better start than any random one,
and lets a U-Net that also sees the latents correct what comes out. `decoded` sees pictures only,
rounded to eight bits. Both are paid for the original, heads included, and most for the heads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from roi_codec_ros.codec.bitstream import Payload
from roi_codec_ros.codec.block_transform import BlockTransform
from roi_codec_ros.codec.encoding import Encoder
from roi_codec_ros.codec.entropy import HIDDEN
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.networks import ResidualBlock, build_transforms
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.common.devices import settle, torch_device
from roi_codec_ros.common.errors import BitstreamError, RoiCodecError, UsageError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.training import losses
from roi_codec_ros.lab.training.data import Batch, CropSampler, CropSettings
from roi_codec_ros.lab.training.engine import learning_rate_share
from roi_codec_ros.lab.training.loader import Prefetcher

ATTACKERS = ("latents", "decoded")
UNET_STRIDE = 16
PLANES = 2  # further inputs of a block synthesis: levels and hidden flags
SYNTHESIS_STEP = 0.2  # of the learning rate: these weights are good already
WARM_UP_STEPS = 20


@dataclass(frozen=True)
class AttackConfig:
    """What an attack needs to be repeated.

    minutes: time budget of one attacker; the learning rate follows one cosine over it.
    steps: a number of steps instead, which gives the same network again on the same machine.
    head_weight: price of the heads' squared error (equation (3)) beside the whole crop's.
    width: channels of the U-Net at stride 4; twice and four times that at strides 8 and 16.
    """

    minutes: float = 10.0
    steps: int | None = None
    head_weight: float = 1.0
    learning_rate: float = 1e-3
    batch_size: int = 8
    seed: int = 1
    width: int = 48
    crops: CropSettings = field(
        default_factory=lambda: CropSettings(size=192, centred_on_head=0.9, jitter=0.1)
    )

    def __post_init__(self) -> None:
        if self.minutes <= 0 or (self.steps is not None and self.steps < 1):
            raise RoiCodecError(
                f"expected minutes above 0 and one step or more, found {self.minutes} minutes, "
                f"{self.steps} steps"
            )


@dataclass(frozen=True)
class AttackStep:
    """Figures of one step, for progress bars. progress: share of the budget that is spent."""

    step: int
    elapsed_s: float
    progress: float
    loss: float


class FrozenCodec:
    """The victim: one model's encoder and synthesis, not to be trained.

    What it takes for latents is all that a decoder reads of a payload, float [B, C, h, w]: ŷ, and
    for models that code blocks two channels more, the level of each block and whether it is
    hidden.
    """

    def __init__(self, model: Model, device: str = "cpu") -> None:
        self.model = model
        self.device = torch_device(device)
        self.synthesis = settle(Synthesis(model), self.device)
        self.channels = model.preset.latent_channels + (PLANES if model.codes_blocks else 0)
        self._coder = RansCoder(model.tables)
        self._transform = BlockTransform(model) if model.codes_blocks else None
        if self._transform is None:
            self._analysis = settle(_network(model, "analysis"), self.device)
            mean = torch.from_numpy(np.array(model.tensors["latent_mean"])).float()
            self._mean = mean.to(self.device)[None, :, None, None]
        else:
            self._encoder = Encoder(model)

    @torch.no_grad()
    def latents(self, images: Tensor) -> Tensor:
        """What is coded of images [B, 3, H, W] in [0, 1], sides multiples of the stride."""
        if self._transform is None:
            y = self._analysis(images.contiguous(memory_format=torch.channels_last))
            return (y - self._mean).round() + self._mean
        frames = images.mul(255.0).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return torch.cat([self.read(self._encoder.encode(frame).data)[0] for frame in frames])

    @torch.no_grad()
    def decoded(self, latents: Tensor) -> Tensor:
        """x̂ [B, 3, H, W] in [0, 1], in steps of 1/255 as in a decoded picture."""
        with torch.autocast(self.device.type, enabled=False):
            x = self.synthesis(latents)
        return x.clamp(0.0, 1.0).mul(255.0).round().div(255.0)

    def read(self, data: bytes) -> tuple[Tensor, Payload]:
        """Latents [1, C, h, w] of a payload. Raises BitstreamError, also for another model's."""
        payload = Payload.from_bytes(data)
        if payload.model_id != self.model.id:
            raise BitstreamError(
                f"expected a payload of model {self.model.id.hex()}, "
                f"found one of model {payload.model_id.hex()}"
            )
        stride = self.model.preset.stride
        rows, columns = (
            -(-side // stride) for side in (payload.coded_height, payload.coded_width)
        )
        symbols, blocks, _ = self._coder.decode(
            payload.block_map, payload.body, rows, columns, payload.levels
        )
        if self._transform is None:
            return torch.from_numpy(symbols)[None].float().to(self.device) + self._mean, payload
        return self._told(symbols, blocks, payload.levels), payload

    def _told(self, symbols: np.ndarray, blocks: np.ndarray, levels: Sequence[int]) -> Tensor:
        """Latents [1, C + 2, h, w] of one frame of a model that codes blocks."""
        assert self._transform is not None
        level_of = self._transform.level_of(blocks, levels)
        hidden = blocks == HIDDEN
        y = self._transform.coefficients(symbols, level_of, hidden)
        planes = np.stack([level_of, hidden]).astype(np.float32)
        return torch.from_numpy(np.concatenate([y, planes]))[None].to(self.device)


class Synthesis(nn.Module):
    """A model's own synthesis, of latents as `FrozenCodec` has them."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = _network(model, "synthesis")
        self._channels = model.preset.latent_channels
        self._planes = PLANES if model.codes_blocks else 0

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, H, W], not clipped."""
        y, *told = latents.split([self._channels, *[1] * self._planes], dim=1)
        return torch.as_tensor(self.network(y, *told))


def _network(model: Model, part: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        network = dict(
            zip(("analysis", "synthesis"), build_transforms(model.preset), strict=True)
        )[part]
    network.load_state_dict(
        {key: torch.from_numpy(np.array(v)).float() for key, v in model.weights(part).items()}
    )
    return network


class UNet(nn.Module):
    """A correction to a picture, 0 at first; the latents join it at its lowest level.

    x ─► unshuffle 4 ─► enter ─┬───────────────────► + ─► leave ─► shuffle 4 ─► correction
                               └► down ─┬───► + ─► up                  stride 4
                                        └► down ─► up                  strides 8 and 16
    """

    def __init__(self, width: int, latent_channels: int = 0) -> None:
        super().__init__()
        wide, widest = 2 * width, 4 * width
        self.enter = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, width, 3, padding=1), nn.ReLU()
        )
        self.first = ResidualBlock(width)
        self.down_first = nn.Conv2d(width, wide, 2, stride=2)
        self.second = ResidualBlock(wide)
        self.down_second = nn.Conv2d(wide, widest, 2, stride=2)
        self.join = nn.Conv2d(latent_channels, widest, 1) if latent_channels else None
        self.deepest = nn.Sequential(nn.ReLU(), ResidualBlock(widest), ResidualBlock(widest))
        self.up_second = nn.Sequential(nn.Conv2d(widest, 4 * wide, 1), nn.PixelShuffle(2))
        self.second_again = ResidualBlock(wide)
        self.up_first = nn.Sequential(nn.Conv2d(wide, 4 * width, 1), nn.PixelShuffle(2))
        self.first_again = ResidualBlock(width)
        last = nn.Conv2d(width, 48, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.leave = nn.Sequential(last, nn.PixelShuffle(4))

    def forward(self, x: Tensor, latents: Tensor | None = None) -> Tensor:
        """`x`: [B, 3, H, W], sides multiples of 16; `latents`: [B, C, h, w] of the same crop."""
        first = self.first(self.enter(x - 0.5))
        second = self.second(self.down_first(first))
        deepest = self.down_second(second)
        if self.join is not None and latents is not None:
            joined = self.join(latents)
            deepest = deepest + functional.interpolate(joined, size=deepest.shape[-2:])
        second = self.second_again(second + self.up_second(self.deepest(deepest)))
        return self.leave(self.first_again(first + self.up_first(second)))


class FromLatents(nn.Module):
    """Restores the photograph from ŷ, beginning with the model's own synthesis."""

    def __init__(self, codec: FrozenCodec, width: int) -> None:
        super().__init__()
        self.synthesis = Synthesis(codec.model).requires_grad_(True)
        self.correction = UNet(width, codec.channels)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] to images [B, 3, H, W] in [0, 1]."""
        base = self.synthesis(latents)
        return base.float() + _padded(self.correction, base, latents)


class FromDecoded(nn.Module):
    """Restores the photograph from the decoded picture."""

    def __init__(self, codec: FrozenCodec, width: int) -> None:
        super().__init__()
        self._codec = (codec,)  # in a tuple: not one of this network's own parts
        self.correction = UNet(width)

    def forward(self, latents: Tensor) -> Tensor:
        """Decoded images to restored ones, both [B, 3, H, W] in [0, 1]."""
        decoded = self._codec[0].decoded(latents)
        return decoded + _padded(self.correction, decoded, None)


def _padded(unet: UNet, x: Tensor, latents: Tensor | None) -> Tensor:
    height, width = x.shape[-2:]
    pad = (0, -width % UNET_STRIDE, 0, -height % UNET_STRIDE)
    padded = functional.pad(x, pad, mode="replicate") if any(pad) else x
    correction: Tensor = unet(padded, latents)
    return correction[..., :height, :width].float()


class TrainedAttacker:
    """Turns payloads into what the attacker takes for the photograph.

    name: `latents` or `decoded`; steps, pairs (of code and crop), elapsed_s: of its training.
    """

    def __init__(
        self,
        name: str,
        codec: FrozenCodec,
        network: nn.Module,
        *,
        steps: int = 0,
        pairs: int = 0,
        elapsed_s: float = 0.0,
    ) -> None:
        self.name, self.steps, self.pairs, self.elapsed_s = name, steps, pairs, elapsed_s
        self._codec, self._network = codec, network

    @torch.inference_mode()
    def restore(self, data: bytes) -> ImageArray:
        """RGB uint8 [H, W, 3] of the coded size. Raises BitstreamError."""
        latents, payload = self._codec.read(data)
        x = self._network(latents)[0, :, : payload.coded_height, : payload.coded_width]
        pixels = (x.permute(1, 2, 0) * 255.0).round_().clamp_(0, 255).nan_to_num_(0)
        return np.asarray(pixels.to(torch.uint8).contiguous().cpu().numpy())


class AttackTrainer:
    """Trains one attacker."""

    def __init__(self, name: str, codec: FrozenCodec, config: AttackConfig) -> None:
        if name not in ATTACKERS:
            raise UsageError(f"expected an attacker of {', '.join(ATTACKERS)}, found {name!r}")
        self.name, self.config, self.codec = name, config, codec
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            make = FromLatents if name == "latents" else FromDecoded
            network: nn.Module = make(codec, config.width)
        self.network = network.to(codec.device).to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.Adam(self._groups(), lr=config.learning_rate)
        self.step = 0

    def _groups(self) -> list[dict[str, object]]:
        new: list[nn.Parameter] = []
        known: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            (known if name.startswith("synthesis.") else new).append(parameter)
        groups: list[dict[str, object]] = [{"params": new, "scale": 1.0}]
        return [*groups, {"params": known, "scale": SYNTHESIS_STEP}] if known else groups

    def run(
        self, sampler: CropSampler, on_step: Callable[[AttackStep], None] | None = None
    ) -> TrainedAttacker:
        """Train until the budget is spent. Raises RoiCodecError where the loss is not finite."""
        config = self.config
        batches = Prefetcher(sampler, config.batch_size, config.seed)
        started = time.monotonic()
        try:
            for batch in batches:
                elapsed = time.monotonic() - started
                progress = (
                    elapsed / (60.0 * config.minutes)
                    if config.steps is None
                    else self.step / config.steps
                )
                if progress >= 1.0 and self.step:
                    break
                loss = self._train_step(batch, progress)
                if on_step is not None:
                    on_step(AttackStep(self.step, elapsed, min(progress, 1.0), loss))
        finally:
            batches.close()
        return self.attacker(time.monotonic() - started)

    def attacker(self, elapsed_s: float = 0.0) -> TrainedAttacker:
        """The attacker as far as it has been trained; the training ends with it."""
        return TrainedAttacker(
            self.name,
            self.codec,
            settle(self.network, self.codec.device),
            steps=self.step,
            pairs=self.step * self.config.batch_size,
            elapsed_s=elapsed_s,
        )

    def loss(self, batch: Batch) -> Tensor:
        """Squared error of the restored crops, and of their heads once more."""
        x = batch.images.to(self.codec.device).float().div_(255.0)
        latents = self.codec.latents(x)
        with torch.autocast(self.codec.device.type, torch.bfloat16):
            restored = self.network(latents).float()
        heads = losses.region_loss(x, restored, batch.heads, k=0)
        return losses.background_loss(x, restored) + self.config.head_weight * heads

    def _train_step(self, batch: Batch, progress: float) -> float:
        self.network.train()
        share = learning_rate_share(progress, self.step, WARM_UP_STEPS)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * share * group["scale"]
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            raise RoiCodecError(
                f"expected a finite loss, found {loss.item()} at step {self.step} of the attacker "
                f"{self.name}; try a lower learning rate"
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        return float(loss.item())
