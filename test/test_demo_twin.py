# SPDX-License-Identifier: Apache-2.0
"""The demo in a map: names for boxes, the picture from above, and the options that ask for it."""

from __future__ import annotations

import argparse
import math
from types import SimpleNamespace

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.lab.commands import demo_twin
from roi_codec_ros.lab.demo import truth
from roi_codec_ros.lab.demo.layout import Layout, TwinMap, twin_sheet
from roi_codec_ros.lab.demo.map_book import MapBook, MapMoment, WatchedFloor, map_at, watched_at
from roi_codec_ros.lab.demo.map_picture import Area, MapPicture
from roi_codec_ros.lab.demo.panels import MUTED, PERSON_COLOURS, PersonMark, View, track_colour
from roi_codec_ros.lab.demo.twin import Twin, wedge_of
from roi_codec_ros.lab.simulation.walking import Floor
from roi_codec_ros.perception.cameras import CameraModel, read_calibration
from roi_codec_ros.perception.ground import CameraPose
from roi_codec_ros.perception.views import GroundView

LENS = CameraModel.from_hfov(640, 480, 80.0)
POSE = CameraPose.from_xyz_rpy(0.0, 0.0, 2.5, 0.0, 0.45, math.pi / 2)
VIEW = GroundView(LENS, POSE, 12.0)
SECOND = 1_000_000_000


def track(number: int, x: float, y: float, velocity=(0.0, 0.0)) -> PersonMark:
    return PersonMark((0, 0, 0, 0), 0.0, number, (x, y), velocity, (0.01, 0.0, 0.0, 0.01))


def box(x: float, y: float) -> PersonMark:
    """What a detector sees of a person who stands there."""
    (u, foot), (_, head) = LENS.project(POSE.to_camera([[x, y, 0.0], [x, y, 1.7]]))
    return PersonMark((u - 20, head, 40, foot - head), 0.8)


def twin(*moments: MapMoment, **more) -> Twin:
    return Twin({"front": VIEW}, list(moments), [], **more)


# Which box is which track


def test_boxes_get_the_numbers_of_the_tracks_they_stand_on():
    run = twin(MapMoment(SECOND, (track(4, 1.0, 5.0), track(9, -1.5, 6.0))))
    persons = [box(-1.4, 6.1), box(1.1, 4.9), box(3.0, 8.0)]
    assert [p.track_id for p in run.named("front", persons, SECOND)] == [9, 4, 0]


