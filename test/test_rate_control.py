# SPDX-License-Identifier: Apache-2.0
"""A bit rate is held by the quality, on made-up scenes and on a real film."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from roi_codec_ros.codec import UsageError, load_encoder
from roi_codec_ros.codec.rate_control import RateControl

TARGET_KBIT_S = 300.0


def played(
    scene: Callable[[float], float], hz: float, octaves_per_level: float, noise: float
) -> np.ndarray:
    """kbit of each frame of 36 s; scene: of a frame at quality 0, at a time."""
    rng = np.random.default_rng(1)
    control = RateControl(TARGET_KBIT_S, 0.0, -16.0, 16.0)
    taken = []
    for index in range(int(36 * hz)):
        quality = control.quality(index / hz)
        breath = np.exp(noise * rng.standard_normal())
        bits = 1e3 * scene(index / hz) * 2 ** (octaves_per_level * quality) * breath
        control.coded(bits)
        taken.append(bits / 1e3)
    return np.array(taken)


@pytest.mark.parametrize("hz", [5.0, 10.0, 30.0])
@pytest.mark.parametrize("octaves_per_level", [0.15, 0.2, 0.28])
@pytest.mark.parametrize("noise", [0.0, 0.15])
def test_a_second_after_a_cut_the_mean_of_five_is_within_a_tenth(hz, octaves_per_level, noise):
    kbit = played(
        lambda t: (300.0 if t < 12 else 800.0 if t < 24 else 180.0) / hz,
        hz,
        octaves_per_level,
        noise,
    )

    for cut_s in (0, 12, 24):
        for begin_s in np.arange(1.0, 6.0, 1.0):
            first = int((cut_s + begin_s) * hz)
            mean = kbit[first : first + int(5 * hz)].sum() / 5
            assert mean == pytest.approx(TARGET_KBIT_S, rel=0.1)


def test_a_still_scene_saves_up_no_burst():
    kbit = played(lambda t: 0.01 if t < 20 else 30.0, 10.0, 0.2, 0.0)

    assert kbit[210:260].sum() / 5 < 1.1 * TARGET_KBIT_S


def test_stamps_that_stand_still_or_go_back_do_no_harm():
    control = RateControl(TARGET_KBIT_S, 2.0, -16.0, 16.0)
    for stamp_s in (5.0, 5.0, 4.0, 4.1, 1e9):
        assert -16.0 <= control.quality(stamp_s) <= 16.0
        control.coded(3e4)


def test_a_real_film_is_held_at_a_rate():
    pytest.importorskip("onnxruntime")
    astronaut = pytest.importorskip("skimage.data").astronaut()
    encoder = load_encoder("fast", threads=1, target_kbit_s=150.0)

    kbit = [
        8e-3 * len(encoder.encode(astronaut[:256, i : i + 256], stamp_s=0.1 * i).data)
        for i in range(60)
    ]

    assert sum(kbit[10:]) / 5 == pytest.approx(150.0, rel=0.1)
    assert encoder.quality != 0.0
    encoder.target_kbit_s = 0.0
    assert encoder.quality == 0.0


def test_rates_that_there_are_none_of_are_refused():
    encoder = load_encoder("paper-128-2", backend="torch")

    with pytest.raises(UsageError, match="expected a bit rate of 0 kbit/s or more, found -1"):
        encoder.target_kbit_s = -1.0
    with pytest.raises(UsageError, match="expected no bit rate for paper-128-2"):
        encoder.target_kbit_s = 100.0
