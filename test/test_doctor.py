# SPDX-License-Identifier: Apache-2.0
"""`roi-codec doctor`: one page about this machine, and a status."""

from __future__ import annotations

import json
from pathlib import Path

from test_cli import roi_codec

from roi_codec_ros.commands import doctor


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
    monkeypatch.setattr("roi_codec_ros.codec.rans._kernel", None)

    (finding,) = doctor._kernel()

    assert finding.level == doctor.POOR
    assert "expected the C++ entropy coder, found none" in finding.text
    assert "compiler" in finding.text


def test_a_machine_without_models_is_bad(monkeypatch) -> None:
    monkeypatch.setattr("roi_codec_ros.codec.list_models", list)

    (finding,) = doctor._models()

    assert finding.level == doctor.BAD
