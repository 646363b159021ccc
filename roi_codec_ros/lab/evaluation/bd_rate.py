# SPDX-License-Identifier: Apache-2.0
"""Bjøntegaard's delta rate with average precision in the place of distortion.

The mean difference in bits, in percent, between two codecs at the same person AP, over the range
of AP that both reach. Negative: the codec under test needs fewer bits than the anchor.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.plugins import optional

FEWEST_POINTS = 3
OURS = "ours"
METRIC = "person_ap50"

Row = Mapping[str, Any]
Curve = list[tuple[float, float]]  # bits per pixel and AP, by rising rate


def bd_rates(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Ours against each baseline; JSON types only. `curves` says which curves are ours.

    Each entry has `test`, `anchor`, `metric`, `percent`, `overlap` (of the AP range of both
    together, 0 to 1) and `reason`; percent and overlap are None where `reason` says why.
    """
    found = curves(rows[1:])
    ours, anchors = (
        {name: _points(curve) for name, (own, curve) in found.items() if own is wanted}
        for wanted in (True, False)
    )
    return [
        _entry(name, curve, anchor, points)
        for name, curve in ours.items()
        for anchor, points in anchors.items()
    ]


def bd_rate(anchor: Curve, test: Curve) -> tuple[float, float]:
    """Percent of bits, and the overlap in AP. Raises RoiCodecError, which says why there is none.

    By piecewise cubic interpolation of the logarithm of the rate (pchip).
    """
    for name, curve in (("anchor", anchor), ("codec under test", test)):
        if len(curve) < FEWEST_POINTS:
            raise RoiCodecError(
                f"expected {FEWEST_POINTS} points of the {name}, found {len(curve)}"
            )
        precision = [ap for _, ap in curve]
        if any(later <= earlier for earlier, later in pairwise(precision)):
            raise RoiCodecError(
                f"expected the AP of the {name} to rise with the rate, found a fall"
            )
    lowest = max(anchor[0][1], test[0][1])
    highest = min(anchor[-1][1], test[-1][1])
    if highest <= lowest:
        raise RoiCodecError("expected APs that both codecs reach, found none")
    span = max(anchor[-1][1], test[-1][1]) - min(anchor[0][1], test[0][1])
    package = optional("bjontegaard", needed_for="the BD-rate", install="pip install bjontegaard")
    with warnings.catch_warnings():  # of a small overlap, which is reported instead
        warnings.simplefilter("ignore")
        percent = package.bd_rate(
            [rate for rate, _ in anchor],
            [ap for _, ap in anchor],
            [rate for rate, _ in test],
            [ap for _, ap in test],
            method="pchip",
            require_matching_points=False,
            min_overlap=0.0,
        )
    return float(percent), (highest - lowest) / span


def curves(rows: Sequence[Row]) -> dict[str, tuple[bool, list[Row]]]:
    """The rows of each curve by its name, and whether it is ours.

    A model that was measured at several qualities is a curve of its own, by its name; models of
    one point each are one curve together, `OURS`.
    """
    presets: dict[str, set[str]] = {}
    for row in rows:
        if row.get("model_id"):
            presets.setdefault(row["method"], set()).add(row["preset"])
    found: dict[str, tuple[bool, list[Row]]] = {}
    for row in rows:
        own = bool(row.get("model_id"))
        name = row["method"]
        if own and len(presets[name]) == 1:
            name = OURS
        found.setdefault(name, (own, []))[1].append(row)
    return found


def _entry(test: str, ours: Curve, name: str, anchor: Curve) -> dict[str, Any]:
    entry = {"test": test, "anchor": name, "metric": METRIC}
    try:
        percent, overlap = bd_rate(anchor, ours)
    except RoiCodecError as error:
        return entry | {"percent": None, "overlap": None, "reason": str(error)}
    return entry | {"percent": percent, "overlap": overlap, "reason": None}


def _points(rows: Sequence[Row]) -> Curve:
    """By rising rate, those of the same rate once (a model on two devices)."""
    return sorted({(row["bpp_mean"], row[METRIC]) for row in rows if row[METRIC] is not None})
