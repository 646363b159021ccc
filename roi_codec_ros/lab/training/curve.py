# SPDX-License-Identifier: Apache-2.0
"""A run's learning curve, short enough for a model card."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError

LOG_NAME = "log.jsonl"  # beside the checkpoint
_OF_THE_MACHINE = ("elapsed_s", "images_per_s", "loader")
_DIGITS = 4


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
