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
    """Ours (all models together, one curve) against each baseline; JSON types only.

    Each entry has `test`, `anchor`, `metric`, `percent`, `overlap` (of the AP range of both
    together, 0 to 1) and `reason`; percent and overlap are None where `reason` says why.
    """
    curves = _curves(rows)
    ours = curves.pop(OURS, None)
    if ours is None:
        return []
    return [_entry(ours, anchor, curve) for anchor, curve in curves.items()]


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


def _entry(ours: Curve, name: str, anchor: Curve) -> dict[str, Any]:
    entry = {"test": OURS, "anchor": name, "metric": METRIC}
    try:
        percent, overlap = bd_rate(anchor, ours)
    except RoiCodecError as error:
        return entry | {"percent": None, "overlap": None, "reason": str(error)}
    return entry | {"percent": percent, "overlap": overlap, "reason": None}


def _curves(rows: Sequence[Row]) -> dict[str, Curve]:
    """Points by codec, those of the same rate once (a model on two devices)."""
    points: dict[str, set[tuple[float, float]]] = {}
    for row in rows[1:]:
        if row[METRIC] is not None:
            name = OURS if row.get("model_id") else row["method"]
            points.setdefault(name, set()).add((row["bpp_mean"], row[METRIC]))
    return {name: sorted(found) for name, found in points.items()}
