# SPDX-License-Identifier: Apache-2.0
"""The measured part of a model card, taken from a report of `roi-codec evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roi_codec_ros.codec.model_file import Model
from roi_codec_ros.common.errors import RoiCodecError


def with_figures(model: Model, report: Mapping[str, Any]) -> Model:
    """``model`` with the figures from its row of a report in its card; its identity is unchanged.

    The figures record the identity and the networks that were measured (`Model.networks_sha256`).
    Raises RoiCodecError if the report has no row for this model.
    """
    try:
        original, *others = report["rows"]
        own = (model.id.hex(), model.preset.name)  # at the default quality, if measured at several
        row = next((r for r in others if (r.get("model_id"), r["preset"]) == own), None)
        if row is None:
            found = ", ".join(f"{r['method']} {r.get('model_id') or r['preset']}" for r in others)
            raise RoiCodecError(
                f"expected a report with a row of {model.name} {model.id.hex()}, found {found}"
            )
        figures = {
            "measured_id": model.id.hex(),
            "networks_sha256": model.networks_sha256.hex(),
            "dataset": report["dataset"],
            "split": report["split"],
            "images": report["images"],
            "detector": report["detector"],
            "face_detector": report["face_detector"],
            "bpp": round(row["bpp_mean"], 4),
            "psnr_db": round(row["psnr_mean"], 2),
            "person_ap50": round(row["person_ap50"], 4),
            "original_person_ap50": round(original["person_ap50"], 4),
            "faces": row["faces_found"],
            "original_faces": original["faces_found"],
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RoiCodecError(
            f"expected a report that roi-codec evaluate wrote, found one without {error}"
        ) from error
    return model.with_measured(figures=figures)
