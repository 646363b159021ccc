# SPDX-License-Identifier: Apache-2.0
"""The reader of films: upright frames with their times, or one error that names the file."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from phone_film import HEIGHT, MATRICES, WIDTH, write_phone_film

from roi_codec_ros.common.films import Film, FilmError
from roi_codec_ros.stream.frame_readers import open_source
from roi_codec_ros.stream.sources import parse_source

FRAMES, RATE_HZ = 5, 12.5


def upright(rotation_deg: int) -> tuple[int, int]:
    return (HEIGHT, WIDTH) if rotation_deg in (90, 270) else (WIDTH, HEIGHT)


def corner(image: np.ndarray) -> tuple[bool, bool]:
    """Whether the red square is right, and whether it is below."""
    rows, columns = np.nonzero(image[..., 0] > 60)
    return bool(columns.mean() > image.shape[1] / 2), bool(rows.mean() > image.shape[0] / 2)


@pytest.mark.parametrize("rotation_deg", list(MATRICES))
def test_frames_are_turned_as_the_film_says(tmp_path: Path, rotation_deg: int) -> None:
    with Film(write_phone_film(tmp_path / "a.mp4", rotation_deg)) as played:
        properties = played.properties
        frames = list(played)
    width, height = upright(rotation_deg)
    assert (properties.width, properties.height) == (width, height)
    assert properties.rotation_deg == rotation_deg
    assert properties.frame_rate_hz == RATE_HZ
    assert [frame.image.shape for frame in frames] == [(height, width, 3)] * FRAMES
    where = {0: (False, False), 90: (True, False), 180: (True, True), 270: (False, True)}
    assert corner(frames[0].image) == where[rotation_deg]


def test_frames_have_their_numbers_and_times(tmp_path: Path) -> None:
    with Film(write_phone_film(tmp_path / "a.mp4")) as played:
        frames = list(played)
        assert played.unreadable == 0
        assert not played.advance()
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert [frame.time_s for frame in frames] == pytest.approx(
        [number / RATE_HZ for number in range(FRAMES)], abs=1e-3
    )
    levels = [float(frame.image[4:12, 4:12, 0].mean()) for frame in frames]
    assert levels == sorted(levels)


def test_the_encoder_films_upright_what_a_phone_filmed_sideways(tmp_path: Path) -> None:
    reader = open_source(parse_source(str(write_phone_film(tmp_path / "phone.mp4", 90))))
    assert reader.frame_rate_hz == RATE_HZ
    assert reader.advance()
    image = reader.image()
    reader.close()
    assert image is not None
    assert image.shape == (WIDTH, HEIGHT, 3)
    assert corner(image) == (True, False)


def test_what_is_no_film_is_one_error_that_names_it(tmp_path: Path) -> None:
    cut = write_phone_film(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(bytes(1000))
    # FFmpeg would open the file that such a list names.
    listing = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp4").write_text(listing)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    reasons = {
        "cut.mp4": "nothing that OpenCV can play",
        "empty.mp4": "an empty file",
        "noise.mp4": "nothing that OpenCV can play",
        "list.mp4": "a text",
        "a.png": "a photograph",
        "absent.mp4": "no such file",
        ".": "a folder",
    }
    for name, reason in reasons.items():
        with pytest.raises(FilmError) as caught:
            Film(tmp_path / name)
        assert str(caught.value) == f"expected a film at {tmp_path / name}, found {reason}"
        assert pickle.loads(pickle.dumps(caught.value)).reason == reason


def test_a_name_is_never_taken_for_an_address(tmp_path: Path, monkeypatch) -> None:
    write_phone_film(tmp_path / "a.mp4").rename(tmp_path / "concat:%d.mp4")
    monkeypatch.chdir(tmp_path)
    with Film("concat:%d.mp4") as played:
        assert len(list(played)) == FRAMES
