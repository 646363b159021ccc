# SPDX-License-Identifier: Apache-2.0
"""The virtual camera over photographs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.simulation import photograph_cameras as demo_source
from roi_codec_ros.lab.simulation.photograph_cameras import (
    Shot,
    SourceFrames,
    View,
    film,
    glide,
    installed_shots,
    look,
    photograph_cameras,
    render_film,
    view_rectangle,
)
from roi_codec_ros.stream.frame_readers import open_source
from roi_codec_ros.stream.sources import parse_source

SIZE = (48, 64)


@pytest.fixture
def shots(tmp_path: Path) -> list[Shot]:
    """Two small photographs, one red and one with a gradient, 0.4 s each: 6 frames at 15 fps."""
    red = np.zeros((96, 128, 3), np.uint8)
    red[..., 2] = 255
    gradient = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 96, axis=0)
    cv2.imwrite(str(tmp_path / "red.png"), red)
    cv2.imwrite(str(tmp_path / "gradient.png"), np.repeat(gradient, 3, axis=2))
    views = (View(0.5, 0.5, 1.0), View(0.9, 0.5, 0.5))
    return [Shot(tmp_path / name, views, 0.4) for name in ("red.png", "gradient.png")]


def test_a_glide_passes_through_its_views_and_never_jumps():
    views = (View(0.2, 0.5, 1.0), View(0.6, 0.4, 0.6), View(0.5, 0.5, 1.0))
    path = [glide(views, t) for t in np.linspace(0, 1, 101)]
    for view, index in zip(views, (0, 50, 100), strict=True):
        assert (path[index].x, path[index].y, path[index].width) == pytest.approx(
            (view.x, view.y, view.width)
        )
    steps = np.diff([view.x for view in path])
    assert np.abs(np.diff(steps)).max() < 0.002


def test_one_view_stands_still():
    assert glide([View(0.3, 0.4, 0.5)], 0.7) == View(0.3, 0.4, 0.5)


@pytest.mark.parametrize("photograph", [(1080, 810), (720, 1280), (512, 512), (3, 5)])
@pytest.mark.parametrize("view", [View(0.5, 0.5, 1), View(0, 0, 0.5), View(1, 1, 0.3)])
def test_a_view_stays_inside_the_photograph_and_keeps_the_aspect(photograph, view):
    x, y, width, height = view_rectangle(view, photograph, (480, 640))
    assert width / height == pytest.approx(640 / 480)
    assert x >= 0 and y >= 0
    assert x + width <= photograph[1] + 1e-9 and y + height <= photograph[0] + 1e-9


def test_the_whole_view_of_a_picture_of_the_frames_size_is_that_picture():
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert np.array_equal(look(picture, View(0.5, 0.5, 1.0), SIZE), picture)


def test_half_the_view_is_the_middle_magnified_twice():
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[12:36, 16:48] = 200
    seen = look(picture, View(0.5, 0.5, 0.5), SIZE)
    assert seen[4:-4, 4:-4].min() == 200


def test_a_large_photograph_is_shrunk_by_area():
    stripes = np.zeros((480, 640, 3), np.uint8)
    stripes[:, ::2] = 200  # finer than the frame can show: becomes grey, not stripes
    seen = look(stripes, View(0.5, 0.5, 1.0), SIZE)
    assert np.abs(seen.astype(int) - 100).max() <= 1


def test_the_phase_turns_the_film_round(shots):
    frames = list(film(shots, frame_size=SIZE))
    turned = list(film(shots, frame_size=SIZE, phase=0.5))
    assert len(frames) == len(turned) == 12
    assert frames[0][..., 2].min() == 255 and frames[0][..., 0].max() == 0
    assert np.array_equal(turned[0], frames[6])
    assert np.array_equal(turned[6], frames[0])


def test_every_frame_can_be_read_again_by_its_position(shots, tmp_path):
    video = tmp_path / "film.avi"
    assert render_film(video, film(shots, frame_size=SIZE), frame_size=SIZE) == 12
    source = parse_source(str(video))
    reader = open_source(source)
    played = []
    while reader.advance():
        played.append(reader.image())
    assert len(played) == 12
    with SourceFrames(lambda: open_source(source)) as again:
        for position in (3, 3, 11, 0, 7):
            assert np.array_equal(again.read(position), played[position])
        assert again.read(12) is None
        assert again.read(-1) is None
        assert np.array_equal(again.read(5), played[5])


def test_a_folder_is_read_again_in_the_encoders_order(tmp_path):
    for value, name in ((10, "b.png"), (20, "a.png"), (30, "c.png")):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), value, np.uint8))
    source = parse_source(str(tmp_path))
    with SourceFrames(lambda: open_source(source)) as frames:
        assert [int(frames.read(n)[0, 0, 0]) for n in range(3)] == [20, 10, 30]


def test_a_film_is_rendered_once_and_whole(shots, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_source, "installed_shots", lambda: shots)
    rendered = []
    videos = photograph_cameras(2, [tmp_path / "cache"], rendered.append)
    assert len(videos) == len(set(videos)) == len(rendered) == 2
    assert photograph_cameras(2, [tmp_path / "cache"], rendered.append) == videos
    assert len(rendered) == 2
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(
        video.name for video in videos
    )


def test_an_interrupted_rendering_leaves_nothing(tmp_path):
    def frames():
        yield np.zeros((*SIZE, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_film(tmp_path / "film.avi", frames(), frame_size=SIZE)
    assert list(tmp_path.iterdir()) == []


def test_the_next_folder_is_taken_where_one_cannot_be_made(shots, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_source, "installed_shots", lambda: shots)
    (tmp_path / "file").touch()
    [video] = photograph_cameras(1, [tmp_path / "file" / "cache", tmp_path / "other"])
    assert video.parent == tmp_path / "other"
    with pytest.raises(RoiCodecError, match="expected a folder"):
        photograph_cameras(1, [tmp_path / "file" / "cache"])


def test_without_the_packages_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(demo_source, "package_root", lambda package: None)
    with pytest.raises(RoiCodecError, match="--source"):
        installed_shots()


def test_the_installed_photographs_are_there():
    pytest.importorskip("ultralytics")
    names = [shot.photograph.name for shot in installed_shots()]
    assert names[:2] == ["bus.jpg", "zidane.jpg"]
