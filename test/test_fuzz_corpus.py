# SPDX-License-Identifier: Apache-2.0
"""What coverage-guided fuzzing has found, once more; each target in a process of its own.

test/fuzz/fuzz.py tells how to fuzz; its corpus is what reached something new, and what was a find.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz")
CORPUS = FUZZ / "corpus"


@pytest.mark.parametrize(
    "target",
    [
        *("payload", "entropy", "roic", "predicted", "model", "photograph"),
        *("data_set", "driver_image", "messages"),
    ],
)
def test_no_input_of_the_corpus_gets_past_the_checks(target: str):
    if target in ("driver_image", "messages"):
        pytest.importorskip("rclpy", reason="ROS 2 is not sourced")
        pytest.importorskip("roi_codec_ros.msg", reason="the messages are not built")
    inputs = len(list((CORPUS / target).iterdir()))

    done = subprocess.run(
        [sys.executable, str(FUZZ / "fuzz.py"), target, "--replay", str(CORPUS / target)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{inputs} inputs"
    assert inputs > 3


def test_the_corpus_stays_small():
    sizes = [path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()]

    assert sum(sizes) < 300_000
    assert len(sizes) < 400
