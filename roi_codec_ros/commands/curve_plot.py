# SPDX-License-Identifier: Apache-2.0
"""A picture of a model's learning curve, from its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from roi_codec_ros.common.plotting import new_figure, save_figure


def plot_curve(curve: Mapping[str, Sequence[float | None]], title: str, path: Path) -> None:
    """A panel for each figure over the steps. Raises RoiCodecError where it can not be written.

    curve: as `lab.training.curve.learning_curve` gives it.
    """
    names = [name for name in curve if name != "step"]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure((3.2 * columns, 2.4 * rows), 100)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for panel, name in zip(axes.flat, names, strict=False):
        values = [float("nan") if value is None else value for value in curve[name]]
        panel.plot(curve["step"], values, color="C0")
        panel.set_title(name, fontsize="small")
        panel.grid(alpha=0.3)
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("step")
    figure.suptitle(title)
    save_figure(figure, path)
