# SPDX-License-Identifier: Apache-2.0
"""Regions: heads and persons are found, hidden, remembered and painted over."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from roi_codec_ros.common.errors import ModelFileError, RoiCodecError
from roi_codec_ros.common.graph_runtime import find_graph
from roi_codec_ros.common.model_files import find_file
from roi_codec_ros.recordings.film_finder import film_finders
from roi_codec_ros.regions import (
    MaskMemory,
    RegionFinder,
    RegionFollower,
    Regions,
    Thresholds,
    load_regions,
    paint_over,
    paint_plane,
    plan_blocks,
)
from roi_codec_ros.regions.blocks import covered_share, heads_around
from roi_codec_ros.regions.finder import METADATA_KEY, Faces, face_boxes, halved
from roi_codec_ros.regions.graph import FACES_KEY
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


def mask_of(*blocks: tuple[int, int], shape: tuple[int, int] = (6, 8)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(blocks))] = True
    return mask


NOTHING = np.zeros((6, 8), bool)
EVERYWHERE = regions(np.zeros((6, 8)), np.ones((6, 8)))


def test_a_missed_head_stays_hidden_and_what_is_beside_it_doubtful_while_a_person_is_there():
    persons = np.zeros((6, 8))
    persons[2:5, 1] = 0.9
    seen = regions(np.zeros((6, 8)), persons)
    memory = MaskMemory(0.5)
    memory.masks(mask_of((1, 1), (1, 5)), EVERYWHERE, Thresholds(), 10.0)

    hidden, doubtful = memory.masks(NOTHING, seen, Thresholds(), 10.4)

    assert np.argwhere(hidden).tolist() == [[1, 1]]  # nobody is below the other one any more
    assert np.argwhere(doubtful).tolist() == [[1, 0], [1, 2], [2, 1]]
    assert not np.any(memory.masks(NOTHING, seen, Thresholds(), 10.6))


def test_a_head_that_moved_leaves_nothing_hidden_behind_it():
    memory = MaskMemory(0.5)
    for column in range(4):
        now = mask_of((1, column), (2, column))

        hidden, doubtful = memory.masks(now, EVERYWHERE, Thresholds(), 10.0 + 0.1 * column)

        np.testing.assert_array_equal(hidden, now)
        assert not doubtful.any()


def test_of_two_heads_side_by_side_the_missed_one_stays_hidden_until_it_is_forgotten():
    memory = MaskMemory(0.5)
    both = mask_of((1, 1), (2, 1), (1, 2), (2, 2))
    memory.masks(both, EVERYWHERE, Thresholds(), 10.0)
    left = mask_of((1, 1), (2, 1))

    for now_s in (10.1, 10.3, 10.5):
        assert memory.masks(left, EVERYWHERE, Thresholds(), now_s)[0][both].all()
    np.testing.assert_array_equal(memory.masks(left, EVERYWHERE, Thresholds(), 10.7)[0], left)


def test_a_missed_head_in_a_crowd_stays_hidden():
    memory = MaskMemory(0.5)
    crowd = np.zeros((6, 8), bool)
    crowd[1:5] = True
    memory.masks(crowd, EVERYWHERE, Thresholds(), 10.0)
    found = crowd.copy()
    found[1:3, 2:4] = False

    assert memory.masks(found, EVERYWHERE, Thresholds(), 10.1)[0][crowd].all()


def test_a_head_found_again_ends_what_was_held_of_it():
    memory = MaskMemory(0.5)
    memory.masks(mask_of((1, 1), (2, 1)), EVERYWHERE, Thresholds(), 10.0)
    memory.masks(NOTHING, EVERYWHERE, Thresholds(), 10.1)[0]
    now = mask_of((1, 2), (2, 2))

    np.testing.assert_array_equal(memory.masks(now, EVERYWHERE, Thresholds(), 10.2)[0], now)


@pytest.mark.parametrize(
    ("shape", "now_s"), [((6, 8), 9.0), ((5, 8), 10.1)], ids=["clock set back", "other size"]
)
def test_another_film_is_not_hidden_by_masks_of_the_last(shape, now_s):
    memory = MaskMemory(0.5)
    memory.masks(np.ones((6, 8), bool), EVERYWHERE, Thresholds(), 10.0)
    everywhere = regions(np.zeros(shape), np.ones(shape))

    assert not np.any(memory.masks(np.zeros(shape, bool), everywhere, Thresholds(), now_s))


def test_without_a_memory_nothing_is_held():
    memory = MaskMemory(0.0)
    memory.masks(np.ones((6, 8), bool), EVERYWHERE, Thresholds(), 1.0)

    assert not np.any(memory.masks(NOTHING, EVERYWHERE, Thresholds(), 1.0))


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


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_paint_between_white_samples_is_white(kind):
    white = np.iinfo(kind).max
    hidden = np.random.default_rng(2).random((13, 21)) < 0.5

    painted = paint_plane(np.full((200, 333), white, kind), hidden, (16, 16))

    assert np.unique(painted).tolist() == [white]


def test_a_frame_hidden_whole_is_grey():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)

    painted = paint_over(image, np.ones((3, 4), bool))

    assert np.unique(painted).tolist() == [128]


class Graph:
    """Networks of a frame of 32×32 that say the same of everything, and count how often."""

    name, where = "onnxruntime", "broken.onnx"
    input_name, input_shape, output_names = "image", (None, None, 3), ()

    def __init__(self, metadata: dict[str, str] | None = None, value: float = 0.5) -> None:
        self.metadata, self._value, self.runs = metadata or {}, value, 0

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.runs += 1
        planes = {f"faces_{s}": np.full((5, 1, 1), self._value) for s in (16, 32, 64)}
        maps = {name: np.full((4, 4), self._value, np.float32) for name in ("heads", "persons")}
        return {**planes, **maps}


FRAME = np.zeros((32, 32, 3), np.uint8)


def card_of(finder: RegionFinder) -> dict[str, str]:
    return {METADATA_KEY: json.dumps(finder.card)}


@pytest.mark.parametrize(("maps", "faces"), [(np.nan, 0.5), (0.5, np.inf)])
def test_a_frame_that_can_not_be_judged_is_an_error(finder, maps, faces):
    broken = RegionFinder(Graph(card_of(finder), maps), Graph(value=faces))

    with pytest.raises(RoiCodecError, match=r"expected finite numbers from broken\.onnx"):
        broken.find(FRAME)


@pytest.mark.parametrize("text", ["", "[]", '{"thresholds": {"face": 0.3}}'])
def test_a_graph_that_says_no_thresholds_is_no_regions_model(text):
    with pytest.raises(ModelFileError, match=r"expected broken\.onnx to"):
        RegionFinder(Graph({METADATA_KEY: text}), Graph())


def test_a_graph_that_holds_none_of_faces_is_no_regions_model(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(find_file("regions", ".onnx"))
    kept = [item for item in model.metadata_props if item.key != FACES_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "old.onnx")

    with pytest.raises(ModelFileError, match=r"old\.onnx to be a regions model .*found none"):
        load_regions(tmp_path / "old.onnx")


@pytest.mark.parametrize("size", [(64, 64), (63, 61), (1, 1), (66, 130)])
def test_networks_see_half_of_the_frame_and_its_border_repeated(size):
    image = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)

    half = halved(image)

    assert half.shape[0] % 32 == half.shape[1] % 32 == 0
    rows, columns = (-(-side // 2) for side in size)
    assert half[0, 0].tolist() == [
        pytest.approx(image[:2, :2, c].astype(float).mean(), abs=0.51) for c in range(3)
    ]
    assert (half[rows:] == half[rows - 1]).all()
    assert (half[:, columns:] == half[:, columns - 1 : columns]).all()


@pytest.mark.parametrize(
    ("persons_every", "stamps", "judged_whole"),
    [
        (1, [0.1, 0.2, 0.3], 3),
        (2, [0.10, 0.15, 0.20, 0.25, 0.30], 3),
        (3, [0.10, 0.13, 0.16, 0.19], 2),
        (3, [0.10, 0.15, 0.20, 0.25], 2),  # two frames are too old, and one is not
        (4, [0.1, 0.2, 0.15, 0.5], 4),  # a slow camera, and a clock that was set back
        (2, [None, None, None], 3),
    ],
)
def test_persons_are_looked_for_in_some_frames_and_faces_in_each(
    persons_every, stamps, judged_whole, finder
):
    maps, faces = Graph(card_of(finder)), Graph()
    follower = RegionFollower(RegionFinder(maps, faces), persons_every)

    seen = [follower.find(FRAME, stamp_s) for stamp_s in stamps]

    assert (maps.runs, faces.runs) == (judged_whole, len(stamps))
    assert all((regions.persons == 0.5).all() and len(regions.faces.score) for regions in seen)


def test_heads_that_are_not_looked_for_may_be_a_block_further(finder):
    maps = Graph(card_of(finder))
    follower = RegionFollower(RegionFinder(maps, Graph()), persons_every=2)
    follower.find(FRAME, 1.0)
    assert follower.moved_heads() is None

    follower._maps.heads[:] = 0
    follower._maps.heads[0, 0] = 1
    follower.find(FRAME, 1.05)

    assert follower.moved_heads().tolist() == [[True, True], [True, False]]


def test_a_frame_of_another_size_is_judged_whole(finder):
    follower = RegionFollower(finder, persons_every=4)

    first = follower.find(FRAME, 1.0)
    second = follower.find(FRAME[:16], 1.05)

    assert first.persons.shape == (2, 2) and second.persons.shape == (1, 2)


@pytest.mark.parametrize("side", [90, 70, 60])
def test_recordings_have_faces_of_ten_pixels_hidden(side, finder, astronaut):
    """Faces are looked for on every pixel there, in frames that are judged whole."""
    cv2 = pytest.importorskip("cv2")
    frame = np.full((160, 288, 3), 114, np.uint8)
    frame[16 : 16 + side, 40 : 40 + side] = cv2.resize(
        astronaut, (side, side), interpolation=cv2.INTER_AREA
    )
    recordings = film_finders(find_graph("regions"))()

    found = recordings.find(frame).faces
    best = found.xyxy[found.score.argmax()]

    assert found.score.max() > 0.6
    if side <= 70:
        assert finder.find(frame).faces.score.max(initial=0) < found.score.max() - 0.3
    wanted = 40 + side * (FACE[1].start + FACE[1].stop) / 1024
    assert abs((best[0] + best[2]) / 2 - wanted) < 4, "in pixels of the frame"


def test_thresholds_are_shares_and_doubt_begins_before_certainty():
    with pytest.raises(ModelFileError, match="threshold face above 0 and at most 1, found nan"):
        replace(Thresholds(), face=float("nan"))
    with pytest.raises(ModelFileError, match="thresholds of doubt no higher"):
        replace(Thresholds(), doubtful_head=0.95)


def test_regions_that_are_not_there_are_named():
    with pytest.raises(ModelFileError, match="found 'nobody'"):
        load_regions("nobody")
