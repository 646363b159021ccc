# SPDX-License-Identifier: Apache-2.0
"""What codecs of films do, whichever they are.

    frame ─► FilmEncoder.put ─► packets ─► FilmDecoder.put ─► (number of the frame, picture)

The k-th packet is of the k-th frame: nothing is reordered, whatever a codec holds back.
"""

from __future__ import annotations

from typing import Protocol

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.lab.evaluation.methods import Named

Shown = list[tuple[int, ImageArray]]


class FilmEncoder(Protocol):
    """Codes one film, frame by frame."""

    def put(self, image: ImageArray, time_s: float) -> list[bytes]:
        """The packets that are ready after this frame, RGB uint8 [H, W, 3]."""

    def flush(self) -> list[bytes]:
        """Those that were held back, at the end."""
        return []


class FilmDecoder(Protocol):
    """Decodes one film; packets may be missing."""

    def put(self, data: bytes, number: int) -> Shown:
        """The pictures that are ready after packet ``number``, each with the number of its own."""

    def flush(self) -> Shown:
        """Those that were held back, at the end."""
        return []


class FilmCodec(Named, Protocol):
    """A codec at one setting."""

    @property
    def heal_s(self) -> float:
        """Maximum time until everything is refreshed after a loss."""

    def encoder(self, size: tuple[int, int], rate_hz: float) -> FilmEncoder:
        """One for a film of frames of (height, width), at a rate."""

    def decoder(self, size: tuple[int, int]) -> FilmDecoder:
        """One for such a film."""
        ...
