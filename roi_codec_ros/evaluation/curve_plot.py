# SPDX-License-Identifier: Apache-2.0
"""A picture of a model's learning curve, from its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from roi_codec_ros.codec.errors import RoiCodecError


def plot_curve(curve: Mapping[str, Sequence[float | None]], title: str, path: Path) -> None:
    """A panel for each figure over the steps. Raises RoiCodecError where it can not be written.

    curve: as `training.curve.learning_curve` gives it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in curve if name != "step"]
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(3.2 * columns, 2.4 * rows), sharex=True, squeeze=False
    )
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
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise RoiCodecError(f"expected to write a figure to {path}; found: {error}") from error
    finally:
        pyplot.close(figure)
