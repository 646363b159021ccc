# SPDX-License-Identifier: Apache-2.0
"""Tables for the terminal: the first column is left-aligned, figures are right-aligned."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

NOTHING = "–"  # what was not measured


def text_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned plain text, one line per row; an empty header is left out."""
    columns = len(header) or max((len(row) for row in rows), default=0)
    return tabulate(
        rows,
        headers=header,
        tablefmt="plain",
        colalign=("left", *["right"] * (columns - 1)) if rows and columns else None,
        disable_numparse=True,
    )


def number(value: float | None, form: str) -> str:
    """``value`` in a format such as ``.3f``; a dash for None."""
    return NOTHING if value is None else format(value, form)
