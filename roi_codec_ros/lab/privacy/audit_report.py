# SPDX-License-Identifier: Apache-2.0
"""What the audit counted, as JSON: counts of faces and heads, not rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from roi_codec_ros.common.tables import NOTHING, text_table
from roi_codec_ros.lab.privacy.audit import (
    AGREED,
    ANY,
    BY_CHANCE,
    NOT_PROTECTED,
    PLAIN,
    SOURCES,
    UNION,
    Audit,
    head_size_bins,
)
from roi_codec_ros.lab.privacy.leakage import HeadBits, fano_table
from roi_codec_ros.lab.privacy.region_recall import recall_text
from roi_codec_ros.lab.privacy.versions import (
    INVERSIONS,
    NEGATED,
    Attacker,
    attacker_source,
)


def audit_report(
    result: Audit,
    detectors: Sequence[str],
    *,
    attackers: Sequence[Attacker] = (),
    attack_minutes: float | None = None,
    reid: dict[str, Any] | None = None,
    left_out: dict[str, str] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """The audit as JSON.

    attack_minutes: the time that each attacker was trained for; reid: what `reid_report` gives.
    left_out: the sections that are not there (`attacker`, `reid`), and why. `about`: what was
    audited on what, first in the report.
    """
    names = [*detectors, UNION]
    columns = _columns(result)
    counts = {
        name: {
            column: result.faces[key][name]
            for column, key in columns.items()
            if name in result.faces[key]
        }
        for name in [*names, AGREED]
    }
    return {
        **about,
        "images": result.images,
        "failures": [{"image": f.image, "reason": f.reason} for f in result.failures],
        "bits_per_pixel": {
            name: float(np.mean(rates)) for name, rates in result.bits_per_pixel.items()
        },
        "detectors": {name: counts[name] for name in detectors},
        "union": counts[UNION],
        "agreed_by_two": counts[AGREED],
        "heads": _heads_report(result, names, columns),
        "same_inversions_on": {
            source: {
                inversion: {name: result.faces[key][name] for name in names if name in faces}
                for key, faces in result.faces.items()
                for where, inversion in [key]
                if where == source and inversion != PLAIN
            }
            for source in SOURCES
            if source != "decoded" and (source, ANY) in result.faces
        },
        "regions": result.regions.report() if result.regions else None,
        "attacker": _attacker_report(result, attackers, attack_minutes, reid),
        "reid": reid,
        "left_out": left_out or {},
        "bits_per_head": _bits_report(result.bits),
        "not_protected": list(NOT_PROTECTED),
    }


def summary_text(report: dict[str, Any]) -> str:
    """The counts of a report as tables for the terminal."""
    counts = {**report["detectors"], UNION: report["union"]}
    rows = [
        [source, *(counts[name].get(source, NOTHING) for name in counts)]
        for source in report["union"]
    ]
    parts = [text_table(["", *counts], rows)]
    parts.append(_heads_line(report["heads"]))
    if report["regions"]:
        parts.append(recall_text(report["regions"]))
    bits = report["bits_per_head"]
    if bits["heads"]:
        parts.append(
            f"bits per head: median {bits['median']:.0f}, p95 {bits['p95']:.0f}; "
            f"of the map {bits['map']['median']:.0f}; {bits['wholly_hidden']['heads']} of "
            f"{bits['heads']} heads are wholly hidden"
        )
    reid = report["reid"]
    if reid:
        parts.append(
            f"{reid['embedder']}, {reid['probes']} probes of {reid['identities']} identities, "
            f"by chance {reid['chance']:.1f}"
        )
        rows = [
            [source, hits["rank1"], hits["tar_at_far_1e3"]]
            for source, hits in reid.items()
            if isinstance(hits, dict) and "rank1" in hits
        ]
        parts.append(text_table(["", "rank-1", "accepted at FAR 0.001"], rows))
    return "\n".join(parts)


def _heads_line(heads: dict[str, Any]) -> str:
    """Of the annotated heads, those that any detector finds."""
    found = heads["found"][UNION]
    before = found["original"]

    def count(source: str) -> str:
        share = f" ({100 * found[source] / before:.1f} %)" if before else ""
        return f"{source} {found[source]}{share}"

    return (
        f"annotated heads that any detector finds, of {heads['annotated']}: original {before}, "
        + ", ".join(count(source) for source in ("decoded", NEGATED) if source in found)
    )


def _attacker_report(
    result: Audit,
    attackers: Sequence[Attacker],
    minutes: float | None,
    reid: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """steps and pairs: of the attacker that had the fewest."""
    if not attackers:
        return None
    report: dict[str, Any] = {}
    for attacker in attackers:
        source = attacker_source(attacker.name)
        recognised = (reid or {}).get(source, {})
        report[attacker.name] = {
            "union": result.faces[source, PLAIN][UNION],
            "rank1": recognised.get("rank1"),
            "tar_at_far_1e3": recognised.get("tar_at_far_1e3"),
            "head_psnr_db": _psnr_db(result.head_errors[source]),
            "steps": attacker.steps,
            "pairs": attacker.pairs,
        }
    return {
        **report,
        "minutes": minutes,
        "steps": min(attacker.steps for attacker in attackers),
        "pairs": min(attacker.pairs for attacker in attackers),
        "head_psnr_db": {
            source: _psnr_db(result.head_errors[source])
            for source in ("jpeg", "erased", "decoded")
        },
    }


def _psnr_db(errors: Sequence[float]) -> float | None:
    """Of the mean squared error over heads, each head counting the same."""
    mean = float(np.mean(errors)) if errors else 0.0
    return -10.0 * math.log10(mean) if mean > 0.0 else None


def _columns(result: Audit) -> dict[str, tuple[str, str]]:
    """The main table: the sources, the inversions of decoded images, then the attackers."""
    sources = {source: (source, PLAIN) for source in SOURCES}
    inversions = {name: ("decoded", name) for name in (*INVERSIONS, ANY)}
    attackers = {source: (source, kind) for source, kind in result.faces if source not in SOURCES}
    columns = sources | inversions | attackers
    return {name: key for name, key in columns.items() if key in result.faces}


def _heads_report(
    result: Audit, names: Sequence[str], columns: dict[str, tuple[str, str]]
) -> dict[str, Any]:
    sizes = head_size_bins()
    return {
        "annotated": sum(result.heads.values()),
        "annotated_by_size_px": {size: result.heads[size] for size in sizes},
        "found": {
            name: {
                column: sum(result.found[key][name, size] for size in sizes)
                for column, key in columns.items()
                if name in result.faces[key]
            }
            for name in names
        },
        "found_by_size_px": {
            name: {
                column: {size: result.found[key][name, size] for size in sizes}
                for column, key in columns.items()
                if name in result.faces[key]
            }
            for name in names
        },
        BY_CHANCE: {
            "heads": result.chance_heads,
            **{column: result.by_chance[key] for column, key in columns.items()},
        },
    }


def _bits_report(measured: Sequence[HeadBits]) -> dict[str, Any]:
    touching = [bits for image in measured for bits in image.touching]
    if not touching:
        return {"heads": 0, "median": None, "p95": None}
    own = [bits for image in measured for bits in image.own]
    of_map = [bits for image in measured for bits in image.of_map]
    inside = [bits for bits, symbols in zip(of_map, own, strict=True) if not symbols]
    changed = [bits for image in measured for bits in image.changed]
    mean = float(np.mean(touching))
    return {
        **_spread(touching),
        "mean": mean,
        "heads": len(touching),
        "own_blocks": _spread(own),
        "map": _spread(of_map),
        "wholly_hidden": {**_spread(inside), "heads": len(inside)},
        "changed": {**_spread(changed), "heads": len(changed)},
        "fano": fano_table(mean),
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"median": None, "p95": None}
    return {"median": float(np.median(values)), "p95": float(np.percentile(values, 95))}
