# SPDX-License-Identifier: Apache-2.0
"""The entropy coder: symbols to bytes and back, by the fastest implementation at hand.

The format is defined in docs/bitstream.md.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from roi_codec_ros.codec import rans_reference
from roi_codec_ros.codec.entropy import EntropyTables
from roi_codec_ros.common.errors import BitstreamError

try:
    import roi_codec_ros.codec._rans as _kernel
except ImportError:  # no compiler was at hand when the package was installed
    _kernel = None


class _Coder(Protocol):
    def encode(self, symbols: np.ndarray) -> bytes: ...

    def decode(self, body: bytes, height: int, width: int) -> np.ndarray: ...


class RansCoder:
    """Codes int16 symbols, each by the table of its channel and context.

    Args:
        tables: for C channels.
        implementation: "c++" (the compiled kernel), "numpy" (the reference: the same bytes,
            some hundred times slower) or None, the best available.

    Raises:
        ValueError: the implementation is unknown or not available.
    """

    def __init__(self, tables: EntropyTables, implementation: str | None = None) -> None:
        available = available_implementations()
        if implementation is not None and implementation not in available:
            raise ValueError(
                f"expected an implementation of {', '.join(available)}, found {implementation}"
            )
        self.implementation = implementation or available[0]
        self.channels = tables.channels
        self._coder: _Coder
        if self.implementation == "c++":
            self._coder = _kernel.Coder(tables.cdf, tables.lengths, tables.offsets, tables.bounds)
        else:
            self._coder = rans_reference.Coder(tables)

    def encode(self, symbols: np.ndarray) -> bytes:
        """Code symbols.

        Args:
            symbols: int16 [C, H, W] with sides of 1 to 65535, in any memory layout.

        Raises:
            ValueError: the array is not as above.
        """
        if symbols.dtype != np.int16:
            raise ValueError(f"expected int16 symbols, found {symbols.dtype}")
        if symbols.ndim != 3 or symbols.shape[0] != self.channels:
            raise ValueError(
                f"expected symbols [{self.channels}, H, W], found {list(symbols.shape)}"
            )
        return self._coder.encode(np.ascontiguousarray(symbols, dtype=np.int16))

    def decode(self, body: bytes | bytearray | memoryview, height: int, width: int) -> np.ndarray:
        """Decode a body, which may be anything.

        Time and memory are proportional to C·H·W whatever the body, so bound the sides first.

        Args:
            body: any buffer.
            height, width: sides of the latent, 1 to 65535.

        Returns:
            int16 [C, H, W].

        Raises:
            BitstreamError: the body is not one that `encode` makes of C·H·W symbols.
        """
        try:
            return self._coder.decode(memoryview(body).tobytes(), height, width)
        except ValueError as error:
            raise BitstreamError(str(error)) from error


def available_implementations() -> tuple[str, ...]:
    """Names that `RansCoder` takes here, the best first."""
    return ("c++", "numpy") if _kernel is not None else ("numpy",)
