# SPDX-License-Identifier: Apache-2.0
"""How many bits of a payload can depend on a head, and the bounds that follow.

Given the rest of the picture, a head's pixels X reach the latents Z only through those whose
receptive field touches the head. Hence, whatever an attacker computes,

    I(identity; Z | rest) ≤ I(X; Z | rest) ≤ H(those latents) ≤ their mean code length

(the last step since no code is shorter than the entropy in the mean). Fano's inequality turns that
into a bound on how often an attacker can name the right one of N equally likely identities. It is
a bound from above only: bits that are there need not tell anything about identity.

A model that codes blocks sends a map of them, too, which any pixel may change: what is hidden and
where persons are. Given the map, a block's symbols depend on its own pixels alone, and a hidden
block has none, so that

    I(X; Z | rest) ≤ H(map | rest) + H(symbols of the blocks under the head | map, rest)

The map is priced by a fixed code that knows the rest (`map_code`). What is inside the mask costs
nothing; what of a head is outside it is in blocks that count in full. Levels of classes are the
camera's setting and no function of the picture. All this is one frame: bits of frames add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roi_codec_ros.codec.bitstream import Payload
from roi_codec_ros.codec.encoding import Encoder
from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.codec.rans import RansCoder
from roi_codec_ros.codec.receptive_field import ReceptiveField, receptive_field
from roi_codec_ros.codec.spatial import code_length_bits
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.privacy.map_code import map_change_bits, with_standard_head
from roi_codec_ros.regions import RegionFinder

BoxArray = NDArray[np.float32]

IDENTITIES = (2, 10, 100, 1_000, 1_000_000, 8_000_000_000)
CHANGED_HEADS_PER_IMAGE = 4


@dataclass(frozen=True, eq=False)
class HeadBits:
    """Code lengths in bits, one entry a head; `changed` for the first heads of an image only.

    touching: of all latents whose receptive field touches the head, and for models that code
        blocks of the map as well: what bounds an attacker.
    of_map: of the map alone; nothing for models that code no blocks.
    own: of the latents whose own stride × stride block lies under the head: no bound.
    changed: of the symbols that come out otherwise once the head is filled with its mean colour.
    """

    touching: tuple[float, ...]
    of_map: tuple[float, ...]
    own: tuple[float, ...]
    changed: tuple[float, ...]


class HeadMeter:
    """Measures the bits of heads for one model."""

    def __init__(
        self, model: Model, *, device: str = "cpu", regions: RegionFinder | None = None
    ) -> None:
        self._model = model
        self._encoder = Encoder(model, device=device, regions=regions)
        self._coder = RansCoder(model.tables)
        stride = model.preset.stride
        self._own_block = ReceptiveField(stride, ((0, stride),))
        self.receptive_field = (
            self._own_block if model.codes_blocks else receptive_field(model.preset)
        )

    def measure(self, image: ImageArray, heads: BoxArray) -> HeadBits:
        """`heads`: float [N, 4] as x0, y0, x1, y1 in px of `image`."""
        read = self._read(image)
        scale = np.array([read.size[1] / image.shape[1], read.size[0] / image.shape[0]] * 2)
        coded_heads = np.asarray(heads, dtype=np.float64).reshape(-1, 4) * scale
        changed = []
        for head in heads[:CHANGED_HEADS_PER_IMAGE]:
            others = self._read(erase(image, head[None])).symbols
            changed.append(float(read.bits[others != read.symbols].sum()))
        bits = read.bits.sum(axis=0)
        touching = bits_of_boxes(bits, coded_heads, self.receptive_field, read.size)
        of_map = (0.0,) * len(touching)
        if self._model.codes_blocks:
            of_map = tuple(self._map_bits(image, head, read.blocks) for head in heads)
        return HeadBits(
            touching=tuple(a + b for a, b in zip(touching, of_map, strict=True)),
            of_map=of_map,
            own=bits_of_boxes(bits, coded_heads, self._own_block, read.size),
            changed=tuple(changed),
        )

    def _map_bits(
        self, image: ImageArray, head: NDArray[np.float32], blocks: NDArray[np.uint8]
    ) -> float:
        return map_change_bits(blocks, self._read(with_standard_head(image, head)).blocks)

    def _read(self, image: ImageArray) -> _Read:
        payload = Payload.from_bytes(self._encoder.encode(image).data)
        stride = self._model.preset.stride
        height, width = payload.coded_height, payload.coded_width
        rows, columns = -(-height // stride), -(-width // stride)
        symbols, blocks, _ = self._coder.decode(
            payload.block_map, payload.body, rows, columns, payload.levels
        )
        bits = code_length_bits(self._model.tables, symbols, blocks, payload.levels)
        return _Read(symbols, blocks, bits, (height, width))


@dataclass(frozen=True, eq=False)
class _Read:
    """What an eavesdropper reads out of a payload.

    symbols: int16 [C, h, w]; blocks: uint8 [h, w]; bits: float64 [C, h, w], of each symbol;
    size: (height, width) that was coded.
    """

    symbols: NDArray[np.int16]
    blocks: NDArray[np.uint8]
    bits: NDArray[np.float64]
    size: tuple[int, int]


def bits_of_boxes(
    bits: NDArray[np.float64],
    boxes: NDArray[np.float64],
    field: ReceptiveField,
    coded_size: tuple[int, int],
) -> tuple[float, ...]:
    """Sum of `bits` [H, W], bits a latent position, over the positions that each box touches.

    boxes: x0, y0, x1, y1 in px of the coded image of `coded_size` (height, width). A box at the
    right or lower edge is also in the copies of that edge which pad the image.
    """
    rows, columns = bits.shape
    height, width = coded_size
    total = []
    for x0, y0, x1, y1 in boxes:
        right = x1 if x1 < width - 1 else max(x1, columns * field.stride)
        bottom = y1 if y1 < height - 1 else max(y1, rows * field.stride)
        across = field.touching(math.floor(x0), math.ceil(right), columns)
        down = field.touching(math.floor(y0), math.ceil(bottom), rows)
        total.append(float(bits[np.ix_(down, across)].sum()))
    return tuple(total)


def erase(image: ImageArray, heads: BoxArray) -> ImageArray:
    """A copy of `image` whose heads are filled with their mean colour: no face is left in them."""
    erased = image.copy()
    for x0, y0, x1, y1 in heads:
        inside = np.s_[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
        if erased[inside].size:
            erased[inside] = np.rint(image[inside].mean(axis=(0, 1)))
    return erased


def fano_success_bound(bits: float, identities: int) -> float:
    """The highest rate at which one of N equally likely identities can be named from `bits` bits.

    The largest p with h(p) + (1 − p) log2(N − 1) ≥ log2 N − bits (Fano's inequality), h being the
    binary entropy. 1 / N without any bits; 1, and so vacuous, from log2 N bits on.
    """
    if identities < 2 or bits < 0:
        raise ValueError(f"expected bits ≥ 0 and 2 identities or more, found {bits}, {identities}")
    if bits == 0:
        return 1.0 / identities
    needed = math.log2(identities) - bits
    if needed <= 0:
        return 1.0
    low, high = 1.0 / identities, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        left = _binary_entropy(middle) + (1.0 - middle) * math.log2(identities - 1)
        low, high = (middle, high) if left >= needed else (low, middle)
    return low


def fano_table(bits: float, identities: Sequence[int] = IDENTITIES) -> list[dict[str, object]]:
    """For each number of identities: chance, the bound, and whether the bound says nothing."""
    rows: list[dict[str, object]] = []
    for count in identities:
        bound = fano_success_bound(bits, count)
        rows.append(
            {
                "identities": count,
                "log2": math.log2(count),
                "chance": 1.0 / count,
                "success_at_most": bound,
                "vacuous": bound >= 1.0,
            }
        )
    return rows


def _binary_entropy(p: float) -> float:
    if p <= 0.0 or p >= 1.0:
        return 0.0
    return -p * math.log2(p) - (1.0 - p) * math.log2(1.0 - p)
