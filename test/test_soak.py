# SPDX-License-Identifier: Apache-2.0
"""What a soak makes of what it saw: growth is found, and told from a busy machine."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.lab.tools.burst import Burst, burst_line
from roi_codec_ros.lab.tools.soak import (
    Passage,
    ProcessSample,
    SoakBook,
    Span,
    first_and_last,
    sample_process,
    soak_result,
    table_lines,
)

WHOLE = Span(1000.0, 2800.0)
FIRST, LAST = first_and_last(WHOLE, warmup_s=120.0, window_s=300.0)


def process(mib_per_hour: float, start_mib: float = 500.0) -> list[ProcessSample]:
    times = np.arange(WHOLE.start_s, WHOLE.end_s, 5.0)
    hours = (times - WHOLE.start_s) / 3600
    return [
        ProcessSample(at_s, start_mib + mib_per_hour * hour, 300.0, 15, 20, waited_s=360 * hour)
        for at_s, hour in zip(times.tolist(), hours.tolist(), strict=True)
    ]


def book_of(passages: list[Passage]) -> SoakBook:
    book = SoakBook(["camera1"])
    book._passages = passages
    return book


def passages(ms_per_hour: float = 0.0, noise_ms: float = 0.0) -> list[Passage]:
    """Two a second; the noise delays half of them, more and more."""
    times = np.arange(WHOLE.start_s, WHOLE.end_s, 0.5)
    late = np.random.default_rng(1).random(len(times)) < 0.5
    hours = (times - WHOLE.start_s) / 3600
    latencies = 200.0 + ms_per_hour * hours + noise_ms * hours * late
    return [Passage(at_s, ms) for at_s, ms in zip(times.tolist(), latencies.tolist(), strict=True)]


def test_the_first_minutes_after_the_warm_up_are_held_against_the_last():
    assert first_and_last(WHOLE, 120.0, 300.0) == (Span(1120.0, 1420.0), Span(2500.0, 2800.0))
    assert first_and_last(Span(0.0, 60.0), 20.0, 300.0) == (Span(20.0, 40.0), Span(40.0, 60.0))
    burst = Span(35.0, 45.0)
    parted = first_and_last(Span(0.0, 60.0), 20.0, 300.0, burst)
    assert parted == (Span(20.0, 35.0), Span(45.0, 60.0))


def test_what_stays_is_flat_and_steady():
    result = soak_result({"decoder": process(1.0)}, book_of(passages()), FIRST, LAST)

    assert result["memory_flat"] and result["latency_steady"]
    assert result["processes"]["decoder"]["rss_mib_per_hour"] == pytest.approx(1.0)
    assert result["frames"]["last"]["per_minute"] == pytest.approx(120.0)
    assert result["waited"]["first"] == pytest.approx(0.1, abs=0.01)
    assert table_lines(result)[-1].startswith("memory flat within 2%, latency does not creep")


def test_one_process_that_grows_is_not_hidden_by_the_others():
    grows = {"decoder": process(1.0, 4000.0), "tracker": process(8.0, 100.0)}

    result = soak_result(grows, book_of(passages()), FIRST, LAST)

    assert not result["memory_flat"]
    assert result["together"]["rss_mib"]["growth"] < 0.01
    assert result["processes"]["tracker"]["rss_mib"]["growth"] > 0.02


def test_a_queue_that_grows_is_found_and_a_busy_machine_is_not_taken_for_one():
    queue = soak_result({"d": process(0)}, book_of(passages(ms_per_hour=100)), FIRST, LAST)
    busy = soak_result({"d": process(0)}, book_of(passages(noise_ms=5000)), FIRST, LAST)

    assert not queue["latency_steady"]
    assert busy["latency_steady"]
    assert busy["latency_ms"]["last"]["p95"] > 1.5 * busy["latency_ms"]["first"]["p95"]


def test_frames_that_stop_are_no_steady_latency():
    stopped = [passage for passage in passages() if passage.at_s < LAST.start_s]

    result = soak_result({"d": process(0)}, book_of(stopped), FIRST, LAST)

    assert not result["latency_steady"]
    assert result["frames"]["last"]["per_minute"] == 0


def test_frames_are_noted_as_the_monitor_hears_them():
    book = SoakBook(["camera1", "camera2"])
    stamp_ns = time.time_ns() - 250_000_000
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    tracks = SimpleNamespace(camera="camera1", header=SimpleNamespace(stamp=stamp))
    started_s = time.monotonic() - 1

    for sequence in (7, 9):
        book.on_decoded("camera1", SimpleNamespace(sequence=sequence))
    book.on_tracks(tracks)

    assert book.silent_stage() == ("tracker", "camera2")
    assert book.passages()[0].latency_ms >= 250
    assert book.sent(Span(started_s, time.monotonic() + 1)) == 3


def test_a_process_is_looked_at():
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    before = sample_process(os.getpid())
    thread.start()
    # Pages of its own: an array could lie in memory that the process already has.
    ballast = mmap.mmap(-1, 128 << 20)
    ballast.write(bytes(len(ballast)))

    after = sample_process(os.getpid())
    release.set()
    ballast.close()

    assert before is not None and after is not None
    assert after.rss_mib - before.rss_mib == pytest.approx(128, abs=16)
    assert after.threads == before.threads + 1
    assert after.files == before.files
    assert sample_process(2**22 + 1) is None


BURST = Burst(Span(1900.0, 1910.0), factor=4.0)


def passages_around_a_burst(late_for_s: float, camera: str = "camera1") -> list[Passage]:
    """One a second; from the burst on, for so long after it, a second late."""
    taken = np.arange(WHOLE.start_s, WHOLE.end_s)
    late = (taken >= BURST.span.start_s) & (taken < BURST.span.end_s + late_for_s)
    ages = np.where(late, 1200.0, 200.0)
    return [
        Passage(at_s + age_ms / 1e3, age_ms, camera)
        for at_s, age_ms in zip(taken.tolist(), ages.tolist(), strict=True)
    ]


def test_a_burst_that_is_shed_is_forgotten_at_once():
    book = book_of(passages_around_a_burst(late_for_s=0.0))

    result = BURST.result(book, ["camera1"], WHOLE, rate_hz=1.0)

    assert (result["asked"], result["through"], result["late_s"]) == (40, 10, 0.0)
    assert result["forgotten"]
    assert [row["p50"] for row in result["latency_ms"].values()] == [200.0, 1200.0, 200.0]
    assert burst_line(result).endswith("p50 200 → 1200 → 200 ms; late for 0.0 s after it")


def test_a_burst_that_waits_in_a_queue_is_found_in_any_camera():
    queue = passages_around_a_burst(late_for_s=6.0, camera="camera2")
    book = book_of([*passages_around_a_burst(late_for_s=1.0), *queue])

    result = BURST.result(book, ["camera1", "camera2"], WHOLE, rate_hz=1.0)

    assert result["late_s"] == 5.0
    assert not result["forgotten"]
    # A camera of which nothing comes any more is late to the end.
    gone = BURST.result(book, ["camera1", "camera3"], WHOLE, rate_hz=1.0)
    assert gone["late_s"] == WHOLE.end_s - BURST.span.end_s


def test_a_run_that_a_burst_does_not_fit_into_is_wrong_use(capsys):
    assert main(["soak", "--minutes", "2.4", "--burst"]) == 2
    assert "expected 30 s or more after the warm-up around a burst" in capsys.readouterr().err
    assert main(["soak", "--minutes", "1"]) == 2
    assert "expected more minutes than the 2 of the warm-up" in capsys.readouterr().err


def test_cameras_of_a_running_graph_take_a_burst(tmp_path):
    for needed in ("rclpy", "roi_codec_ros.msg", "ultralytics"):
        pytest.importorskip(needed)
    found = tmp_path / "soak.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("ROS_DOMAIN_ID", None)
    short = ["--minutes", "0.3", "--warmup", "0.05", "--window", "0.1", "--cameras", "1"]
    burst = ["--rate", "1", "--burst", "--burst-s", "4"]
    ended = subprocess.run(
        [sys.executable, "-m", "roi_codec_ros.cli", "soak", *short, *burst,
         "--out", str(tmp_path / "soak"), "--json", str(found)],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip

    assert found.is_file(), ended.stderr
    report = json.loads(found.read_text())
    assert ended.returncode in (0, 1)  # whether memory and latency stay takes longer to tell
    assert report["burst"]["asked"] == pytest.approx(16, abs=2)
    assert report["burst"]["sent"] > 6  # where there were 4 before
    assert report["frames"]["last"]["sent_per_minute"] < 120  # and 60 again after it
    assert "burst of 4 times the rate for 4 s" in ended.stdout
