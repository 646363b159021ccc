# SPDX-License-Identifier: Apache-2.0
"""What a training run shows: a bar, a log in JSON, TensorBoard, and its learning curve."""

from __future__ import annotations

import datetime
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from roi_codec_ros.common.errors import RoiCodecError, reason_of
from roi_codec_ros.lab.training.training_run import StepReport

_BAR = "{percentage:3.0f}%|{bar:12}| {elapsed}<{remaining} {postfix}"
_REFRESH_S = 1.0


class ProgressLog:
    """Called with every :class:`StepReport`; means over ``every`` steps go into ``path``."""

    def __init__(
        self, path: Path, every: int = 100, board: Any = None, start: float = 0.0
    ) -> None:
        """board: a TensorBoard writer of :func:`open_board`. start: share of the budget spent.

        Raises RoiCodecError where ``path`` cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise RoiCodecError(f"cannot write {path}: {reason_of(error)}") from error
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
        """Raises RoiCodecError where the log cannot be written."""
        values = {
            **report.figures,
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
            raise RoiCodecError(f"cannot write {self._path}: {reason_of(error)}") from error

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


LOG_NAME = "log.jsonl"  # beside the checkpoint
_OF_THE_MACHINE = ("elapsed_s", "images_per_s", "loader")
_DIGITS = 4


def training_card(checkpoint: Path, state: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What a model's card says of its training, with the curve of the log beside the checkpoint.

    state: that of the checkpoint. more: what else to say of it.
    """
    curve = learning_curve(checkpoint.parent / LOG_NAME)
    return {
        "trained": True,
        "date": datetime.date.today().isoformat(),
        "training": {
            **state.get("about", {}),
            "steps": state["step"],
            "minutes": round(state["elapsed_s"] / 60.0, 1),
            "history": state["history"],
            **more,
            **({"curve": curve} if curve else {}),
        },
    }


def learning_curve(log: Path, points: int = 24) -> dict[str, list[float | None]]:
    """The figures of a run's log by name, means over at most ``points`` equal parts of it.

    ``step`` is the last of each part; a figure that a part does not have is None there. A run
    that was taken up at an earlier step counts from there on as it went the last time. Empty
    without a log or a step in it. Raises RoiCodecError for a log that is none.
    """
    if not log.is_file():
        return {}
    lines: list[dict[str, float]] = []
    try:
        for text in log.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            while lines and lines[-1]["step"] >= line["step"]:
                lines.pop()
            lines.append(line)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RoiCodecError(f"expected a training log at {log}, found: {error!r}") from error
    if not lines:
        return {}
    count = min(points, len(lines))
    edges = [len(lines) * part // count for part in range(count + 1)]
    parts = [lines[first:end] for first, end in itertools.pairwise(edges)]
    names = dict.fromkeys(name for line in lines for name in line)
    curve: dict[str, list[float | None]] = {"step": [part[-1]["step"] for part in parts]}
    for name in names:
        if name not in ("step", *_OF_THE_MACHINE):
            curve[name] = [_mean([line[name] for line in part if name in line]) for part in parts]
    return curve


def _mean(values: list[float]) -> float | None:
    return float(f"{sum(values) / len(values):.{_DIGITS}g}") if values else None
