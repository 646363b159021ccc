# SPDX-License-Identifier: Apache-2.0
"""What a training run shows: a bar for the eyes, lines of JSON and curves for plots, pictures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.training.trainer import StepReport

_BAR = "{percentage:3.0f}%|{bar:12}| {elapsed}<{remaining} {postfix}"
_REFRESH_S = 1.0


class ProgressLog:
    """Called with every :class:`StepReport`; means over ``every`` steps go into ``path``."""

    def __init__(
        self, path: Path, every: int = 100, board: Any = None, start: float = 0.0
    ) -> None:
        """board: a TensorBoard writer of :func:`open_board`. start: share of the budget spent.

        Raises RoiCodecError where ``path`` can not be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise RoiCodecError(f"expected to write {path}, found: {error.strerror}") from error
        self._path, self._every, self._board = path, every, board
        self._sums: dict[str, float] = {}
        self._count = 0
        self._shown = 0.0
        self._last: StepReport | None = None
        self._bar = tqdm(total=1.0, initial=start, bar_format=_BAR, dynamic_ncols=True)

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._last is not None and self._count and error is None:
            self._write(self._last, self._means())
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __call__(self, report: StepReport) -> None:
        """Raises RoiCodecError where the log can not be written."""
        values = {
            "loss": report.loss,
            "bpp": report.bpp,
            "psnr_db": report.psnr_db,
            **report.terms,
            "images": float(report.images),
            "step_s": report.step_s,
            "wait_s": report.wait_s,
        }
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._last = report
        self._bar.n = report.progress
        due = self._count >= self._every
        now = time.monotonic()
        if due or now - self._shown >= _REFRESH_S:
            self._shown = now
            means = self._means()
            shown = {name: f"{value:.4g}" for name, value in means.items()}
            shown["loader"] = f"{means['loader']:.0%}"
            self._bar.set_postfix(step=report.step, **shown)
        if due:
            self._write(report, self._means())
            self._sums, self._count = {}, 0

    def _means(self) -> dict[str, float]:
        """Mean figures; images per second; the loader's share of a step's time, 0 to 1."""
        means = {name: total / self._count for name, total in self._sums.items()}
        images, step_s, wait_s = (means.pop(name) for name in ("images", "step_s", "wait_s"))
        means["images_per_s"] = images / max(step_s, 1e-9)
        means["loader"] = min(wait_s / max(step_s, 1e-9), 1.0)
        return means

    def _write(self, report: StepReport, means: dict[str, float]) -> None:
        line: dict[str, float] = {"step": report.step, "elapsed_s": round(report.elapsed_s, 1)}
        line |= {name: round(value, 6) for name, value in means.items()}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            if self._board is not None:
                for name, value in means.items():
                    self._board.add_scalar(name.replace(".", "/"), value, report.step)
        except OSError as error:
            raise RoiCodecError(
                f"expected to write {self._path}, found: {error.strerror}"
            ) from error

    def picture(self, strip: NDArray[np.uint8], step: int) -> None:
        """Show a picture, RGB [H, W, 3], in TensorBoard."""
        if self._board is not None:
            self._board.add_image("original and decoded", strip, step, dataformats="HWC")


def open_board(folder: Path) -> Any:
    """A TensorBoard writer. Raises RoiCodecError that says what to install."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RoiCodecError(
            f"TensorBoard curves need the package tensorboard ({error}): pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder))
