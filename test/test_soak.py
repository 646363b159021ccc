# SPDX-License-Identifier: Apache-2.0
"""What a soak makes of what it saw: growth is found, and told from a busy machine."""

from __future__ import annotations

import mmap
import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

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
