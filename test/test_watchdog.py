# SPDX-License-Identifier: Apache-2.0
"""What a watchdog of a robot misses: silence, age, and cameras that are blind."""

from __future__ import annotations

import pytest

from roi_codec_ros.stream.missing import CamerasWatched, Watched


@pytest.mark.parametrize(
    ("now_s", "age_s", "sentence"),
    [
        (10.9, 0.2, ""),
        (11.1, 0.2, "nothing on persons/cloud for 1.1 s"),
        (10.1, 1.5, "what comes on persons/cloud is 1.5 s old"),
        (10.1, -1.5, "what comes on persons/cloud is 1.5 s ahead of this clock"),
    ],
)
def test_silence_and_age_are_missed(now_s: float, age_s: float, sentence: str) -> None:
    cloud = Watched("persons/cloud", timeout_s=1.0)
    assert cloud.complaint(9.0) == "nothing on persons/cloud yet"

    cloud.heard(10.0, age_s)

    assert cloud.complaint(now_s) == sentence


@pytest.mark.parametrize(
    ("required", "sentence"),
    [
        ([""], ""),
        (["front"], ""),
        (["back"], "back: dark"),
        (["left", "back"], "left: not known; back: dark"),
        (["*"], "back: dark"),
        (["*", "left"], "back: dark; left: not known"),
    ],
)
def test_cameras_that_are_needed_are_missed(required: list[str], sentence: str) -> None:
    cameras = CamerasWatched(required)

    cameras.heard({"front": "", "back": "dark"})

    assert cameras.complaint() == sentence
