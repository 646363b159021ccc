# SPDX-License-Identifier: Apache-2.0
"""A picture of what `encode_bench` measured: bits against milliseconds, a panel for each size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roi_codec_ros.common.files import Output
from roi_codec_ros.common.plotting import new_figure, save_figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_rows(rows: Sequence[dict[str, Any]], output: Output) -> None:
    """Write the rows of the fewest threads as a figure. Raises RoiCodecError."""
    threads = min(row["threads"] for row in rows)
    shown = [row for row in rows if row["threads"] == threads]
    sizes = list(dict.fromkeys(row["size"] for row in shown))
    series = list(dict.fromkeys(_series(row) for row in shown))
    figure = new_figure((5 * len(sizes) + 2.5, 4.5), 120)
    axes = figure.subplots(1, len(sizes), sharey=True, squeeze=False)
    for panel, size in zip(axes[0], sizes, strict=True):
        for index, name in enumerate(series):
            points = [row for row in shown if row["size"] == size and _series(row) == name]
            panel.plot(
                [row["encode_ms"]["p50"] for row in points],
                [row["bpp"] for row in points],
                MARKERS[index // 10 % len(MARKERS)] + ("-" if len(points) > 1 else ""),
                color=f"C{index % 10}",
                label=name,
            )
        panel.set(title=size, xlabel="ms to encode, median", xscale="log")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("bits per pixel")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    figure.suptitle(f"{threads} thread{'s' if threads > 1 else ''}")
    save_figure(figure, output)


def _series(row: dict[str, Any]) -> str:
    if row["backend"] is None:
        return str(row["codec"])
    untrained = "" if row["trained"] else ", untrained"
    return f"{row['preset']}, {row['backend']}{untrained}"
