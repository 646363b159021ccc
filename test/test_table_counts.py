# SPDX-License-Identifier: Apache-2.0
"""Predictors fitted and tables counted on latents: what they save."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roi_codec_ros.codec import EntropyTables, RansCoder, RoiCodecError, load_model
from roi_codec_ros.codec.models import find_model, untrained_model
from roi_codec_ros.codec.spatial import code_length_bits
from roi_codec_ros.lab.training.freeze import latents_of, network_tables
from roi_codec_ros.lab.training.table_counts import BOUNDS, Latent

data = pytest.importorskip("skimage.data")
cv2 = pytest.importorskip("cv2")


def field(seed: int) -> Latent:
    """Two channels [2, 24, 40]: one smooth from place to place, one without memory."""
    rng = np.random.default_rng(seed)
    smooth = np.zeros((24, 40))
    for y, x in np.ndindex(smooth.shape):
        around = 0.5 * ((smooth[y - 1, x] if y else 0) + (smooth[y, x - 1] if x else 0))
        smooth[y, x] = 0.97 * around + rng.normal(0, 1.2)
    symbols = np.rint(np.stack([smooth, rng.normal(0, 0.4, (24, 40))])).astype(np.int16)
    return Latent(symbols)


def test_what_is_known_of_neighbours_saves_bits_where_there_is_something_to_know() -> None:
    plain = EntropyTables.laplace(2, 1.0)
    counted = network_tables([field(seed) for seed in range(40)], 2)
    assert (counted.channels, counted.predicted, counted.contexts) == (2, 2, len(BOUNDS) + 1)
    smooth = {tuple(row[:3]): row[3] for row in counted.predictor.tolist()}
    assert smooth[0, 1, 0] == pytest.approx(0.485 * 1024, rel=0.1)
    assert smooth[0, 2, 0] == pytest.approx(0.485 * 1024, rel=0.1)
    unseen = [field(seed).symbols for seed in range(100, 110)]
    costs = [
        sum(code_length_bits(tables, f).sum(axis=(1, 2)) for f in unseen)
        for tables in (plain, counted)
    ]
    places = unseen[0][0].size * len(unseen)
    assert costs[1][0] < 0.85 * costs[0][0]
    # Of what has no memory no code is shorter than the entropy, and this one is hardly longer.
    _, occurs = np.unique([f[1] for f in unseen], return_counts=True)
    entropy = -(occurs * np.log2(occurs / places)).sum()
    assert 0.98 * entropy < costs[1][1] < 1.04 * entropy
    coded = RansCoder(counted).encode(unseen[0])
    assert coded[0] == b""
    assert 8 * len(coded[1]) < 1.02 * code_length_bits(counted, unseen[0]).sum() + 8 * 40
    np.testing.assert_array_equal(RansCoder(counted).decode(*coded, 24, 40)[0], unseen[0])


def test_weights_are_fitted_to_what_tells_of_a_symbol() -> None:
    """Channel 9 is as large as channel 1 was; nothing else tells anything of either."""
    rng = np.random.default_rng(2)
    latents = []
    for _ in range(20):
        symbols = rng.integers(-1, 2, (10, 12, 12)).astype(np.int16)
        symbols[9] = 3 * symbols[1] * rng.choice([-1, 1], symbols[1].shape)
        latents.append(Latent(symbols))
    counted = network_tables(latents, 10)
    weights = counted.activity_weights
    assert weights[9].argmax() == 25  # the second of the group before
    assert weights[9, 25] > 5 * np.delete(weights[9], 25).max()
    assert not weights[0, :40].any(), "nothing is decoded before the first channel"
    bits = code_length_bits(counted, latents[0].symbols).sum(axis=(1, 2))
    assert bits[9] < 0.75 * bits[1], "only the sign is left to code"


def test_what_was_never_seen_can_be_coded() -> None:
    counted = network_tables([Latent(np.zeros((2, 8, 8), np.int16))], 2)
    latent = np.zeros((2, 1, 3), np.int16)
    latent[:, 0, 0], latent[:, 0, 1] = 12, -1000
    bits = code_length_bits(counted, latent)
    assert np.isfinite(bits).all()
    assert bits[:, 0, 0].max() > 8  # of 64 zeros alone a 12 is a surprise
    np.testing.assert_array_equal(
        RansCoder(counted).decode(*RansCoder(counted).encode(latent), 1, 3)[0], latent
    )


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(RoiCodecError, match=r"expected photographs .*found none"):
        network_tables([], 2)


@pytest.mark.parametrize("name", ["paper-128-2", "fast"])
def test_of_a_shipped_model_a_photograph_takes_fewer_bits_by_context(name: str) -> None:
    model = load_model(find_model(name))
    assert model.tables.contexts == len(BOUNDS) + 1
    if model.codes_blocks:
        assert model.tables.predicted == 16
        return
    (latent,) = latents_of(model, [Path(data.__file__).parent / "astronaut.png"])
    # Tables made for this very photograph, but blind to what is around, take more.
    blind = 0.0
    for plane in latent.symbols:
        _, occurs = np.unique(plane, return_counts=True)
        blind -= (occurs * np.log2(occurs / plane.size)).sum()
    assert code_length_bits(model.tables, latent.symbols).sum() < 0.95 * blind


def test_large_photographs_are_counted_at_a_cameras_size(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.full((400, 2560, 3), 90, np.uint8))
    (latent,) = latents_of(untrained_model("paper-128-2"), [path])
    assert latent.symbols.shape == (128, 13, 80)
