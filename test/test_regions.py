# SPDX-License-Identifier: Apache-2.0
"""Regions: heads and persons are found, hidden, remembered and painted over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from roi_codec_ros.common.errors import ModelFileError, RoiCodecError
from roi_codec_ros.regions import (
    MaskMemory,
    RegionFinder,
    Regions,
    Thresholds,
    load_regions,
    paint_over,
    plan_blocks,
)
from roi_codec_ros.regions.blocks import covered_share, heads_around
from roi_codec_ros.regions.finder import METADATA_KEY, Faces, face_boxes
from roi_codec_ros.regions.plan import tops

FACE = (slice(75, 185), slice(175, 275))  # of the astronaut, in pixels


@pytest.fixture(scope="module")
def finder() -> RegionFinder:
    pytest.importorskip("onnxruntime")
    return load_regions(threads=1)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pytest.importorskip("skimage.data").astronaut()


def pixels_of(blocks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return blocks.repeat(16, 0).repeat(16, 1)[: shape[0], : shape[1]]


def regions(heads: np.ndarray, persons: np.ndarray, faces: Faces | None = None) -> Regions:
    return Regions(heads.astype(np.float32), persons.astype(np.float32), faces or Faces())


@pytest.mark.parametrize("name", ["regions", "regions-int8"])
@pytest.mark.parametrize("side", [512, 256, 128])
def test_a_face_is_hidden_whole_and_her_body_is_a_person(name, side, astronaut):
    cv2 = pytest.importorskip("cv2")
    image = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_AREA)
    finder = load_regions(name, threads=1)

    plan = plan_blocks(finder.find(image), finder.thresholds)

    scale = 512 // side
    hidden = pixels_of(plan.hidden, image.shape)
    face = tuple(slice(s.start // scale, s.stop // scale) for s in FACE)
    assert hidden[face].mean() > 0.97
    assert plan.hidden.mean() < 0.5
    body = pixels_of(plan.persons, image.shape)[
        300 // scale : 480 // scale, 150 // scale : 350 // scale
    ]
    assert (body > finder.thresholds.person).mean() > 0.8


def test_a_picture_of_things_hides_next_to_nothing(finder):
    rocket = pytest.importorskip("skimage.data").rocket()

    plan = plan_blocks(finder.find(rocket), finder.thresholds)

    assert plan.hidden.mean() < 0.02
    assert (plan.persons > finder.thresholds.person).mean() < 0.02


@pytest.mark.parametrize("size", [(1, 1), (15, 33), (97, 64), (200, 321)])
def test_every_size_of_frame_has_a_map_of_its_blocks(size, finder):
    found = finder.find(np.full((*size, 3), 90, np.uint8))

    assert found.heads.shape == found.persons.shape == (-(-size[0] // 16), -(-size[1] // 16))


def test_faces_come_in_pixels_of_the_frame(finder, astronaut):
    faces = finder.find(astronaut).faces

    x0, y0, x1, y1 = faces.xyxy[faces.score.argmax()]
    assert faces.score.max() > 0.8
    assert 150 < x0 < 200 and 40 < y0 < 110 and 250 < x1 < 300 and 160 < y1 < 220


def test_the_four_numbers_of_a_face_become_its_box():
    values = np.array([[0.5], [0.25], [np.log(2.0)], [np.log(4.0)]], np.float32)

    boxes = face_boxes(values, np.array([3]), np.array([1]), 8)

    np.testing.assert_allclose(boxes, [[12 - 8, 26 - 16, 12 + 8, 26 + 16]])


def test_a_head_reaches_beyond_its_face():
    head = heads_around(np.array([[100, 100, 200, 200]], np.float32))

    np.testing.assert_allclose(head, [[85, 60, 215, 212]])
    assert covered_share(head[0], 20, 20).sum() == pytest.approx(130 * 152 / 256)


def test_what_is_doubtful_is_not_hidden_but_marked():
    heads = np.zeros((8, 8))
    heads[0, 0], heads[0, 4] = 0.95, 0.87
    faces = Faces(np.array([[96, 96, 112, 112]], np.float32), np.array([0.15], np.float32))

    plan = plan_blocks(regions(heads, np.zeros((8, 8)), faces), Thresholds())

    assert np.argwhere(plan.hidden).tolist() == [[0, 0]]
    assert plan.doubtful[0, 4] and plan.doubtful[6, 6]
    assert not plan.doubtful[0, 0]


def test_the_edges_of_a_found_head_and_the_top_of_its_person_are_not_doubtful():
    faces = Faces(np.array([[34, 38, 62, 62]], np.float32), np.array([0.9], np.float32))
    persons = np.zeros((10, 10), np.float32)
    persons[2:9, 1:5] = persons[2:9, 8] = 0.9  # the second one's head was not found

    plan = plan_blocks(regions(np.zeros((10, 10)), persons, faces), Thresholds())

    assert plan.hidden[2:4, 2:4].all() and not plan.hidden[:, [0, 1, 4, 8]].any()
    assert np.argwhere(plan.doubtful).tolist() == [[2, 8], [3, 8]]


def test_the_top_of_every_person_is_doubtful_where_no_head_was_found():
    persons = np.zeros((14, 4), bool)
    persons[1:13, 1] = True
    persons[5:8, 3] = True

    marked = tops(persons)

    assert np.argwhere(marked).tolist() == [[1, 1], [2, 1], [5, 3]]


def test_a_head_missed_in_one_frame_stays_hidden_while_a_person_is_there():
    mask = np.zeros((6, 6), bool)
    mask[1, 1] = mask[1, 4] = True
    persons = np.zeros((6, 6))
    persons[2:5, 1] = 0.9
    seen = regions(np.zeros((6, 6)), persons)
    memory = MaskMemory(0.5)
    memory.remember(mask, 10.0)

    held = memory.held(seen, Thresholds(), 10.4)

    assert np.argwhere(held).tolist() == [[1, 1]]  # nobody is below the other one any more
    assert not memory.held(seen, Thresholds(), 10.6).any()


@pytest.mark.parametrize(
    ("shape", "now_s"), [((6, 6), 9.0), ((5, 6), 10.1)], ids=["clock set back", "other size"]
)
def test_another_film_is_not_hidden_by_masks_of_the_last(shape, now_s):
    memory = MaskMemory(0.5)
    memory.remember(np.ones((6, 6), bool), 10.0)
    everywhere = regions(np.zeros(shape), np.ones(shape))

    assert not memory.held(everywhere, Thresholds(), now_s).any()


def test_without_a_memory_nothing_is_held():
    memory = MaskMemory(0.0)
    memory.remember(np.ones((4, 4), bool), 1.0)

    assert not memory.held(regions(np.ones((4, 4)), np.ones((4, 4))), Thresholds(), 1.0).any()


def test_paint_is_made_of_what_surrounds_alone(astronaut):
    hidden = np.zeros((32, 32), bool)
    hidden[4:12, 10:18] = hidden[31, 31] = True
    inside = pixels_of(hidden, astronaut.shape)
    swapped = astronaut.copy()
    swapped[inside] = np.random.default_rng(1).integers(0, 256, (inside.sum(), 3), np.uint8)

    painted = paint_over(astronaut, hidden)

    np.testing.assert_array_equal(painted, paint_over(swapped, hidden))
    np.testing.assert_array_equal(painted[~inside], astronaut[~inside])
    assert np.abs(painted[inside].astype(float) - astronaut[inside]).mean() > 10


def test_a_frame_hidden_whole_is_grey():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)

    painted = paint_over(image, np.ones((3, 4), bool))

    assert np.unique(painted).tolist() == [128]


class BrokenGraph:
    """A network whose weights have gone bad."""

    name, where = "onnxruntime", "broken.onnx"
    input_name, input_shape, output_names = "image", (None, None, 3), ()

    def __init__(self, metadata: dict[str, str], value: float = np.nan) -> None:
        self.metadata, self._value = metadata, value

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        planes = {f"faces_{s}": np.zeros((5, 1, 1), np.float32) for s in (8, 16, 32)}
        maps = {name: np.full((2, 2), self._value, np.float32) for name in ("heads", "persons")}
        return {**planes, **maps}


def test_a_frame_that_can_not_be_judged_is_an_error(finder):
    import json

    broken = RegionFinder(BrokenGraph({METADATA_KEY: json.dumps(finder.card)}))

    with pytest.raises(RoiCodecError, match=r"expected finite numbers from broken\.onnx"):
        broken.find(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("text", ["", "[]", '{"thresholds": {"face": 0.3}}'])
def test_a_graph_that_says_no_thresholds_is_no_regions_model(text):
    with pytest.raises(ModelFileError, match=r"expected broken\.onnx to"):
        RegionFinder(BrokenGraph({METADATA_KEY: text}))


def test_thresholds_are_shares_and_doubt_begins_before_certainty():
    with pytest.raises(ModelFileError, match="threshold face above 0 and at most 1, found nan"):
        replace(Thresholds(), face=float("nan"))
    with pytest.raises(ModelFileError, match="thresholds of doubt no higher"):
        replace(Thresholds(), doubtful_head=0.95)


def test_regions_that_are_not_there_are_named():
    with pytest.raises(ModelFileError, match="found 'nobody'"):
        load_regions("nobody")
