# SPDX-License-Identifier: Apache-2.0
"""Model cards are filled from measurement, and only from a measurement of that very model."""

from __future__ import annotations

from typing import Any

import pytest

from roi_codec_ros.codec import Model, RoiCodecError, untrained_model
from roi_codec_ros.codec.card import with_figures

MODEL = untrained_model("nano")


def report(model_id: str) -> dict[str, Any]:
    original = {"method": "original", "preset": "", "person_ap50": 0.72, "faces_found": 411}
    row = {
        "method": "shed",
        "preset": "nano",
        "model_id": model_id,
        "bpp_mean": 0.19876,
        "psnr_mean": 22.123,
        "person_ap50": 0.45678,
        "faces_found": 12,
    }
    return {
        "dataset": "data",
        "split": "val",
        "images": 213,
        "detector": "person.pt",
        "face_detector": "mtcnn",
        "rows": [original, row],
    }


def test_the_card_holds_what_was_measured() -> None:
    carded = with_figures(MODEL, report(MODEL.id.hex()))
    figures = carded.header["figures"]
    assert figures["bpp"] == 0.1988
    assert figures["person_ap50"] == 0.4568
    assert figures["original_person_ap50"] == 0.72
    assert (figures["faces"], figures["original_faces"]) == (12, 411)
    assert figures["measured_id"] == MODEL.id.hex() == carded.id.hex()
    assert figures["networks_sha256"] == MODEL.networks_sha256.hex()


def test_of_several_qualities_the_models_own_counts() -> None:
    several = report(MODEL.id.hex())
    coarse = {**several["rows"][1], "preset": "nano -4", "bpp_mean": 0.1}
    several["rows"].insert(1, coarse)
    assert with_figures(MODEL, several).figures["bpp"] == 0.1988


def test_figures_of_other_networks_are_not_a_models_own() -> None:
    carded = with_figures(MODEL, report(MODEL.id.hex()))
    assert carded.figures["faces"] == 12
    tensors = {**MODEL.tensors, "latent_mean": MODEL.tensors["latent_mean"] + 1}
    retrained = Model.build("shed", MODEL.preset, tensors, MODEL.tables, carded.header)
    assert retrained.header["figures"]["faces"] == 12
    assert retrained.figures == {}
    assert retrained.faces_left is None
    # An exported encoder carries the figures without the networks that they are of.
    assert Model.from_text(carded.to_text()).faces_left == carded.faces_left
    assert Model.from_text(retrained.to_text()).faces_left is None


def test_a_report_of_another_model_is_refused() -> None:
    with pytest.raises(RoiCodecError, match=r"expected a report with a row of .*found shed 00ff"):
        with_figures(MODEL, report("00ff"))


@pytest.mark.parametrize("broken", [{}, {"rows": []}, {"rows": [{}]}, []])
def test_what_is_no_report_is_refused(broken: Any) -> None:
    with pytest.raises(RoiCodecError, match="expected a report"):
        with_figures(MODEL, broken)


def test_the_share_of_faces_left_is_the_cards() -> None:
    assert MODEL.faces_left is None
    assert with_figures(MODEL, report(MODEL.id.hex())).faces_left == pytest.approx(12 / 411)
    assert MODEL.with_card(figures={"faces": "many"}).faces_left is None
