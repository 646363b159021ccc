# SPDX-License-Identifier: Apache-2.0
"""`roi-codec anonymize` for films: the same frames at the same times, upright, without heads."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phone_film import HEIGHT, WIDTH, write_phone_film

from roi_codec_ros.cli import main
from roi_codec_ros.common.films import Film
from roi_codec_ros.recordings import film_parts
from roi_codec_ros.recordings.tally import CameraTally

av = pytest.importorskip("av")
TIMES_MS = (0, 40, 100, 120, 400, 430, 900)  # of a film without a steady rate
FACE = (slice(80, 160), slice(85, 165))


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut()[:256, 100:356])


def write_film(path: Path, picture: np.ndarray, codec: str = "libx264") -> Path:
    """A film with a tone, frames at `TIMES_MS`, and the place where it was taken."""
    with av.open(str(path), "w") as container:
        container.metadata["location"] = "+48.0000+008.0000/"
        video = container.add_stream(codec, rate=25, options={"crf": "10"})
        video.height, video.width = picture.shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for time_ms in TIMES_MS:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(video.encode(frame))
        for block in range(16):
            tone = np.sin(np.arange(1024) / 10).astype(np.float32)[None]
            samples = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            samples.rate, samples.pts = 16000, 1024 * block
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [bytes(p) for p in container.demux(audio=0) if p.size]


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(f.time, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx265")])
def test_a_film_keeps_its_times_its_codec_and_its_sound(tmp_path, astronaut, name, codec):
    source, target = write_film(tmp_path / name, astronaut, codec), tmp_path / "out" / name

    assert main(["anonymize", str(source), str(target)]) == 0

    before, after = frames_of(source), frames_of(target)
    assert [time for time, _ in after] == pytest.approx([t / 1000 for t in TIMES_MS], abs=1e-3)
    assert sound_of(target) == sound_of(source) != []
    for (_, old), (_, new) in zip(before, after, strict=True):
        assert np.abs(new[FACE].astype(float) - old[FACE]).mean() > 15
        # Most of the picture is no head, and hardly differs.
        assert np.median(np.abs(new.astype(int) - old)) <= 4
    with av.open(str(source)) as old, av.open(str(target)) as new:
        codecs = [c.streams.video[0].codec_context.name for c in (old, new)]
        assert codecs[0] == codecs[1]
        assert "location" not in new.metadata
    assert b"+48.0000" not in target.read_bytes()


def test_without_audio_nobody_is_heard(tmp_path, astronaut, capsys):
    source = write_film(tmp_path / "a.mp4", astronaut)

    assert main(["anonymize", str(source), str(tmp_path / "b.mp4"), "--no-audio"]) == 0

    assert sound_of(tmp_path / "b.mp4") == []
    assert "streams that are not copied: audio" in capsys.readouterr().err


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_a_film_of_a_phone_stays_upright(tmp_path, rotation_deg):
    source = write_phone_film(tmp_path / "a.mp4", rotation_deg)

    assert main(["anonymize", str(source), str(tmp_path / "b.mp4")]) == 0

    with Film(source) as old, Film(tmp_path / "b.mp4") as new:
        size = (HEIGHT, WIDTH) if rotation_deg != 180 else (WIDTH, HEIGHT)
        assert (new.properties.width, new.properties.height) == size
        assert new.properties.rotation_deg == 0
        for before, after in zip(old, new, strict=True):
            difference = np.abs(before.image.astype(int) - after.image)
            assert difference.mean() < 8


def test_frames_go_through_a_pipe(tmp_path, astronaut):
    source = write_film(tmp_path / "a.mp4", astronaut)
    with av.open(str(tmp_path / "a.y4m"), "w", format="yuv4mpegpipe") as container:
        stream = container.add_stream("wrapped_avframe", rate=25)
        stream.height, stream.width = astronaut.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _, picture in frames_of(source):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
    command = [sys.executable, "-m", "roi_codec_ros.cli", "anonymize", "-", "-"]
    with (tmp_path / "a.y4m").open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
    (tmp_path / "b.y4m").write_bytes(done.stdout)
    before, after = frames_of(tmp_path / "a.y4m"), frames_of(tmp_path / "b.y4m")
    assert len(after) == len(before) == len(TIMES_MS)
    assert np.abs(after[0][1][FACE].astype(float) - before[0][1][FACE]).mean() > 15
    assert np.mean((after[0][1] == before[0][1]).all(axis=2)) > 0.3


def test_a_film_whose_run_was_killed_goes_on(tmp_path, astronaut, monkeypatch):
    monkeypatch.setattr(film_parts, "PART_FRAMES", 3)
    source = write_film(tmp_path / "a.mp4", astronaut)
    add, frames = CameraTally.add, 0
    assert main(["anonymize", str(source), str(tmp_path / "once.mp4")]) == 0

    def killed(*args: Any) -> None:
        nonlocal frames
        frames += 1
        if frames > 5:
            raise KeyboardInterrupt
        add(*args)

    with monkeypatch.context() as context:
        context.setattr(CameraTally, "add", killed)
        assert main(["anonymize", str(source), str(tmp_path / "b.mp4")]) == 130
    assert not (tmp_path / "b.mp4").exists()
    result = tmp_path / "b.json"
    with monkeypatch.context() as context:
        begun: list[int] = []
        begin = film_parts.FilmParts.begin
        context.setattr(
            film_parts.FilmParts, "begin", lambda *args: begun.append(1) or begin(*args)
        )
        command = ["anonymize", str(source), str(tmp_path / "b.mp4"), "--json", str(result)]
        assert main(command) == 0

    assert len(begun) == 2, "the first of three parts is there"
    once, again = frames_of(tmp_path / "once.mp4"), frames_of(tmp_path / "b.mp4")
    assert [time for time, _ in again] == pytest.approx([t / 1000 for t in TIMES_MS], abs=1e-3)
    for (_, old), (_, new) in zip(once, again, strict=True):
        np.testing.assert_array_equal(new, old)
    assert sound_of(tmp_path / "b.mp4") == sound_of(source)
    (camera,) = json.loads(result.read_bytes())["cameras"]
    assert camera["frames"] == len(TIMES_MS)
    assert not list(tmp_path.glob(".*"))


def test_what_is_no_film_is_said(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"\0\1\2 no film")

    assert main(["anonymize", str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]) == 1

    assert "expected a film at" in capsys.readouterr().err
    assert not (tmp_path / "b.mp4").exists()
