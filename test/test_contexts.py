# SPDX-License-Identifier: Apache-2.0
"""Tables by context, counted on latents: what they cost, and where nothing was counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roi_codec_ros.codec import EntropyTables, RansCoder, RoiCodecError, load_model
from roi_codec_ros.codec.models import find_model, untrained_model
from roi_codec_ros.lab.training.contexts import BOUNDS, latents_of, with_contexts

data = pytest.importorskip("skimage.data")
cv2 = pytest.importorskip("cv2")


def field(seed: int) -> np.ndarray:
    """Two channels [2, 24, 40]: one smooth from place to place, one without memory."""
    rng = np.random.default_rng(seed)
    smooth = np.zeros((24, 40))
    for y, x in np.ndindex(smooth.shape):
        around = 0.5 * ((smooth[y - 1, x] if y else 0) + (smooth[y, x - 1] if x else 0))
        smooth[y, x] = 0.97 * around + rng.normal(0, 1.2)
    return np.rint(np.stack([smooth, rng.normal(0, 0.4, (24, 40))])).astype(np.int16)


def test_what_is_known_of_neighbours_saves_bits_where_there_is_something_to_know() -> None:
    tables = EntropyTables.laplace(2, 1.0)
    counted = with_contexts(tables, [field(seed) for seed in range(40)])
    assert (counted.channels, counted.contexts) == (2, len(BOUNDS) + 1)
    unseen = [field(seed) for seed in range(100, 110)]
    costs = [
        sum(known.code_length_bits(f).sum(axis=(1, 2)) for f in unseen)
        for known in (tables, counted)
    ]
    places = unseen[0][0].size * len(unseen)
    assert costs[1][0] < 0.9 * costs[0][0]
    # Of what has no memory no code is shorter than the entropy, and this one is hardly longer.
    _, occurs = np.unique([f[1] for f in unseen], return_counts=True)
    entropy = -(occurs * np.log2(occurs / places)).sum()
    assert entropy < costs[1][1] < 1.03 * entropy
    coded = RansCoder(counted).encode(unseen[0])
    assert coded[0] == b""
    assert 8 * len(coded[1]) < 1.02 * counted.code_length_bits(unseen[0]).sum() + 8 * 40
    np.testing.assert_array_equal(RansCoder(counted).decode(*coded, 24, 40)[0], unseen[0])


def test_a_context_that_was_never_seen_is_coded_as_its_channel() -> None:
    tables = EntropyTables.laplace(2, 1.0)
    counted = with_contexts(tables, [np.zeros((2, 8, 8), np.int16)])
    latent = np.zeros((2, 1, 2), np.int16)
    latent[:, 0, 0] = 12  # so that the second stands in the context of 24 and more
    bits = counted.code_length_bits(latent)
    # 64 zeros counted beside what 100 symbols would say: P(0) rises, nothing falls to nothing.
    share = float(np.exp2(-tables.code_length_bits(np.zeros((2, 1, 1), np.int16))[0, 0, 0]))
    expected = (64 + 100 * share) / 164
    assert np.exp2(-bits[0, 0, 1]) == pytest.approx(expected, rel=1e-3)
    assert np.isfinite(bits).all()


def test_nothing_to_count_and_tables_counted_already_are_refused() -> None:
    tables = EntropyTables.laplace(2)
    with pytest.raises(RoiCodecError, match=r"expected photographs .*found none"):
        with_contexts(tables, [])
    stepped = EntropyTables(
        tables.cdf, tables.lengths, tables.offsets, tables.bounds, [1, 1], [1, 2]
    )
    for counted, found in (
        (with_contexts(tables, [field(0)]), "13, 1 and 1"),
        (stepped, "1, 2 and 1"),
    ):
        with pytest.raises(RoiCodecError, match=f"expected tables without .* found {found}"):
            with_contexts(counted, [field(0)])


def test_of_a_shipped_model_a_photograph_takes_fewer_bits_by_context() -> None:
    model = load_model(find_model("paper-128-2"))
    (latent,) = latents_of(model, [Path(data.__file__).parent / "astronaut.png"])
    assert model.tables.contexts == len(BOUNDS) + 1
    # Tables made for this very photograph, but blind to what is around, take more.
    blind = 0.0
    for plane in latent:
        _, occurs = np.unique(plane, return_counts=True)
        blind -= (occurs * np.log2(occurs / plane.size)).sum()
    assert model.tables.code_length_bits(latent).sum() < 0.95 * blind


def test_large_photographs_are_counted_at_a_cameras_size(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.full((400, 2560, 3), 90, np.uint8))
    (latent,) = latents_of(untrained_model("paper-128-2"), [path])
    assert latent.shape == (128, 13, 80)
