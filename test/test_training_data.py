# SPDX-License-Identifier: Apache-2.0
"""Crops of any class, whole photographs, memory, and batches that no number of threads changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from roi_codec_ros.codec import RoiCodecError
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.training.data import CropSampler, CropSettings
from roi_codec_ros.lab.training.loader import Prefetcher
from roi_codec_ros.lab.training.photograph_store import Photographs

NONE = np.zeros((0, 4), np.float32)
PLAIN = {"jitter": 0.0, "gamma": 1.0, "grey": 0.0, "jpeg": 0.0, "min_zoom": 1.0, "max_zoom": 1.0}


def photograph(folder: Path, name: str, plate: list[float]) -> Annotation:
    """A black picture of 200 × 100 pixels with a white number plate."""
    pixels = np.zeros((100, 200, 3), np.uint8)
    left, top, right, bottom = (int(side) for side in plate)
    pixels[top:bottom, left:right] = 255
    cv2.imwrite(str(folder / f"{name}.png"), pixels)
    regions = {"plate": np.array([plate], np.float32)}
    return Annotation(folder / f"{name}.png", name, 200, 100, NONE, NONE, NONE, regions=regions)


def test_whole_photographs_are_squashed_with_their_boxes(tmp_path: Path) -> None:
    settings = CropSettings(size=400, squash_to=400, mirror=0.0, **PLAIN)
    sampler = CropSampler([photograph(tmp_path, "a", [20, 10, 60, 40])], settings)
    batch = sampler.batch(1, np.random.default_rng(0))
    # Twice as wide, four times as high.
    assert batch.boxes("plate")[0].tolist() == [[40, 40, 120, 160]]
    bright = (batch.images[0, 0] > 127).nonzero()
    assert bright.min(dim=0).values.tolist() == [40, 40]
    assert (bright.max(dim=0).values + 1).tolist() == [160, 120]

    mirrored = CropSettings(size=400, squash_to=400, mirror=1.0, **PLAIN)
    sampler = CropSampler([photograph(tmp_path, "a", [20, 10, 60, 40])], mirrored)
    batch = sampler.batch(1, np.random.default_rng(0))
    assert batch.boxes("plate")[0].tolist() == [[280, 40, 360, 160]]


def test_a_crop_of_a_squashed_photograph_has_its_scale(tmp_path: Path) -> None:
    settings = CropSettings(size=100, squash_to=400, centred_on_head=1.0, mirror=0.0, **PLAIN)
    item = photograph(tmp_path, "a", [100, 50, 120, 60])
    batch = CropSampler([item], settings, ["plate"]).batch(20, np.random.default_rng(0))
    for image, boxes in zip(batch.images, batch.boxes("plate"), strict=True):
        left, top, right, bottom = boxes[0].tolist()
        assert (right - left, bottom - top) == (40, 40)  # twice as wide, four times as high
        assert image[0, int(top) + 20, int(left) + 20] > 200

    zoomed = replace(settings, min_zoom=2.0, max_zoom=2.0)
    (boxes,) = (
        CropSampler([item], zoomed, ["plate"]).batch(1, np.random.default_rng(0)).boxes("plate")
    )
    assert float(boxes[0, 2] - boxes[0, 0]) == pytest.approx(80, rel=0.1)

    with pytest.raises(UsageError, match=r"squash_to to be crops.size = 100 or more, or 0"):
        CropSettings(size=100, squash_to=50)


def test_crops_are_centred_on_the_class_that_is_asked_for(tmp_path: Path) -> None:
    settings = CropSettings(size=32, centred_on_head=1.0, mirror=0.0, **PLAIN)
    item = photograph(tmp_path, "a", [150, 70, 160, 75])
    rng = np.random.default_rng(0)
    centred = CropSampler([item], settings, centre_on=["plate"]).batch(20, rng)
    anywhere = CropSampler([item], settings).batch(20, rng)
    assert sum(len(boxes) for boxes in centred.boxes("plate")) == 20
    assert sum(len(boxes) for boxes in anywhere.boxes("plate")) < 10
    assert [boxes.shape for boxes in centred.boxes("hat")] == [(0, 4)] * 20


def test_photographs_stay_in_memory_as_long_as_there_is_room(tmp_path: Path) -> None:
    items = [photograph(tmp_path, name, [0, 0, 9, 9]) for name in "abc"]
    roomy, narrow = Photographs(items), Photographs(items, room_bytes=2 * 200 * 100 * 3)
    for photographs in (roomy, narrow):
        photographs.read_ahead()
        assert photographs.broken == {}
    assert (roomy.kept, narrow.kept) == (3, 2)
    first, again = (roomy.read(items[0]) for _ in range(2))
    assert first is again
    for item in items:  # the third is decoded each time
        np.testing.assert_array_equal(narrow.read(item), first)


def test_a_photograph_that_breaks_later_is_replaced_by_another_one(tmp_path: Path) -> None:
    """In memory or not, the others are drawn alike: a resumed run must not depend on it."""
    items = [photograph(tmp_path, name, [0, 0, 9, 9]) for name in "abc"]
    (tmp_path / "b.png").write_bytes(b"no picture")
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((50, 100, 3), np.uint8))  # half the size
    drawn = []
    for _ in range(2):
        sampler = CropSampler(items, CropSettings(size=32, **PLAIN))
        drawn.append([sampler.batch(4, np.random.default_rng(n)).images for n in range(3)])
    assert all(map(torch.equal, *drawn))
    assert [error.path for error in sampler.left_out] == [item.image_path for item in items[1:]]
    assert "100×50 px where boxes are of 200×100 px" in str(sampler.left_out[1])

    (tmp_path / "a.png").unlink()
    sampler = CropSampler(items, CropSettings(size=32))
    with pytest.raises(RoiCodecError, match=r"found 3 that cannot be used, the first: .*a\.png"):
        sampler.batch(1, np.random.default_rng(0))
    with pytest.raises(RoiCodecError, match="found 3 that cannot be used"):
        sampler.read_ahead()


def test_threads_and_processes_change_nothing_in_what_is_drawn(tmp_path: Path) -> None:
    items = [photograph(tmp_path, name, [0, 0, 90, 90]) for name in "abc"]
    sampler = CropSampler(items, CropSettings(size=32))

    def drawn(count: int, **options: int) -> list[torch.Tensor]:
        source = Prefetcher(sampler, 2, seed=5, **options)
        batches = iter(source)
        images = [next(batches).images for _ in range(count)]
        source.close()
        return images

    alone = drawn(6)
    assert all(map(torch.equal, alone, drawn(6, workers=3)))
    # Of two processes each draws every other batch.
    for rank in (0, 1):
        assert all(map(torch.equal, alone[rank::2], drawn(3, first=rank, stride=2)))
