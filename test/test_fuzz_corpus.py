# SPDX-License-Identifier: Apache-2.0
"""What coverage-guided fuzzing has found, once more.

test/fuzz/fuzz.py tells how to fuzz; its corpus is what reached something new, and what was a find.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz")
CORPUS = FUZZ / "corpus"


TARGETS = ("payload", "entropy", "roic", "temporal", "model", "photograph", "data_set")
WITH_ROS = ("driver_image", "messages")


def replayed(*targets: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FUZZ / "fuzz.py"), "--replay", str(CORPUS), *targets],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"},
    )


def inputs_of(targets: Sequence[str]) -> list[str]:
    counts = {target: len(list((CORPUS / target).iterdir())) for target in targets}
    assert min(counts.values()) > 3
    return [f"{target}: {count} inputs" for target, count in counts.items()]


def test_no_input_of_the_corpus_gets_past_the_checks():
    done = replayed(*TARGETS)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == inputs_of(TARGETS)


def test_no_message_of_the_corpus_gets_past_the_checks():
    pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
    pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")

    done = replayed(*WITH_ROS)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == inputs_of(WITH_ROS)


def test_the_corpus_stays_small():
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]

    assert sum(sizes) < 300_000
    assert len(sizes) < 400
