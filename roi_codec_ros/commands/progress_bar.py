# SPDX-License-Identifier: Apache-2.0
"""How far a verb is, for people."""

from __future__ import annotations

from typing import Any


class ProgressBar:
    """A bar with the time that is left, on a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def show(self, done: float, total: float, unit: str) -> None:
        """How much is done, of how much (0: unknown), of what."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total or None, unit=unit, disable=None, unit_scale=True)
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
