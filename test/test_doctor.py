# SPDX-License-Identifier: Apache-2.0
"""`roi-codec doctor`: one page about this machine, and a status."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_cli import roi_codec

from roi_codec_ros.codec import kernels
from roi_codec_ros.diagnosis import installation, network


def test_a_page_says_what_is_here_and_what_works(tmp_path: Path) -> None:
    report = tmp_path / "doctor.json"

    done = roi_codec("doctor", "--json", str(report))

    findings = {f["subject"]: f for f in json.loads(report.read_text())["findings"]}
    assert done.returncode == 0, done.stderr
    assert {"machine", "packages", "entropy coder", "opencv", "models", "cameras"} <= set(findings)
    assert "fast" in findings["models"]["text"]
    assert "GStreamer" in findings["opencv"]["text"]
    assert findings["models"]["text"] in done.stdout


def test_a_kernel_that_was_left_out_is_named(monkeypatch) -> None:
    monkeypatch.delitem(kernels.KERNELS, kernels.ENTROPY_CODER)

    (finding,) = installation.look_at_kernel()

    assert finding.level == network.POOR
    assert "expected the C++ entropy coder, found none" in finding.text
    assert "compiler" in finding.text


def test_a_machine_without_models_is_bad(monkeypatch) -> None:
    monkeypatch.setattr("roi_codec_ros.codec.list_models", list)

    (finding,) = installation.look_at_models()

    assert finding.level == network.BAD


@pytest.fixture
def time_server() -> Iterator[str]:
    """An NTP server on this machine whose clock is 250 ms ahead, by its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=answer_questions, args=(link,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{link.getsockname()[1]}"
        link.sendto(b"", link.getsockname())
        thread.join()


def answer_questions(link: socket.socket) -> None:
    while True:
        question, client = link.recvfrom(512)
        if not question:
            return
        now = time.time() + 0.25 + 2208988800
        stamp = struct.pack("!II", int(now), int(now % 1 * 2**32))
        link.sendto(bytes([0x24, 2, 0, 0xEC]) + bytes(20) + question[40:48] + 2 * stamp, client)


def test_the_clock_of_a_server_is_compared(time_server: str) -> None:
    *_, finding = network.look_at_clock(time_server)

    assert finding.level == network.POOR
    offset_ms = float(finding.text.split("clock is ")[1].split(" ms")[0])
    assert offset_ms == pytest.approx(250, abs=50)
    assert time_server.split(":")[0] not in finding.text


def test_a_server_that_does_not_tell_the_time_is_said(time_server: str) -> None:
    port = time_server.split(":")[1]
    *_, finding = network.look_at_clock(f"127.0.0.2:{port}")

    assert finding.level == network.POOR
    assert "expected an NTP server that answers, found none" in finding.text


def test_buffers_that_lose_large_messages_are_named(tmp_path: Path, monkeypatch) -> None:
    for name in network.BUFFERS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("212992\n" if name.endswith("mem_max") else "67108864\n")
    monkeypatch.setattr(network, "SETTINGS", tmp_path)

    levels = {finding.subject: finding.level for finding in network.look_at_buffers()}

    assert levels["net.core.rmem_max"] == levels["net.core.wmem_max"] == network.POOR
    assert levels["net.core.rmem_default"] == network.GOOD


def test_a_profile_that_is_not_there_is_named(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(tmp_path / "none.xml"))
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)

    (finding,) = network._profiles("rmw_fastrtps_cpp")

    assert (finding.level, finding.subject) == (network.POOR, "profile")
    assert "FASTDDS_DEFAULT_PROFILES_FILE names no file" in finding.text
