# SPDX-License-Identifier: Apache-2.0
"""The demo's hall: people stand in the pictures where the truth says that they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("ultralytics", reason="carries the photograph that people are cut out of")

from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.simulation.cutouts import Cutout, wardrobe
from roi_codec_ros.lab.simulation.filmed_hall import MAX_CAMERAS, WALK_S, HallClock, Stage
from roi_codec_ros.lab.simulation.rendering import Figure, draw_figures, draw_room
from roi_codec_ros.lab.simulation.walking import Floor
from roi_codec_ros.perception.cameras import CameraModel
from roi_codec_ros.perception.ground import CameraPose

LENS = CameraModel.from_hfov(320, 240, 80.0)
POSE = CameraPose.from_xyz_rpy(0.0, 0.2, 2.4, 0.0, 0.45, math.pi / 2)
FLOOR = Floor(8.0, 6.0)


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(["a", "b", "c"])


def bare(colour: tuple[int, int, int]) -> Cutout:
    """A plain rectangle, as slim as a person."""
    rgb = np.empty((80, 20, 3), np.uint8)
    rgb[:] = colour
    return Cutout(rgb, np.ones((80, 20), np.float32))


@pytest.mark.parametrize("place", [(0.0, 4.0), (-1.6, 3.2), (1.8, 5.0), (0.4, 2.6)])
def test_a_figure_stands_upright_where_it_should(place):
    room = np.zeros((LENS.height, LENS.width, 3), np.uint8)
    picture = draw_figures(room, [Figure(bare((255, 0, 0)), place, 1.7)], LENS, POSE)

    def red_at(z_m: float) -> bool:
        column, row = LENS.project(POSE.to_camera([[*place, z_m]]))[0].astype(int)
        return bool(picture[row, column, 0] > 128)

    assert [red_at(z_m) for z_m in (0.06, 0.8, 1.64)] == [True] * 3
    assert [red_at(z_m) for z_m in (-0.12, 1.82)] == [False] * 2


def test_who_is_nearer_hides_who_is_behind():
    room = np.zeros((LENS.height, LENS.width, 3), np.uint8)
    near = Figure(bare((255, 0, 0)), (0.0, 3.0), 1.7)
    far = Figure(bare((0, 255, 0)), (0.0, 5.0), 1.7)
    middle = LENS.project(POSE.to_camera([[0.0, 5.0, 0.9]]))[0].astype(int)

    pictures = [draw_figures(room, order, LENS, POSE) for order in ([near, far], [far, near])]

    assert np.array_equal(*pictures)
    assert tuple(pictures[0][middle[1], middle[0]]) == (255, 0, 0)


def test_a_figure_behind_the_camera_is_not_drawn():
    room = draw_room(LENS, POSE, FLOOR)
    assert np.array_equal(
        draw_figures(room, [Figure(bare((255, 0, 0)), (0.0, -3.0), 1.7)], LENS, POSE), room
    )


def test_the_room_is_flooring_below_and_ceiling_above():
    level = CameraPose.from_xyz_rpy(0.0, 0.2, 1.6, 0.0, 0.0, math.pi / 2)
    room = draw_room(CameraModel.from_hfov(320, 240, 100.0), level, FLOOR).astype(int)

    door = room[125, 160]  # in the middle of the far wall
    assert room[5].mean() > 190 > room[235].mean() > 100
    assert door[0] > door[2] + 20 and door.mean() < 130


def test_people_are_whole_and_apart_from_what_was_behind_them():
    for person in wardrobe():
        height, width = person.alpha.shape
        assert height > 440 and 0.2 < person.aspect < 0.5
        assert person.alpha[-3:].max() > 0.5 and person.alpha[:3].max() > 0.3
        assert 0.4 < (person.alpha > 0.5).mean() < 0.8
        assert person.alpha[: height // 8, : width // 8].max() < 0.5  # beside the head
    assert len({person.rgb[200:260].mean(axis=(0, 1)).tobytes() for person in wardrobe()}) == 6


def test_the_same_seed_is_the_same_hall_for_everyone(stage):
    other = Stage(["a", "b", "c"])
    for seconds in (3.0, 41.7):
        assert np.array_equal(stage.at(seconds)[1], other.at(seconds)[1])
        assert np.array_equal(stage.film("b", seconds), other.film("b", seconds))
    assert not np.array_equal(stage.at(3.0)[1], Stage(["a"], seed=1).at(3.0)[1])


def test_people_who_were_everywhere_walk_back(stage):
    there, back = stage.at(WALK_S - 7.0), stage.at(WALK_S + 7.0)
    assert np.array_equal(there[0], back[0])
    assert there[1] == pytest.approx(back[1], abs=1e-6)


def test_every_place_of_the_hall_is_seen_from_several_sides(stage):
    across, along = np.meshgrid(np.linspace(-3, 3, 13), np.linspace(1, 5, 9))
    places = np.column_stack([across.ravel(), along.ravel()])
    seen_by = sum(view.covers(places).astype(int) for view in stage.views.values())
    assert (seen_by >= 2).mean() > 0.9
    ids, xy = stage.in_view(20.0)
    assert set(ids) <= set(stage.at(20.0)[0]) and len(ids) == len(xy) >= 2


def test_the_clock_keeps_the_pace():
    clock = HallClock(seed=0, epoch_ns=5_000_000_000, pace=0.25)
    assert clock.seconds(13_000_000_000) == pytest.approx(2.0)


def test_too_many_cameras_are_refused():
    with pytest.raises(UsageError, match="at most 8 cameras"):
        Stage([f"c{n}" for n in range(MAX_CAMERAS + 1)])
