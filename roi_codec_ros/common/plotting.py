# SPDX-License-Identifier: Apache-2.0
"""Figures without a screen, as bytes or in a file, and learning curves. Needs matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import GENERATOR, stamped
from roi_codec_ros.common.output_files import Output
from roi_codec_ros.common.plugins import optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DOTS_PER_INCH = 160
_WITH_CREATOR = ("svg", "pdf", "ps", "eps")


def new_figure(size: tuple[float, float], dots_per_inch: int = DOTS_PER_INCH) -> Figure:
    """An empty figure of ``size`` (width, height) in inches, whose parts keep clear of each other.

    Raises RoiCodecError where matplotlib is not installed.
    """
    optional("matplotlib", needed_for="figures", install="pip install matplotlib")
    from matplotlib.figure import Figure

    # Not pyplot: it keeps global state and looks for a display.
    return Figure(figsize=size, dpi=dots_per_inch, layout="constrained")


def figure_bytes(figure: Figure, kind: str = "png") -> bytes:
    """The figure as a file of that kind holds it. Raises ValueError for a kind that is none."""
    buffer = io.BytesIO()
    metadata = {"Creator": GENERATOR} if kind in _WITH_CREATOR else None
    figure.savefig(buffer, format=kind, metadata=metadata)
    return stamped(buffer.getvalue())


def save_figure(figure: Figure, output: Output) -> None:
    """Write the figure as the kind of file that the output names. Raises RoiCodecError."""
    path = output.path
    try:
        content = figure_bytes(figure, path.suffix.lstrip(".") or "png")
    except ValueError as error:
        raise RoiCodecError(f"cannot write a figure to {path}: {error}") from error
    output.write(content)


def plot_curve(curve: Mapping[str, Sequence[float | None]], title: str, output: Output) -> None:
    """A panel for each figure over the steps. Raises RoiCodecError where it cannot be written.

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
    save_figure(figure, output)
