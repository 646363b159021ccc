# SPDX-License-Identifier: Apache-2.0
"""The figures of `roi-codec bench --server`, from books whose sums are known."""

from __future__ import annotations

import os

import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.lab.tools.server_bench import Usage, saturates_at, summary

MS, S = 10**6, 10**9
BEFORE, AFTER = Usage(10 * S, 3.0, 0), Usage(20 * S, 8.0, 200 << 20)


def books(lost: int) -> dict[str, dict]:
    """Two cameras of 10 Hz from second 8 to 22; of the first, `lost` frames from 12 s on are."""
    stamps = {
        camera: [8 * S + offset + index * S // 10 for index in range(140)]
        for camera, offset in (("a", 0), ("b", 50 * MS))
    }
    gone = set(stamps["a"][40 : 40 + lost])
    persons = {
        camera: [[stamp, stamp + (index % 100 + 1) * MS] for index, stamp in enumerate(all_of)]
        for camera, all_of in stamps.items()
    }
    persons["a"] = [pair for pair in persons["a"] if pair[0] not in gone]
    return {"sent": stamps, "persons": persons}


def test_only_frames_that_were_sent_in_the_time_count_wherever_their_persons_come_later():
    row = summary(**books(lost=0), dropped={}, before=BEFORE, after=AFTER)

    assert (row["cameras"], row["in_fps"], row["out_fps"]) == (2, 20.0, 20.0)
    assert row["dropped"] == {"total": 0, "decoder": 0, "detector": 0}
    # 100 frames of each camera, late by 1 to 100 ms, each once
    assert row["latency_ms"]["p50"] == pytest.approx(50.5)
    assert row["latency_ms"]["p95"] == pytest.approx(95.5, abs=0.6)
    assert row["latency_ms"]["p99"] == pytest.approx(99.5, abs=0.6)
    assert (row["cpu_percent"], row["memory_mib"]) == (50.0, 200.0)
    assert row["saturated"] is False


@pytest.mark.parametrize(("lost", "saturated"), [(10, False), (11, True)])
def test_a_server_is_saturated_below_95_of_100_frames(lost: int, saturated: bool):
    row = summary(**books(lost), dropped={}, before=BEFORE, after=AFTER)

    assert row["dropped"]["total"] == lost
    assert row["out_fps"] == pytest.approx(20.0 - lost / 10)
    assert row["saturated"] is saturated


def test_what_the_nodes_count_is_read_between_their_diagnostics():
    """A reading each second: half a second of each end is outside the time."""
    readings = {
        "decoder: a": [
            [round(t * S), 4 * index] for index, t in enumerate([9.5, 10.5, 19.5, 20.5])
        ],
        "decoder: b": [[round(9.5 * S), 7], [round(20.5 * S), 7]],
        "detector: a": [[round(9.5 * S), 100], [round(20.5 * S), 122]],
        "tracker: a": [[round(9.5 * S), 0], [round(20.5 * S), 99]],
    }

    row = summary(**books(0), dropped=readings, before=BEFORE, after=AFTER)

    assert row["dropped"]["decoder"] == 8  # from 2 at 10 s to 10 at 20 s
    assert row["dropped"]["detector"] == 20


def test_where_nothing_comes_there_are_no_latencies():
    silent = {"sent": books(0)["sent"], "persons": {"a": [], "b": []}}

    row = summary(**silent, dropped={}, before=BEFORE, after=AFTER)

    assert row["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert row["dropped"]["total"] == 200
    assert row["saturated"] is True


def test_it_saturates_at_the_least_number_of_cameras_that_is_too_many():
    rows = [{"cameras": n, "saturated": n > 3} for n in (16, 1, 4, 2, 8)]

    assert saturates_at(rows) == 4
    assert saturates_at(rows[1:2]) is None


def test_usage_is_that_of_the_processes_and_nothing_for_one_that_has_ended():
    usage = Usage.of([os.getpid(), 2**22 + 1], at_ns=5)

    assert usage.at_ns == 5
    assert usage.cpu_s > 0
    assert 1 << 20 < usage.resident_bytes < 1 << 36


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sizes", "64x64", "96x96"], "expected one value for --sizes with --server, found 2"),
        (["--cameras", "1,0"], "list of numbers of cameras"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
    pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")
    try:
        status = main(["bench", "--server", *arguments])
    except SystemExit as left:  # argparse's own
        status = left.code
    assert status == 2
    assert sentence in capsys.readouterr().err
