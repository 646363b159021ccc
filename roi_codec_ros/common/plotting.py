# SPDX-License-Identifier: Apache-2.0
"""Figures without a screen, as bytes or in a file. Needs matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.common.packages import optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 160


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
    figure.savefig(buffer, format=kind)
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure as the kind of file that ``path`` names. Raises RoiCodecError."""
    try:
        write_whole(path, figure_bytes(figure, path.suffix.lstrip(".") or "png"))
    except (OSError, ValueError) as error:
        raise RoiCodecError(f"expected to write a figure to {path}; found: {error}") from error
