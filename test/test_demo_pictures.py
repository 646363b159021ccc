# SPDX-License-Identifier: Apache-2.0
"""The demo's pictures, by the pixels that matter."""

from __future__ import annotations

import math

import numpy as np
import pytest

from roi_codec_ros.lab.demo.camera_map import (
    MapGeometry,
    MapScale,
    _draw_distance,
    bearing_rad,
    map_panel,
    nice_range_m,
    ring_step_m,
)
from roi_codec_ros.lab.demo.layout import (
    CAPTION_PX,
    MARGIN_PX,
    TITLE_PX,
    Layout,
    camera_maps,
    contact_sheet,
)
from roi_codec_ros.lab.demo.map_marks import overlap
from roi_codec_ros.lab.demo.panels import (
    PERSON_COLOURS,
    PersonMark,
    View,
    box_in_panel,
    draw_persons,
    fit_text,
    letterbox,
    person_label,
    put_text,
    text_size,
)


def plain(value: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def test_letterbox_keeps_the_aspect_and_centres():
    panel, place = letterbox(plain(200, (100, 200)), (300, 300))
    assert place == (0, 75, 300, 150)
    assert (panel[75:225] == 200).all()
    assert (panel[:75] != 200).all()


def test_a_box_of_the_original_lands_on_the_shown_picture():
    assert box_in_panel((64, 48, 320, 240), (480, 640), (0, 75, 320, 240)) == (32, 99, 192, 219)


def test_a_box_beyond_the_border_is_cut():
    assert box_in_panel((-50, -50, 9000, 9000), (480, 640), (10, 20, 320, 240)) == (
        10,
        20,
        329,
        259,
    )


def test_the_box_is_drawn_in_the_tracks_colour():
    panel = plain(0, (240, 320))
    draw_persons(panel, [PersonMark((100, 100, 100, 200), 0.9, 3)], (480, 640), (0, 0, 320, 240))
    assert tuple(panel[100, 50]) == PERSON_COLOURS[2]  # the left edge, halfway down
    assert tuple(panel[100, 75]) == (0, 0, 0)


@pytest.mark.parametrize(
    "box", [(0, 0, 1, 1), (639, 479, 5, 5), (-900, 0, 10, 10), (600, 0, 40, 9)]
)
def test_any_box_can_be_drawn(box):
    panel = plain(0, (240, 320))
    draw_persons(panel, [PersonMark(box, 0.5)], (480, 640), (0, 0, 320, 240))
    assert panel.any()


def test_labels_name_the_track_where_there_is_one():
    assert person_label(PersonMark((0, 0, 1, 1), 0.914, 7)) == "#7  91 %"
    assert person_label(PersonMark((0, 0, 1, 1), 0.5)) == "50 %"


def test_text_is_drawn_where_it_was_asked_for():
    image = plain(0, (40, 200))
    put_text(image, "persons", (190, 5), size=16, align="right", colour=(255, 255, 255))
    columns = np.flatnonzero(image.any(axis=(0, 2)))
    width, _ = text_size("persons", 16)
    assert 190 - width <= columns.min() and columns.max() < 190
    assert image.max() > 200


@pytest.mark.parametrize("position", [(-500, 0), (0, -500), (500, 5), (-5, -5), (195, 35)])
def test_text_outside_is_cut(position):
    put_text(plain(0, (40, 200)), "persons", position)


def test_long_text_is_cut_to_its_room():
    text = fit_text("a very long caption indeed", 14, 80)
    assert text.endswith("...") and text_size(text, 14)[0] <= 80
    assert fit_text("short", 14, 80) == "short"


def test_the_map_counts_metres():
    geometry = MapGeometry((360, 480), MapScale(range_m=8.0))
    assert geometry.pixels_per_metre == pytest.approx((360 - 34 - 16) / 8)
    assert geometry.pixel(0, 0) == (240, 326)
    column, row = geometry.pixel(-2, 4)
    assert column == pytest.approx(240 - 2 * geometry.pixels_per_metre)
    assert row == pytest.approx(326 - 4 * geometry.pixels_per_metre)


def test_a_person_is_a_dot_at_its_position():
    scale = MapScale(range_m=8.0)
    person = PersonMark((0, 0, 1, 1), 0.9, 1, position=(1.5, 4.0))
    column, row = MapGeometry((360, 480), scale).pixel(1.5, 4.0)
    picture = map_panel([person], (480, 640), (360, 480), scale)
    assert tuple(picture[round(row), round(column)]) == PERSON_COLOURS[0]
    empty = map_panel([], (480, 640), (360, 480), scale)
    assert tuple(empty[round(row), round(column)]) != PERSON_COLOURS[0]


def test_the_spread_is_drawn_along_its_long_axis():
    scale = MapScale(range_m=8.0)
    geometry = MapGeometry((360, 480), scale)
    here = PersonMark((0, 0, 1, 1), 0.9, 1, (0.0, 4.0), covariance=(0.01, 0, 0, 0.25))
    changed = map_panel([here], (480, 640), (360, 480), scale) != map_panel(
        [], (480, 640), (360, 480), scale
    )
    column, row = (round(value) for value in geometry.pixel(0.0, 4.0))
    one_metre = round(geometry.pixels_per_metre)
    assert changed[row - one_metre, column].any() and changed[row + one_metre, column].any()
    assert not changed[row + 15, column - one_metre].any()


def test_far_persons_are_kept_at_the_border():
    scale = MapScale(range_m=4.0)
    far = PersonMark((0, 0, 1, 1), 0.9, 1, position=(0.0, 50.0))
    picture = map_panel([far], (480, 640), (360, 480), scale)
    changed = (picture != map_panel([], (480, 640), (360, 480), scale)).any(axis=2)
    assert changed.any() and np.flatnonzero(changed.any(axis=1)).max() < 40


def test_distances_do_not_cover_each_other():
    scale = MapScale(range_m=8.0)
    near = [PersonMark((0, 0, 1, 1), 0.9, n, position=(0.1 * n, 4.0)) for n in range(1, 5)]
    geometry = MapGeometry((360, 480), scale)
    taken: list = []
    for person in near:
        taken.append(_draw_distance(plain(0, (360, 480)), geometry, person, taken))
    assert not any(overlap(a, b) for n, a in enumerate(taken) for b in taken[:n])


def test_bearings_follow_the_pinhole():
    assert bearing_rad((310, 0, 20, 10), 640, 60) == pytest.approx(0)
    assert math.degrees(bearing_rad((640, 0, 0, 10), 640, 60)) == pytest.approx(30)
    assert math.degrees(bearing_rad((0, 0, 0, 10), 640, 60)) == pytest.approx(-30)


def test_a_person_without_position_is_a_ray():
    scale = MapScale(range_m=8.0, field_of_view_deg=60)
    person = PersonMark((310, 0, 20, 10), 0.9, 1)
    changed = (
        map_panel([person], (480, 640), (360, 480), scale)
        != map_panel([], (480, 640), (360, 480), scale)
    ).any(axis=2)
    columns = np.flatnonzero(changed.any(axis=0))
    assert abs(columns.min() - 240) <= 4 and abs(columns.max() - 240) <= 4
    assert np.ptp(np.flatnonzero(changed.any(axis=1))) > 200


@pytest.mark.parametrize(
    ("distances", "range_m"), [([], 8), ([1.0], 4), ([5.0] * 99 + [300], 6), ([100.0], 32)]
)
def test_the_range_is_round_and_shows_nearly_all(distances, range_m):
    assert nice_range_m(distances) == range_m


@pytest.mark.parametrize("range_m", [4, 6, 8, 12, 16, 24, 32])
def test_there_are_three_to_five_rings(range_m):
    assert 3 <= range_m / ring_step_m(range_m) <= 5


@pytest.mark.parametrize(("cameras", "with_raw"), [(1, True), (2, True), (1, False), (6, True)])
def test_side_by_side_has_the_size_it_says(cameras, with_raw):
    layout = Layout.of(cameras, (480, 640), with_raw=with_raw)
    views = [View(f"camera{n}", plain(90), plain(60), (480, 640)) for n in range(cameras)]
    picture = layout.compose(views, camera_maps(views, layout.map_size))
    assert picture.shape == (*layout.size, 3) and picture.dtype == np.uint8
    assert layout.size[0] % 2 == layout.size[1] % 2 == 0
    assert layout.size[0] <= 1440


def test_one_camera_is_three_panels_of_480():
    assert Layout.of(1, (480, 640)).size == (
        TITLE_PX + 360 + CAPTION_PX + MARGIN_PX,
        3 * 480 + 4 * MARGIN_PX,
    )


def test_camera_left_and_anonymized_beside_it():
    layout = Layout.of(1, (480, 640))
    views = [View("camera", plain(90), plain(60), (480, 640))]
    picture = layout.compose(views, camera_maps(views, layout.map_size))
    row = TITLE_PX + 180
    assert tuple(picture[row, MARGIN_PX + 240]) == (90, 90, 90)
    assert tuple(picture[row, 2 * MARGIN_PX + 480 + 240]) == (60, 60, 60)


def test_without_raw_the_anonymized_picture_comes_first():
    layout = Layout.of(1, (480, 640), with_raw=False)
    views = [View("camera", None, plain(60), (480, 640))]
    picture = layout.compose(views, camera_maps(views, layout.map_size))
    assert tuple(picture[TITLE_PX + 180, MARGIN_PX + 240]) == (60, 60, 60)
    assert layout.size[1] == 2 * 480 + 3 * MARGIN_PX


def test_the_sheet_has_a_cell_for_each_moment():
    moments = [(View("c", plain(10 * n + 20), plain(200), (480, 640)), "") for n in range(6)]
    page = contact_sheet(moments, title="t", columns=3, cell_width=200)
    assert page.shape[1] == 3 * (200 + MARGIN_PX) + MARGIN_PX
    for n in range(6):
        assert (page == 10 * n + 20).all(axis=2).sum() >= 0.95 * 200 * 150
    assert (page == 200).all(axis=2).sum() >= 0.95 * 6 * 200 * 150


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], title="t")
