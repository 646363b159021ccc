# SPDX-License-Identifier: Apache-2.0
"""A report as Markdown: the paper's Tables I to III, then what it has no table for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from roi_codec_ros.common.tables import NOTHING, number
from roi_codec_ros.lab.evaluation.distortion import REGIONS
from roi_codec_ros.lab.evaluation.paper import (
    DGX_STATION,
    FACES,
    FIGURE_4,
    JETSON_NANO,
    ROWS,
    Key,
    PaperLatency,
    PaperPoint,
    key_of,
)
from roi_codec_ros.lab.evaluation.rows import row_name

Row = Mapping[str, Any]


def format_report(report: Mapping[str, Any]) -> str:
    """All tables, side by side with the paper's numbers where `crowdhuman_val` is set."""
    rows = report["rows"]
    paper = bool(report.get("crowdhuman_val"))
    settings = report["settings"]
    machine = report["machine"]
    parts = [
        f"{report['images']} images of {report['dataset']}, split {report['split']}; persons by "
        f"{report['detector']}, faces by {report['face_detector']}; measured on "
        f"{machine.get('processor', 'an unknown processor')}, {machine.get('cores', '?')} cores.",
        ""
        if paper
        else "The paper's own numbers are of CrowdHuman's validation set, not of this.",
        "### Rate and average precision (Fig. 4)",
        _precision(rows, paper),
        "### Table I: true and false positive face detections at confidence 0.25",
        _faces(rows, paper),
        "### Tables II and III: encoding latency",
        _latency(rows, "encode_ms", paper) if settings["timed"] else "Not measured.",
        "### Decoding latency",
        _latency(rows, "decode_ms", False) if settings["timed"] else "Not measured.",
        "### Distortion",
        _distortion(rows),
        "### BD-rate on person AP",
        *(_bd_line(entry) for entry in report.get("bd_rate", ())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _precision(rows: Sequence[Row], paper: bool) -> str:
    header = ["Method", "bpp", "person AP50", "at 0.25", "TP", "FP", "face AP50", "at 0.25"]
    body = [
        [
            row_name(dict(row)),
            _plus_minus(row["bpp_mean"], row["bpp_std"], ".3f"),
            number(row["person_ap50"], ".3f"),
            number(row["person_ap50_conf025"], ".3f"),
            str(row["person_tp_conf025"]),
            str(row["person_fp_conf025"]),
            number(row["face_ap50"], ".4f"),
            number(row["face_ap50_conf025"], ".4f"),
        ]
        for row in rows
    ]
    if paper:
        header += ["paper: bpp", "person AP", "face AP"]
        for cells, row in zip(body, rows, strict=True):
            point = FIGURE_4.get(_key(row), PaperPoint(None, None, None))
            cells += [
                number(point.bpp, ".2f"),
                number(point.person_ap50, ".2f"),
                number(point.face_ap50, ".4f"),
            ]
    return _table(header, body)


def _faces(rows: Sequence[Row], paper: bool) -> str:
    header = ["Method", "Preset", "TP", "FP"] + (["paper: TP", "FP"] if paper else [])
    body = []
    for row in rows:
        cells = [*_names(row), str(row["face_tp_conf025"]), str(row["face_fp_conf025"])]
        if paper:
            cells += [str(count) for count in FACES.get(_key(row), (NOTHING, NOTHING))]
        body.append(cells)
    return _table(header, body)


def _latency(rows: Sequence[Row], key: str, paper: bool) -> str:
    header = ["Method", "Preset", "t̄ ± s [ms]", "min t [ms]"]
    references = {"Jetson Nano": JETSON_NANO, "DGX station": DGX_STATION} if paper else {}
    header += [f"paper, {name}: t̄ ± s [ms]" for name in references]
    body = []
    for row in rows:
        figures = row[key]
        if figures["mean"] is None:
            continue
        method, preset = _names(row)
        unit = _unit(row)
        cells = [method, preset if not row.get("model_id") else f"{preset} {unit}".strip()]
        cells += [
            _plus_minus(figures["mean"], figures["std"], ".3g"),
            number(figures["min"], ".3g"),
        ]
        for reference in references.values():
            found = reference.get((_key(row), unit))
            cells.append(_paper_latency(found))
        body.append(cells)
    return _table(header, body)


def _distortion(rows: Sequence[Row]) -> str:
    header = ["Method", "PSNR [dB]", *REGIONS, "persons shown", "MS-SSIM", *REGIONS]
    body = [
        [
            row_name(dict(row)),
            number(row["psnr_mean"], ".2f"),
            *(number(row["psnr_regions"][region], ".2f") for region in REGIONS),
            number(row["psnr_persons_shown"], ".2f"),
            number(row["ms_ssim_mean"], ".4f"),
            *(number(row["ms_ssim_regions"][region], ".4f") for region in REGIONS),
        ]
        for row in rows[1:]
    ]
    return _table(header, body)


def _bd_line(entry: Mapping[str, Any]) -> str:
    pair = f"{entry['test']} against {entry['anchor']}: "
    if entry["percent"] is None:
        return pair + f"none, {entry['reason']}"
    return pair + f"{entry['percent']:+.1f} % bits, over {entry['overlap']:.0%} of the AP range"


def _names(row: Row) -> tuple[str, str]:
    key = key_of(dict(row))
    if key is None:
        return str(row["method"]), str(row["preset"])
    method, preset = ROWS[key]
    return method, preset


def _key(row: Row) -> Key:
    return key_of(dict(row)) or ("", "")


def _unit(row: Row) -> str:
    return "GPU" if str(row.get("device", "cpu")).startswith("cuda") else "CPU"


def _paper_latency(latency: PaperLatency | None) -> str:
    return NOTHING if latency is None else f"{latency.mean:g} ± {latency.std:g}"


def _plus_minus(mean: float | None, std: float | None, form: str) -> str:
    return number(mean, form) + ("" if std is None else f" ± {std:{form}}")


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *body])
