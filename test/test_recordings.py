# SPDX-License-Identifier: Apache-2.0
"""Hiding in a recording: forward and backward, in order, with bounded memory."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.recordings import pipeline as pipelines
from roi_codec_ros.recordings.hiding import BothWays, Judged, Look, heads_of, judge
from roi_codec_ros.recordings.pipeline import Passage, Pipeline, Settings
from roi_codec_ros.recordings.recording_report import Inspector
from roi_codec_ros.recordings.sqlite_repair import without_broken_rows
from roi_codec_ros.regions import Regions, Thresholds
from roi_codec_ros.regions.finder import Faces


def judged(*found: tuple[int, int], shape: tuple[int, int] = (4, 6), there: bool = True) -> Judged:
    mask = np.zeros(shape, bool)
    for place in found:
        mask[place] = True
    return Judged(mask, np.full(shape, there), np.where(mask, 0.7, 0).astype(np.float32))


def played(memory_s: float, frames: list[tuple[float, Judged]]) -> dict[int, set]:
    both_ways: BothWays[int] = BothWays(memory_s)
    ready = []
    for number, (time_s, judgement) in enumerate(frames):
        ready += both_ways.add(number, time_s, judgement)
    ready += both_ways.flush()
    assert [item.frame for item in ready] == list(range(len(frames)))
    return {item.frame: set(map(tuple, np.argwhere(item.hidden).tolist())) for item in ready}


def test_a_head_hides_what_was_missed_before_and_after_it():
    frames = [(number / 10, judged(*([(1, 2)] if number == 5 else []))) for number in range(11)]

    hidden = played(0.35, frames)

    assert [number for number, places in hidden.items() if places] == [2, 3, 4, 5, 6, 7, 8]


def test_nothing_is_hidden_where_nothing_speaks_for_a_person():
    frames = [(0.0, judged((1, 2))), (0.1, judged(there=False))]

    assert played(0.5, frames) == {0: {(1, 2)}, 1: set()}


@pytest.mark.parametrize(
    "second", [(-5.0, judged()), (0.1, judged(shape=(5, 6)))], ids=["clock", "size"]
)
def test_another_film_is_not_hidden_by_this_one(second):
    assert played(0.5, [(0.0, judged((1, 2))), second])[1] == set()


def test_heads_tell_how_sure_they_are():
    hidden = np.zeros((4, 6), bool)
    hidden[1, 2] = hidden[3, 4:] = True

    held, found = sorted(heads_of(hidden, judged((1, 2))), key=lambda head: head.score)

    assert (held.box, held.score) == ((64, 48, 96, 64), 0.0)
    assert (found.box, found.score) == ((32, 16, 48, 32), pytest.approx(0.7))


def test_a_frame_between_two_that_were_judged_hides_what_they_hide_and_around_it():
    between = judge(np.zeros((64, 96, 3), np.uint8), Finder(), Look.NOTHING)

    hidden = played(0.01, [(0.0, judged((0, 0))), (0.1, between), (0.2, judged((3, 5)))])

    assert hidden[0] == {(0, 0)} and hidden[2] == {(3, 5)}
    assert hidden[1] == {(0, 0), (0, 1), (1, 0), (1, 1), (3, 5), (3, 4), (2, 5), (2, 4)}


def test_a_frame_between_two_that_could_not_be_judged_is_hidden_whole():
    between = judge(np.zeros((32, 16, 3), np.uint8), Finder(), Look.NOTHING)

    assert played(0.5, [(0.0, between)]) == {0: {(0, 0), (1, 0)}}


class Finder:
    """Finds a head where a frame is bright; cannot judge one of 13s."""

    thresholds = Thresholds()

    def find(self, image: np.ndarray) -> Regions:
        if (image == 13).all():
            raise RoiCodecError("expected finite numbers, found others")
        heads = (image[::16, ::16, 0] > 200).astype(np.float32)
        return Regions(heads=heads, persons=np.ones_like(heads), faces=Faces())

    def find_faces(self, image: np.ndarray) -> Regions:
        """One where it is brighter than any head from behind."""
        there = (image > 250).all()
        box, nothing = np.array([[0, 0, 16, 16]], np.float32), np.zeros((1, 1), np.float32)
        face = Faces(box, np.ones(1, np.float32)) if there else Faces()
        return Regions(heads=nothing, persons=nothing, faces=face)


class Grey:
    """A frame of one colour, whose output says how much is hidden."""

    def __init__(self, value: int, size_bytes: int = 0) -> None:
        self.value, self.size_bytes = value, size_bytes

    def image(self) -> np.ndarray:
        return np.full((16, 16, 3), self.value, np.uint8)

    def hide(self, hidden: np.ndarray) -> bool:
        return bool(hidden.all())

    def shown(self, output: bool) -> np.ndarray:
        return self.image()


def test_everything_comes_out_in_order_and_what_can_not_be_judged_does_not():
    out: list[Passage] = []
    with Pipeline(Settings(Finder, jobs=2, memory_s=0.25), out.append) as pipeline:
        for number in range(20):
            value = {10: 255, 15: 13}.get(number, 0)
            pipeline.put_frame(f"a{number}", Grey(value), number / 10, "a")
            pipeline.put(f"other{number}", b"data", number / 10, 4)
            pipeline.put_frame(f"b{number}", Grey(0), number / 10, "b")
        pipeline.finish()

    assert [p.tag for p in out] == [f"{k}{n}" for n in range(20) for k in ("a", "other", "b")]
    found = {p.tag: p.output for p in out}
    assert {tag for tag, output in found.items() if output is True} == {
        f"a{n}" for n in range(8, 13)
    }
    (dropped,) = [p for p in out if p.output is None]
    assert dropped.tag == "a15" and "expected finite numbers" in dropped.reason
    assert pipeline.cut_short == 0


def test_one_of_two_frames_is_judged_and_what_can_not_be_read_is_still_left_out():
    class Broken(Grey):
        def image(self) -> np.ndarray:
            raise RoiCodecError("expected colours, found depth")

    out: list[Passage] = []
    with Pipeline(Settings(Finder, memory_s=0.05, judge_every=2), out.append) as pipeline:
        for number in range(8):
            frame = Broken(0) if number == 5 else Grey(255 if number == 2 else 0)
            pipeline.put_frame(number, frame, number / 10)
        pipeline.finish()

    assert [p.tag for p in out] == list(range(8))
    assert [p.tag for p in out if p.output] == [1, 2, 3]
    assert [p.tag for p in out if p.output is None] == [5]


def test_between_two_frames_of_heads_faces_are_found_and_heads_are_remembered():
    between = Judged(judged((0, 5)).found, judged(there=False).there, judged().score, Look.FACES)

    hidden = played(0.01, [(0.0, judged((1, 1))), (0.1, between), (0.2, judged((1, 3)))])

    assert hidden == {0: {(1, 1)}, 1: {(0, 5), (1, 1), (1, 2), (1, 3)}, 2: {(1, 3)}}
    assert len(played(0.5, [(0.0, between)])[0]) == 4 * 6, "nobody knows where heads are"


def test_heads_from_behind_are_looked_for_now_and_then_and_faces_always():
    out: list[Passage] = []
    brightness = {4: 255, 9: 220}  # a face between two looks, a head from behind at one
    settings = Settings(Finder, memory_s=0.06, heads_every_s=0.08)
    with Pipeline(settings, out.append) as pipeline:
        for number in range(14):
            pipeline.put_frame(number, Grey(brightness.get(number, 0)), number / 33)
        pipeline.finish()

    assert [p.tag for p in out if p.judged and p.judged.look is Look.ALL] == [0, 3, 6, 9, 12]
    assert [p.tag for p in out if p.output] == [3, 4, 5, 7, 8, 9, 10, 11]


def test_what_is_held_is_bounded_and_what_that_costs_is_counted(monkeypatch):
    monkeypatch.setattr(pipelines, "MOST_HELD_BYTES", 1000)
    out: list[Passage] = []
    with Pipeline(Settings(Finder, memory_s=5.0), out.append) as pipeline:
        for number in range(20):
            pipeline.put_frame(number, Grey(0, 300), number / 10)
            assert number + 1 - len(out) <= 3
        pipeline.finish()

    assert [p.tag for p in out] == list(range(20))
    assert pipeline.cut_short > 10


def test_a_camera_that_falls_silent_keeps_nobody_waiting():
    out: list[Passage] = []
    with Pipeline(Settings(Finder, memory_s=0.5), out.append) as pipeline:
        pipeline.put_frame("frame", Grey(0), 0.0)
        for number in range(1, 200):
            pipeline.put(number, b"", number / 10, 1)
        while len(out) < 2:  # until the worker is through
            number += 1
            pipeline.put(number, b"", number / 10, 1)

        assert out[0].tag == "frame"


def test_a_report_shows_heads_that_were_hardly_found_not_those_held_from_other_frames():
    found = judged((0, 0))
    hidden = found.found.copy()
    hidden[3, 5] = True  # by a frame before
    frame = Grey(0)
    passage = Passage("a", frame=frame, judged=found, hidden=hidden, output=frame.image())

    inspection = Inspector("haar", every=1)(passage)

    assert [head.score for head in inspection.doubtful] == [pytest.approx(0.7)]


def test_a_database_is_copied_up_to_its_first_broken_row(tmp_path: Path) -> None:
    bag, copy = tmp_path / "cut.db3", tmp_path / "copy.db3"
    with closing(sqlite3.connect(bag)) as database:
        # AUTOINCREMENT: SQLite keeps a table of its own, which nobody may create.
        database.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB)")
        blobs = [(bytes([number]) * 5000,) for number in range(100)]
        database.executemany("INSERT INTO messages(data) VALUES (?)", blobs)
        database.commit()
    bag.write_bytes(bag.read_bytes()[: bag.stat().st_size // 2])

    kept, _ = without_broken_rows(bag, copy)

    with closing(sqlite3.connect(copy)) as database:
        found = database.execute("SELECT data FROM messages ORDER BY id").fetchall()
    assert kept == 5000 * len(found) and 20 < len(found) < 60
    assert found == blobs[: len(found)]