def test_tracks_walk_on_to_the_time_of_the_frame():
    run = twin(MapMoment(SECOND, (track(4, 0.0, 4.0, (0.0, 2.0)),)))
    assert run.named("front", [box(0.0, 5.0)], SECOND + SECOND // 2)[0].track_id == 4
    assert run.named("front", [box(0.0, 4.0)], SECOND + SECOND // 2)[0].track_id == 4
    assert run.named("front", [box(0.0, 7.0)], SECOND + SECOND // 2)[0].track_id == 0
    assert run.named("front", [box(0.0, 8.0)], 3 * SECOND)[0].track_id == 0  # too long ago


def test_each_track_names_one_box():
    run = twin(MapMoment(SECOND, (track(4, 0.0, 5.0),)))
    named = run.named("front", [box(0.4, 5.0), box(0.1, 5.0)], SECOND)
    assert [person.track_id for person in named] == [0, 4]


def test_who_is_not_tracked_is_grey():
    assert track_colour(track(2, 0, 0), 5) == PERSON_COLOURS[1]
    assert track_colour(PersonMark((0, 0, 1, 1)), 5) == MUTED


# What was heard


def message(stamp_ns: int, **fields) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), **fields)


def coverage(stamp_ns: int, data: list[int]) -> SimpleNamespace:
    origin = SimpleNamespace(position=SimpleNamespace(x=-1.0, y=2.0))
    info = SimpleNamespace(width=2, height=2, resolution=0.5, origin=origin)
    return message(stamp_ns, info=info, data=data)


def test_the_book_keeps_the_map_by_time_and_only_changes_of_the_floor():
    point = SimpleNamespace(x=1.0, y=2.0, z=0.0)
    person = SimpleNamespace(
        track_id=3, position=point, velocity=point, position_covariance=[1.0, 0.0, 0.0, 2.0]
    )
    book = MapBook(kept_s=5.0)
    for second in range(10):
        book.add_tracks(message(second * SECOND, persons=[person]))
        book.add_coverage(coverage(second * SECOND, [0, 0, -1, 0 if second < 5 else -1]))

    moments, watched = book.moments(), book.watched()

    assert [moment.stamp_ns // SECOND for moment in moments] == [4, 5, 6, 7, 8, 9]
    assert moments[0].persons[0].position == (1.0, 2.0)
    assert [floor.stamp_ns // SECOND for floor in watched] == [0, 5]
    assert watched[0].cells.tolist() == [[True, True], [False, True]]
    assert map_at(moments, 6 * SECOND + 1).stamp_ns == 6 * SECOND
    assert map_at(moments, 3 * SECOND) is None
    assert watched_at(watched, 7 * SECOND) is watched[1]
    book.clear()
    assert book.moments() == [] and book.watched() == [watched[1]]


# From above


def test_the_map_draws_tracks_rings_cameras_and_the_watched_floor():
    area = Area(-4.0, 0.0, 4.0, 6.0)
    picture = MapPicture(area, {"front": wedge_of(VIEW)}, (600, 800))
    cells = np.zeros((2, 2), np.bool_)
    cells[0, 1] = True  # x 0 … 1, y 3 … 4
    floor = WatchedFloor(0, -1.0, 3.0, 1.0, cells)

    drawn = picture.draw([track(1, -2.0, 2.0)], truth=np.array([[2.5, 1.5]]), watched=floor)
    empty = picture.draw([])

    def changed(x: float, y: float) -> bool:
        column, row = picture.geometry.at(x, y)
        return bool((drawn[row, column] != empty[row, column]).any())

    column, row = picture.geometry.at(-2.0, 2.0)
    assert tuple(drawn[row, column]) == PERSON_COLOURS[0]
    assert changed(0.6, 3.4) and not changed(-0.6, 3.4) and not changed(0.6, 4.4)
    ring = round(0.24 * picture.geometry.pixels_per_metre)
    column, row = picture.geometry.at(2.5, 1.5)
    assert drawn[row, column + ring].min() > 200 and not changed(2.5, 1.5)
    assert picture.geometry.pixels_per_metre == pytest.approx(min(520 / 6, 740 / 8))


def test_the_area_is_the_hall_else_where_people_and_cameras_are():
    run = twin(MapMoment(0, (track(1, 3.0, 7.0),)), floor=Floor(8.0, 6.0))
    assert run.area() == Area(-4.0, 0.0, 4.0, 6.0)
    area = twin(MapMoment(0, (track(1, 3.0, 7.0), track(2, -2.0, 4.0)))).area()
    assert (area.left_m, area.bottom_m) == pytest.approx((-3.0, -1.0), abs=0.1)
    assert (area.right_m, area.top_m) == pytest.approx((4.0, 8.0), abs=0.1)


def test_old_tracks_are_not_shown_as_if_they_were_there():
    shown = TwinMap(twin(MapMoment(0, (track(1, 1.0, 4.0),))), (400, 400))
    assert not np.array_equal(shown.at(0), shown.at(SECOND * 60))
    assert np.array_equal(shown.at(SECOND * 60), shown.at(SECOND * 90))


@pytest.mark.parametrize("cameras", [1, 2, 3, 6])
@pytest.mark.parametrize("with_raw", [True, False])
def test_the_layout_has_the_size_it_says_and_fits_a_screen(cameras, with_raw):
    area = Area(-4.0, 0.0, 4.0, 6.0)
    layout = Layout.of(cameras, (480, 640), area, with_raw=with_raw)
    raw = np.full((48, 64, 3), 90, np.uint8)
    views = [View("c", raw, np.full((48, 64, 3), 60, np.uint8), (480, 640))] * cameras
    above = np.full((*layout.map_size, 3), 7, np.uint8)

    picture = layout.compose(views, [(above, "caption")])

    height, width = layout.size
    assert picture.shape == (height, width, 3)
    assert height % 2 == width % 2 == 0 and height <= 1080 and width <= 2300
    panel = layout.panel_size[0] * layout.panel_size[1]
    assert (picture == 60).all(axis=2).sum() >= 0.97 * cameras * panel
    assert (picture == 7).all(axis=2).sum() == above[..., 0].size
    assert ((picture == 90).all(axis=2).sum() >= 0.97 * cameras * panel) == with_raw


def test_the_sheet_has_a_row_for_each_moment():
    run = twin(MapMoment(0, (track(1, 1.0, 4.0),)))
    view = View("front", None, np.full((48, 64, 3), 60, np.uint8), (480, 640))
    rows = [([view, view], n * SECOND, f"{n} s") for n in range(3)]
    page = twin_sheet(rows, run, title="t", facts=[("1", "a")])
    assert (page == 60).all(axis=2).sum() >= 0.97 * 6 * 400 * 300
    with pytest.raises(ValueError, match="at least one"):
        twin_sheet([], run, title="t", facts=[])


# Options


def options(*arguments: str, cameras: int = 1, source: str | None = None, out=None):
    parser = argparse.ArgumentParser()
    demo_twin.add_arguments(parser)
    given = parser.parse_args(arguments)
    return argparse.Namespace(**vars(given), cameras=cameras, source=source, out=out)


def test_several_cameras_without_a_source_film_the_hall():
    assert demo_twin.simulates(options(cameras=3))
    assert demo_twin.simulates(options("--simulate"))
    assert not demo_twin.simulates(options())
    assert not demo_twin.simulates(options("--no-simulate", cameras=3))
    assert not demo_twin.simulates(options(cameras=3, source="street.mp4"))


@pytest.mark.parametrize(
    ("given", "source", "sentence"),
    [
        (["--simulate"], "street.mp4", "--simulate or --source"),
        (["--pose", "0 0 2 0 0 0"], None, "with --source"),
        (["--hfov", "60"], "street.mp4", "--pose with --calibration or --hfov"),
    ],
)
def test_options_that_do_not_fit_are_refused(given, source, sentence):
    with pytest.raises(UsageError, match=sentence):
        demo_twin.simulates(options(*given, source=source))


def test_poses_and_lens_reach_the_tracker():
    given = options("--pose", "1 2 3 0 0.4 0", "--hfov", "70", source="street.mp4")
    plan = demo_twin.plan_twin(given, ["camera"])
    assert plan.server_parameters == {
        "camera_poses": ["camera: 1 2 3 0 0.4 0"],
        "assumed_hfov_deg": 70.0,
    }
    assert plan.filming(5.0) is None and plan.poses["camera"].translation.tolist() == [1, 2, 3]
    with pytest.raises(RoiCodecError, match="cameras among camera, found back"):
        demo_twin.plan_twin(options("--pose", "back: 1 2 3 0 0 0", source="s"), ["camera"])
    with pytest.raises(RoiCodecError, match="0 to 180 degrees"):
        demo_twin.plan_twin(
            options("--pose", "1 2 3 0 0 0", "--hfov", "200", source="s"), ["camera"]
        )


def test_the_hall_tells_every_node_its_lens_and_its_poses(tmp_path):
    pytest.importorskip("ultralytics")
    given = options("--pace", "0.5", cameras=2, out=tmp_path)
    plan = demo_twin.plan_twin(given, ["camera1", "camera2"])
    lens = read_calibration(tmp_path / ".source" / "hall.yaml").camera
    assert lens == plan.stage.lens
    assert [entry.split(":")[0] for entry in plan.server_parameters["camera_poses"]] == [
        "camera1",
        "camera2",
    ]
    assert plan.filming(5.0)[1:3] == ["-m", "roi_codec_ros.lab.demo.filming"]


def test_perfect_tracks_are_scored_as_such(tmp_path):
    pytest.importorskip("ultralytics")
    pytest.importorskip("motmetrics")
    plan = demo_twin.plan_twin(options(cameras=2, out=tmp_path), ["camera1", "camera2"])
    stage, clock = plan.stage, plan.clock
    moments = []
    for tick in range(100):
        stamp_ns = clock.epoch_ns + tick * SECOND // 10
        ids, xy = stage.in_view(clock.seconds(stamp_ns))
        persons = tuple(
            track(int(person), x + 0.1, y) for person, (x, y) in zip(ids, xy, strict=True)
        )
        moments.append(MapMoment(stamp_ns, persons))

    scored = truth._scored(Twin(stage.views, moments, []), stage, clock)

    assert scored["persons_found"] == scored["persons"] >= 3
    assert scored["idf1"] == scored["mota"] == 1.0
    assert scored["position_error_m"]["p50"] == pytest.approx(0.1, abs=1e-6)
    assert (scored["false_tracks"], scored["identity_switches"]) == (0, 0)
    assert (
        "followed, 0.10 m off"
        in truth.truth_lines(
            {
                "twin": scored,
                "faces": {"detector": "haar", "frames": 2, "camera": 3, "anonymized": 0},
            }
        )[0]
    )
