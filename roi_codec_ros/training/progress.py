# SPDX-License-Identifier: Apache-2.0
"""What a training run shows: a bar for the eyes, a line of JSON every so often for plots."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from roi_codec_ros.training.trainer import StepReport

_SMOOTHED = (
    "loss",
    "bpp",
    "psnr_db",
    "head_mse",
    "person_mse",
    "code_distance",
    "feature_distance",
    "detection_distance",
)


class ProgressLog:
    """Called with every :class:`StepReport`; means over ``every`` steps go into ``path``."""

    def __init__(self, path: Path, budget_s: float, every: int = 100) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")
        self._every = every
        self._sums = dict.fromkeys(_SMOOTHED, 0.0)
        self._count = 0
        self._bar = tqdm(total=round(budget_s), unit="s", mininterval=2.0, dynamic_ncols=True)

    def __enter__(self) -> ProgressLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        self._file.close()

    def __call__(self, report: StepReport) -> None:
        values = asdict(report)
        for name in _SMOOTHED:
            self._sums[name] += values[name]
        self._count += 1
        self._bar.n = min(round(report.elapsed_s), self._bar.total)
        if self._count < self._every:
            return
        means = {name: round(total / self._count, 6) for name, total in self._sums.items()}
        line = {"step": report.step, "elapsed_s": round(report.elapsed_s, 1), **means}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._bar.set_postfix(step=report.step, **{k: f"{v:.4g}" for k, v in means.items()})
        self._sums = dict.fromkeys(_SMOOTHED, 0.0)
        self._count = 0
