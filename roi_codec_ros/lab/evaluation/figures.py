# SPDX-License-Identifier: Apache-2.0
"""The paper's Figures 4 and 5 of a report: average precision over bits, and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from roi_codec_ros.common.plotting import figure_bytes, new_figure
from roi_codec_ros.lab.evaluation.bd_rate import OURS, curves
from roi_codec_ros.lab.evaluation.paper import FIGURE_4, ROWS, key_of
from roi_codec_ros.lab.evaluation.rows import row_name

Row = Mapping[str, Any]

OUR_COLOURS = ("#c2185b", "#6a1b9a", "#d84315")
BASELINE_COLOURS = ("#1f77b4", "#e69f00", "#009e73", "#7f7f7f")
LOWEST_AP_SHOWN = 1e-5  # where a logarithmic axis shows an AP of nothing


def figure_4(report: Mapping[str, Any]) -> bytes:
    """PNG: AP of persons (linear) and of faces (logarithmic) over bits per pixel.

    Error bars: one sample standard deviation of the rate over the images. Dotted: the originals.
    Hollow: what the paper says, where the report is of CrowdHuman's validation set.
    """
    figure, (persons, faces) = _subplots(2, (10.5, 4.4))
    original, *rows = report["rows"]
    for axes, key in ((persons, "person_ap50"), (faces, "face_ap50")):
        lowest = LOWEST_AP_SHOWN if key == "face_ap50" else 0.0
        _precision_curves(axes, rows, key, lowest)
        if report.get("crowdhuman_val"):
            _paper_points(axes, rows, key)
        if original[key]:
            axes.axhline(original[key], color="0.3", linestyle=":", linewidth=1, label="original")
        axes.set_xlabel("rate [bits per pixel]")
        axes.set_xlim(left=0)
        axes.grid(True, which="major", color="0.9")
    persons.set_ylim(bottom=0)
    persons.set_ylabel("person AP50")
    persons.set_title("(a) persons found")
    faces.set_yscale("log")
    faces.set_ylabel("face AP50 (log)")
    faces.set_title("(b) faces found")
    handles, labels = persons.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure_bytes(figure)


def figure_5(report: Mapping[str, Any]) -> bytes:
    """PNG: encoding and decoding latency on a logarithmic scale, baselines left, ours right.

    Points are means, bars one sample standard deviation, ticks beneath them the minimum.
    """
    rows = [row for row in report["rows"][1:] if row["encode_ms"]["mean"] is not None]
    rows.sort(key=lambda row: bool(row.get("model_id")))
    figure, panels = _subplots(2, (10.5, 4.4))
    names = [row_name(dict(row)) for row in rows]
    for axes, key, title in (
        (panels[0], "encode_ms", "(a) encoding"),
        (panels[1], "decode_ms", "(b) decoding"),
    ):
        for place, row in enumerate(rows):
            colour = OUR_COLOURS[0] if row.get("model_id") else BASELINE_COLOURS[0]
            mean, deviation = row[key]["mean"], row[key]["std"] or 0.0
            below = min(deviation, mean - row[key]["min"])  # never under what was seen
            axes.errorbar(place, mean, [[below], [deviation]], fmt="o", color=colour, capsize=4)
            axes.plot(place, row[key]["min"], "_", color=colour, markersize=12)
            axes.annotate(
                f"{mean:.3g}",
                (place, mean + deviation),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                size=8,
            )
        axes.set_yscale("log")
        axes.margins(y=0.15)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
        axes.set_xlim(-0.6, max(len(names) - 0.2, 0.6))
        axes.set_ylabel("time for an image [ms] (log)")
        axes.set_title(title)
        axes.grid(True, axis="y", which="major", color="0.9")
    return figure_bytes(figure)


def _precision_curves(axes: Any, rows: Sequence[Row], key: str, lowest: float) -> None:
    found = curves(rows)
    baselines = {name: curve for name, (own, curve) in found.items() if not own}
    for index, (method, curve) in enumerate(baselines.items()):
        colour = BASELINE_COLOURS[index % len(BASELINE_COLOURS)]
        _draw(axes, curve, key, lowest, fmt="s-", color=colour, label=_title(method))
        for row in curve:
            _name_point(axes, row, key, lowest, f"{row['preset']}%", colour, (6, -3))
    ours = {name: curve for name, (own, curve) in found.items() if own}
    for index, (name, curve) in enumerate(ours.items()):
        colour = OUR_COLOURS[index % len(OUR_COLOURS)]
        several = name != OURS
        label = f"ours, {name}" if several else OURS
        _draw(axes, curve, key, lowest, fmt="o-" if several else "o", color=colour, label=label)
        for row in curve:
            _name_point(axes, row, key, lowest, row_name(dict(row)), colour, (-5, 5))


def _draw(axes: Any, rows: Sequence[Row], key: str, lowest: float, **style: Any) -> None:
    rows = sorted((row for row in rows if row[key] is not None), key=lambda row: row["bpp_mean"])
    if not rows:
        return
    axes.errorbar(
        [row["bpp_mean"] for row in rows],
        [max(row[key], lowest) for row in rows],
        xerr=[row["bpp_std"] or 0.0 for row in rows],
        capsize=3,
        markersize=6,
        linewidth=1.4,
        elinewidth=0.8,
        zorder=4,  # over the texts and their halos
        **style,
    )


def _name_point(
    axes: Any,
    row: Row,
    key: str,
    lowest: float,
    name: str,
    colour: str,
    offset: tuple[float, float],
) -> None:
    if row[key] is None:
        return
    if row[key] < lowest:
        name += " (AP 0)"
    _write(axes, (row["bpp_mean"], max(row[key], lowest)), name, colour, offset)


def _write(
    axes: Any, place: tuple[float, float], text: str, colour: str, offset: tuple[float, float]
) -> None:
    """Text beside a point, left or right of it by the sign of the offset, readable over lines."""
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text,
        place,
        xytext=offset,
        textcoords="offset points",
        ha="right" if offset[0] < 0 else "left",
        size=8,
        color=colour,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def _paper_points(axes: Any, rows: Sequence[Row], key: str) -> None:
    labelled = False
    for found in dict.fromkeys(same for row in rows if (same := key_of(dict(row)))):
        point = FIGURE_4.get(found)
        value = None if point is None else getattr(point, key)
        if point is None or value is None or point.bpp is None:
            continue
        label = "the paper's" if not labelled else None
        axes.plot(
            point.bpp, value, "D", markerfacecolor="none", color="0.2", linestyle="", label=label
        )
        _write(
            axes, (point.bpp, value), f"paper: {' '.join(ROWS[found])}".strip(), "0.2", (-6, -10)
        )
        labelled = True


def _title(method: str) -> str:
    return method.upper().replace("@", ", speed ")


def _subplots(columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    figure = new_figure(size)
    return figure, figure.subplots(1, columns)
