# SPDX-License-Identifier: Apache-2.0
"""The rows of an evaluation as a table to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def format_table(rows: Sequence[Row]) -> str:
    """Plain text, a line a row, columns aligned; what was not measured is a dash."""
    header = [title for title, _ in COLUMNS]
    body = [[show(row) for _, show in COLUMNS] for row in rows]
    widths = [max(len(line[index]) for line in [header, *body]) for index in range(len(header))]
    return "\n".join(_line(cells, widths) for cells in [header, *body])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name = cells[0].ljust(widths[0])
    figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([name, *figures]).rstrip()


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _figure(key: str, form: str) -> Callable[[Row], str]:
    return lambda row: _number(row[key], form)


def _mean_ms(key: str) -> Callable[[Row], str]:
    return lambda row: _number(row[key]["mean"], ".1f")


def row_name(row: Row) -> str:
    """What the row is called: a preset only where the name leaves it open, a device if no CPU."""
    method, preset = row["method"], row["preset"]
    device = row.get("device") or "cpu"
    words = [method, "" if preset == method else preset, "" if device == "cpu" else device]
    return " ".join(word for word in words if word)


COLUMNS: tuple[Column, ...] = (
    ("method", row_name),
    ("bpp", _figure("bpp_mean", ".3f")),
    ("± std", _figure("bpp_std", ".3f")),
    ("PSNR", _figure("psnr_mean", ".1f")),
    ("MS-SSIM", _figure("ms_ssim_mean", ".3f")),
    ("persons AP50", _figure("person_ap50", ".3f")),
    ("of original", _figure("person_ap50_ratio", ".1%")),
    ("at conf 0.25", _figure("person_ap50_conf025", ".3f")),
    ("faces", _figure("faces_found", "d")),
    ("of original", _figure("faces_ratio", ".1%")),
    ("face AP50", _figure("face_ap50", ".4f")),
    ("encode ms", _mean_ms("encode_ms")),
    ("decode ms", _mean_ms("decode_ms")),
)
