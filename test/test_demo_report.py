# SPDX-License-Identifier: Apache-2.0
"""The demo's figures and the collecting of a frame's parts."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from roi_codec_ros.lab.demo.ledger import DemoLedger
from roi_codec_ros.lab.demo.moments import FrameFacts, MomentStore, moment_at, spread
from roi_codec_ros.lab.demo.outputs import Run, write_contact_sheet, write_side_by_side
from roi_codec_ros.lab.demo.panels import PersonMark
from roi_codec_ros.lab.demo.report import (
    CameraRecord,
    Coding,
    Decoded,
    Detected,
    Latency,
    bit_rate,
    report,
    table_lines,
)

FACTS = FrameFacts((480, 640), (240, 320), 0, 960)


def record(frames: int = 20, every_s: float = 0.1) -> CameraRecord:
    """960 bytes for 320×240 coded pixels a frame; every second frame becomes persons."""
    made = CameraRecord("camera")
    for n in range(frames):
        arrival = 100 + n * every_s
        made.decoded.append(Decoded(arrival, 7 + n, 960, 76800, 307200, 8.0))
        if n % 10 == 9:  # once a second
            made.coding.append(Coding(arrival, 3 + n // 2, Latency(4.0, 6.0)))
        if n % 2 == 0:
            made.detected.append(Detected(arrival + 0.05, 50 + n, 150.0, 2))
    return made


def test_a_summary_adds_up():
    summary = record().summary(100, 102)
    assert summary.frames == 10
    assert summary.fps == pytest.approx(5)
    assert summary.bpp == pytest.approx(0.1)
    assert summary.kbit_s == pytest.approx(20 * 960 * 8 / 2 / 1000)
    assert summary.raw_kbit_s == pytest.approx(20 * 307200 * 24 / 2 / 1000, abs=0.1)
    assert summary.dropped == 5 + 10  # by the encoder, and between decoder and detector
    assert summary.encode_ms == Latency(4.0, 6.0)
    assert summary.detect_ms.p50 == pytest.approx(59)
    assert summary.end_to_end_ms.p95 == pytest.approx(150)
    assert summary.persons_mean == 2


def test_only_the_asked_time_counts():
    assert record().summary(101, 102).frames == 5
    assert record().summary(500, 501).frames == 0


def test_nothing_measured_is_null_not_zero():
    empty = CameraRecord("camera").summary(0, 1).as_dict()
    assert empty["frames"] == 0 and empty["fps"] == 0 and empty["dropped"] == 0
    assert empty["bpp"] is None and empty["persons_mean"] is None
    assert empty["encode_ms"] == {"p50": None, "p95": None}


def test_latencies_ignore_what_is_not_finite():
    assert Latency.of([1.0, 3.0, math.nan]) == Latency(2.0, 2.9)


def test_the_report_has_exactly_the_agreed_fields():
    content = report("fast", 2.0, [record().summary(100, 102)])
    assert set(content) == {"model", "seconds", "cameras"}
    assert list(content["cameras"][0]) == [
        *("name", "frames", "fps", "dropped", "bpp", "kbit_s", "raw_kbit_s"),
        *("encode_ms", "decode_ms", "detect_ms", "end_to_end_ms", "persons_mean"),
    ]


def test_the_table_is_aligned_and_fits_a_terminal():
    other = CameraRecord("x").summary(0, 1)
    lines = table_lines([record().summary(100, 102), other])
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) < 80


def test_bit_rates_choose_their_unit():
    assert bit_rate(96.4) == "96 kbit/s"
    assert bit_rate(73728) == "73.7 Mbit/s"


def store_with(frames: int, kept_s: float = 120.0) -> MomentStore:
    store = MomentStore(kept_s)
    for n in range(frames):
        stamp = n * 100_000_000
        store.add_image(stamp, np.full((24, 32, 3), 10 * n % 250, np.uint8))
        store.add_persons(stamp, (PersonMark((10, 10, 100, 300), 0.8, 1, (0.5, 3.0)),))
        facts = FrameFacts((480, 640), (240, 320), n, 960)
        store.add_facts(stamp, facts)
    return store


def test_a_moment_is_complete_when_all_its_parts_are_there():
    store = MomentStore()
    store.add_image(5, np.full((24, 32, 3), 77, np.uint8))
    store.add_persons(5, ())
    assert store.moments() == []
    store.add_facts(5, FACTS)
    [moment] = store.moments()
    assert moment.stamp_ns == 5 and moment.facts.bits_per_pixel == pytest.approx(0.1)
    assert np.abs(moment.image().astype(int) - 77).max() <= 2


def test_incomplete_frames_and_old_ones_are_let_go():
    store = MomentStore(kept_s=1.0)
    for stamp in range(100):
        store.add_image(stamp, np.zeros((2, 2, 3), np.uint8))
    store.add_facts(0, FACTS)
    store.add_persons(0, ())
    assert store.moments() == []
    assert [m.facts.source_position for m in store_with(30, kept_s=1.0).moments()] == list(
        range(19, 30)
    )


def test_moments_are_found_by_time_and_spread_evenly():
    moments = store_with(20).moments()
    assert moment_at(moments, 250_000_000).facts.source_position == 2
    assert moment_at(moments, -1) is None
    assert [m.facts.source_position for m in spread(moments, 4)] == [2, 7, 12, 17]
    assert spread(moments, 50) == moments


def test_the_results_show_the_source_beside_the_decoded_picture(tmp_path):
    asked = []

    def raw(position):
        asked.append(position)
        return np.full((480, 640, 3), 255, np.uint8)

    finished = Run(
        "fast",
        2.0,
        [record().summary(100, 102)],
        {"camera": store_with(20).moments()},
        {"camera": raw},
    )
    count = write_side_by_side(finished, tmp_path / "video.mp4")
    write_contact_sheet(finished, tmp_path / "sheet.png")
    assert asked[:20] == list(range(20))
    video = cv2.VideoCapture(str(tmp_path / "video.mp4"))
    assert count == video.get(cv2.CAP_PROP_FRAME_COUNT) == 20
    assert video.get(cv2.CAP_PROP_FPS) == 10
    found, frame = video.read()
    assert found and frame.shape == (434, 1488, 3)
    assert frame[200, 250].min() > 240 and frame[200, 740].max() < 40
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] == 1500 and len(np.unique(sheet)) > 50


def message(stamp_ns: int, **fields: object) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), **fields)


def feed(ledger: DemoLedger, stamp_ns: int, *, tracks_name_the_camera: bool) -> None:
    """One frame as it comes in: decoded, its picture, its persons, its tracks."""
    person = SimpleNamespace(
        x=1.0,
        y=2.0,
        width=30.0,
        height=40.0,
        score=0.5,
        track_id=0,
        position_valid=True,
        position=SimpleNamespace(x=0.5, y=0.0, z=3.0),
        velocity=SimpleNamespace(x=0.0, y=0.0, z=0.0),
        position_covariance=[1.0, 0.0, 0.0, 2.0],
    )
    sizes = {
        "original_height": 480,
        "original_width": 640,
        "coded_height": 240,
        "coded_width": 320,
    }
    counts = {"sequence": 1, "source_position": 4, "payload_bytes": 960}
    times = {"decode_ms": 2.0}
    values = {"dropped": "0", "encode_ms_p50": "1.234", "encode_ms_p95": ""}
    ledger.on_coding("camera", values)
    ledger.on_decoded("camera", message(stamp_ns, model="fast", **sizes, **counts, **times))
    ledger.on_image("camera", stamp_ns, np.zeros((240, 320, 3), np.uint8))
    ledger.on_persons(
        "camera", message(stamp_ns, camera="camera", detect_ms=3.0, persons=[person])
    )
    name = "camera" if tracks_name_the_camera else ""
    ledger.on_tracks(message(stamp_ns, camera=name, detect_ms=0.0, persons=[person, person]))


def test_the_ledger_names_the_first_silent_stage():
    ledger = DemoLedger(["a", "b"])
    assert ledger.silent_stage() == ("encoder", "a")
    ledger.on_latent("a")
    assert ledger.silent_stage() == ("encoder", "b")
    ledger.on_latent("b")
    assert ledger.silent_stage() == ("decoder", "a")


@pytest.mark.parametrize(("tracks_name_the_camera", "persons"), [(True, 2), (False, 1)])
def test_a_frame_has_come_through_with_its_tracks(tracks_name_the_camera, persons):
    ledger = DemoLedger(["camera"])
    feed(ledger, time.time_ns(), tracks_name_the_camera=tracks_name_the_camera)
    start_s = ledger.restart()
    feed(ledger, time.time_ns() - 100_000_000, tracks_name_the_camera=tracks_name_the_camera)
    assert ledger.silent_stage() is None and ledger.model == "fast"
    [summary] = ledger.summaries(start_s, start_s + 60)
    assert summary.frames == 1 and summary.persons_mean == persons
    assert summary.detect_ms.p50 == 3.0
    assert summary.encode_ms == Latency(1.23, None)
    assert 100 <= summary.end_to_end_ms.p50 < 10_000
    [moment] = ledger.moments()["camera"]
    assert moment.facts.source_position == 4
    assert moment.persons[0].position == (0.5, 3.0) and len(moment.persons) == persons
