# SPDX-License-Identifier: Apache-2.0
"""The entropy coder: symbols and block maps to bytes and back, with the fastest implementation.

The format is defined in docs/bitstream.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from roi_codec_ros.codec import rans_reference
from roi_codec_ros.codec.entropy import FIRST_CLASS, TABLES, EntropyTables
from roi_codec_ros.codec.kernels import ENTROPY_CODER, KERNELS, chosen_implementation
from roi_codec_ros.codec.temporal import unpacked
from roi_codec_ros.common.errors import BitstreamError

Buffer = bytes | bytearray | memoryview


class _Coder(Protocol):
    def encode(
        self, symbols: np.ndarray, blocks: np.ndarray, levels: np.ndarray, temporal: np.ndarray
    ) -> tuple[bytes, bytes]: ...

    def decode_map(self, map_bytes: bytes, height: int, width: int) -> np.ndarray: ...

    def decode_body(
        self, body: bytes, blocks: np.ndarray, levels: np.ndarray, temporal: np.ndarray
    ) -> np.ndarray: ...


class DecodedSymbols(NamedTuple):
    """The symbols of a payload.

    symbols: int16 [C, h, w], 0 where none is coded. blocks: uint8 [h, w], the block map.
        temporal: bool [h, w], blocks whose symbols are differences to an earlier frame.
    """

    symbols: np.ndarray
    blocks: np.ndarray
    temporal: np.ndarray


class RansCoder:
    """Codes int16 symbols with the table of their level, channel and context.

    Args:
        tables: for C channels, L levels and P classes.
        implementation: "c++" (the compiled kernel), "numpy" (the reference: byte-identical, some
            hundred times slower) or None, the best available.

    Raises:
        ValueError: the implementation is unknown or not available.
    """

    def __init__(self, tables: EntropyTables, implementation: str | None = None) -> None:
        self.implementation = chosen_implementation(ENTROPY_CODER, implementation)
        self.channels = tables.channels
        self._classes = tables.classes
        self._levels = tables.levels
        self._coder: _Coder
        if self.implementation == "c++":
            self._coder = KERNELS[ENTROPY_CODER].Coder(*(getattr(tables, name) for name in TABLES))
        else:
            self._coder = rans_reference.Coder(tables)

    def encode(
        self,
        symbols: np.ndarray,
        blocks: np.ndarray | None = None,
        levels: Sequence[int] | np.ndarray | None = None,
        temporal: np.ndarray | None = None,
    ) -> tuple[bytes, bytes]:
        """Code symbols and the block map, which tells which symbols are coded and at which level.

        ``symbols`` are ignored in blocks that are skipped or hidden, and in channels that are not
        coded at a block's level.

        Args:
            symbols: int16 [C, h, w] with sides of 1 to 65535, in any memory layout.
            blocks: uint8 [h, w], SKIPPED, HIDDEN or FIRST_CLASS + class. None: all of class 0.
            levels: the level of each of the P classes, 0 to L - 1. None: 0 for all.
            temporal: bool [h, w], blocks whose symbols are differences to an earlier frame, which
                `temporal.may_be_temporal` must allow. None: no block.

        Returns:
            The map, empty if all blocks are of class 0, and the body, empty if nothing is coded.

        Raises:
            ValueError: an array is invalid.
        """
        if symbols.dtype != np.int16:
            raise ValueError(f"expected int16 symbols, found {symbols.dtype}")
        if symbols.ndim != 3 or symbols.shape[0] != self.channels:
            raise ValueError(
                f"expected symbols [{self.channels}, H, W], found {list(symbols.shape)}"
            )
        if blocks is None:
            blocks = np.full(symbols.shape[1:], FIRST_CLASS, np.uint8)
        elif blocks.dtype != np.uint8 or blocks.shape != symbols.shape[1:]:
            raise ValueError(
                f"expected blocks uint8 {list(symbols.shape[1:])}, "
                f"found {blocks.dtype} {list(blocks.shape)}"
            )
        if temporal is None:
            temporal = np.zeros(symbols.shape[1:], np.bool_)
        elif temporal.dtype != np.bool_ or temporal.shape != symbols.shape[1:]:
            raise ValueError(
                f"expected temporal blocks bool {list(symbols.shape[1:])}, "
                f"found {temporal.dtype} {list(temporal.shape)}"
            )
        return self._coder.encode(
            np.require(symbols, requirements="A"),
            np.ascontiguousarray(blocks),
            self._checked_levels(levels),
            np.ascontiguousarray(temporal).view(np.uint8),
        )

    def decode(
        self,
        map_bytes: Buffer,
        body: Buffer,
        height: int,
        width: int,
        levels: Sequence[int] | np.ndarray | None = None,
        temporal: Buffer = b"",
    ) -> DecodedSymbols:
        """Decode an untrusted map and body.

        Time and memory are proportional to C·h·w whatever the bytes, so limit the sides first.

        Args:
            map_bytes, body: any buffers.
            height, width: sides of the latent, 1 to 65535.
            levels: the level of each class, as encoded. None: 0 for all.
            temporal: which blocks are differences to an earlier frame (`temporal.packed`).

        Raises:
            BitstreamError: `encode` cannot have produced these bytes for a latent of these sides
                and levels, or the levels do not exist in this model.
        """
        try:
            checked = self._checked_levels(levels)
            blocks = self._coder.decode_map(memoryview(map_bytes).tobytes(), height, width)
            differ = unpacked(memoryview(temporal).tobytes(), blocks, checked.tolist())
            symbols = self._coder.decode_body(
                memoryview(body).tobytes(), blocks, checked, differ.view(np.uint8)
            )
        except ValueError as error:
            raise BitstreamError(str(error)) from error
        return DecodedSymbols(symbols, blocks, differ)

    def _checked_levels(self, levels: Sequence[int] | np.ndarray | None) -> np.ndarray:
        """The levels as uint8 [P]. Raises ValueError unless all are 0 to L - 1."""
        if levels is None:
            return np.zeros(self._classes, np.uint8)
        given = [int(level) for level in levels]
        if len(given) != self._classes or not all(0 <= level < self._levels for level in given):
            raise ValueError(
                f"expected a level of 0 to {self._levels - 1} for each of {self._classes} "
                f"classes, found {given}"
            )
        return np.array(given, np.uint8)
