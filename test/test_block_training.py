# SPDX-License-Identifier: Apache-2.0
"""What a block codec's synthesis is taught: soft backgrounds, sharp persons, nothing of a head."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from roi_codec_ros.codec.ladder import LEVELS, SMOOTH_FROM, SMOOTH_WHOLLY
from roi_codec_ros.common.graph_runtime import find_graph, read_graph
from roi_codec_ros.regions import Regions, Thresholds, hidden_blocks, paint_over
from roi_codec_ros.regions.finder import Faces, open_regions

torch = pytest.importorskip("torch")

from roi_codec_ros.codec.networks import BlockSynthesis  # noqa: E402
from roi_codec_ros.lab.training.block_batches import (  # noqa: E402
    BlockBatch,
    BlockBatches,
    StepSettings,
)
from roi_codec_ros.lab.training.face_likeness import FaceLikeness  # noqa: E402
from roi_codec_ros.lab.training.region_model import stored_arrays  # noqa: E402

HEAD = np.full((3, 3, 3), (200, 100, 50), np.float32)
HEAD_BOX = np.array([[192.0, 32.0, 272.0, 144.0]], np.float32)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()[:256, :400]


class Finder:
    """Says of every picture the same."""

    thresholds = Thresholds()

    def find(self, image: np.ndarray) -> Regions:
        heads = np.zeros((16, 25), np.float32)
        heads[2:9, 12:17] = 1.0
        persons = np.zeros((16, 25), np.float32)
        persons[2:, 9:20] = 1.0
        return Regions(heads, persons, Faces())


def batch(image: np.ndarray, **in_vain: float) -> BlockBatch:
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    drawn = SimpleNamespace(
        images=pixels,
        persons=[torch.tensor([[150.0, 20.0, 320.0, 256.0]])],
        heads=[torch.from_numpy(HEAD_BOX)],
    )
    sampler = SimpleNamespace(batch=lambda size, rng: drawn)
    settings = StepSettings(
        quality_spread=0.0, class_spread=0.0, missed=0.0, **({"in_vain": 0.0} | in_vain)
    )
    batches = BlockBatches(sampler, Finder(), settings, HEAD)  # type: ignore[arg-type]
    return batches.batch(1, np.random.default_rng(0))


def pixels_of(blocks: np.ndarray) -> np.ndarray:
    return blocks.repeat(16, 0).repeat(16, 1)


def activity(image: np.ndarray, where: np.ndarray) -> float:
    """Mean difference of neighbouring pixels."""
    steps = np.abs(np.diff(image.astype(np.float32), axis=1)).mean(2)
    return float(steps[(where[:, 1:] & where[:, :-1])].mean())


def test_what_is_wanted_is_sharp_where_persons_are_and_soft_elsewhere(astronaut):
    made = batch(astronaut)
    wanted, level = made.wanted[0], made.levels[0]
    fine = pixels_of((level < SMOOTH_FROM) & ~made.hidden[0])
    coarse = pixels_of((level >= SMOOTH_WHOLLY) & ~made.hidden[0])

    assert fine.mean() > 0.2 and coarse.mean() > 0.2
    assert np.array_equal(wanted[fine], astronaut[fine])
    assert activity(wanted, coarse) < 0.5 * activity(astronaut, coarse)


def test_what_is_wanted_says_nothing_of_a_head(astronaut):
    hidden = pixels_of(batch(astronaut).hidden[0])
    other = astronaut.copy()
    other[hidden] = np.random.default_rng(1).integers(0, 256, (int(hidden.sum()), 3))

    assert np.array_equal(batch(astronaut).wanted, batch(other).wanted)
    middle = batch(astronaut).wanted[0, 88, 232].astype(int)
    assert np.abs(middle - (200, 100, 50)).max() <= 2, "the constant head"
    corner = batch(astronaut).wanted[0, 36, 196].astype(int)
    assert np.abs(corner - (200, 100, 50)).max() > 20, "an oval"


def test_a_synthesis_that_has_learnt_nothing_shows_no_blocks_where_they_are_coarse():
    torch.manual_seed(0)
    synthesis = BlockSynthesis(32, 8, 0, 8, 0, 8, 0).eval()
    y = torch.zeros(1, 32, 6, 6)
    y[:, 0] = 3 * torch.randn(1, 6, 6)
    nothing = torch.zeros(1, 1, 6, 6)

    def across_borders(levels: torch.Tensor) -> float:
        with torch.no_grad():
            steps = synthesis(y, levels, nothing)[0].diff(dim=2).abs().mean(dim=(0, 1))
        border = torch.zeros(95, dtype=torch.bool)
        border[15::16] = True
        return float(steps[border].mean() / steps[~border].mean())

    assert across_borders(nothing + LEVELS - 1) < 2
    assert across_borders(nothing) > 100, "fine blocks are what was sent of them"


def test_to_coarse_blocks_nothing_is_added_and_to_hidden_ones_nothing_finer_than_four_pixels():
    torch.manual_seed(0)
    synthesis = BlockSynthesis(32, 8, 1, 8, 1, 8, 1).eval()
    y = torch.zeros(1, 32, 6, 6)
    coarse, nothing = torch.full((1, 1, 6, 6), LEVELS - 1.0), torch.zeros(1, 1, 6, 6)
    with torch.no_grad():
        plain = [synthesis(y, coarse, hidden)[0] for hidden in (nothing, nothing + 1)]
        for head in (synthesis.head, synthesis.soft_head):
            head.weight.normal_(0, 1)
        with_heads = [synthesis(y, coarse, hidden)[0] for hidden in (nothing, nothing + 1)]
        fine = synthesis(y, nothing, nothing)[0]

    assert torch.equal(plain[0], with_heads[0]) and not torch.equal(plain[0], fine)
    added = with_heads[1] - plain[1]
    assert added.abs().mean() > 0.01
    bends = added[:, :, 2:-2].diff(n=2, dim=2).abs()
    largest = sorted(float(bends[:, :, k::4].max()) for k in range(4))
    assert largest[1] < 1e-4, "linear between every fourth pixel"


def test_what_is_drawn_in_hidden_blocks_is_priced_where_it_looks_like_a_face(astronaut):
    content = read_graph(find_graph("regions"))
    faces = FaceLikeness(stored_arrays(content))
    hidden = hidden_blocks(open_regions(content, where="regions").find(astronaut), Thresholds())
    astronaut = np.ascontiguousarray(astronaut)
    painted = paint_over(astronaut, hidden)

    def likeness(image, blocks):
        planes = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            return float(faces(planes, torch.from_numpy(blocks)[None, None].float()))

    assert likeness(astronaut, hidden) > 10 * likeness(painted, hidden) > 0
    assert likeness(astronaut, np.zeros_like(hidden)) == 0


def test_blocks_are_hidden_in_vain_beside_heads_and_in_persons_only(astronaut):
    heads = batch(astronaut).hidden[0]
    around = np.zeros_like(heads)
    around[1:10, 11:18] = True  # the 7 by 5 blocks of the head, and one on each side
    persons = np.zeros_like(heads)
    persons[2:, 9:20] = True

    more = batch(astronaut, in_vain=1.0, in_vain_beside=1.0, in_vain_persons=0.0).hidden[0]
    assert (more & ~heads).any() and not (more & ~around).any() and more[heads].all()
    more = batch(astronaut, in_vain=1.0, in_vain_beside=0.0, in_vain_persons=1.0).hidden[0]
    assert (more & ~around).any() and not (more & ~heads & ~persons).any()

    made = batch(astronaut, in_vain=1.0, in_vain_persons=1.0)
    in_vain = made.hidden[0] & ~heads
    assert (made.levels[0][in_vain] == LEVELS - 1).all()
    assert activity(made.wanted[0], pixels_of(in_vain)) < 0.5 * activity(
        astronaut, pixels_of(in_vain)
    )
