# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import sys

import pytest

from roi_codec_ros.cli import main
from roi_codec_ros.common.errors import UsageError
from roi_codec_ros.lab.tools import entropy_bench


def test_bench_writes_a_row_per_rate(monkeypatch, tmp_path, capsys):
    pytest.importorskip("compressai")
    measure = entropy_bench.measure
    monkeypatch.setattr(
        entropy_bench, "measure", lambda: measure((4, 16, 16), (0.5, 2.0), rounds=1)
    )
    path = tmp_path / "bench.json"
    assert main(["bench", "--entropy", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["entropy"]
    assert [row["bits_per_symbol"] for row in rows] == [0.5, 2.0]
    assert rows[0]["shape"] == [4, 16, 16]
    for coder in ("ours", "compressai"):
        assert rows[0][f"{coder}_encode_ms"] > 0
        assert rows[0][f"{coder}_decode_ms"] > 0
    # 1024 symbols of 2 bits: 256 bytes, and no more than the 32 bytes of the states beside them.
    assert 0 < rows[1]["excess_over_shannon"] < 0.15
    assert "4x16x16" in capsys.readouterr().out


def test_bench_names_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "compressai", None)
    with pytest.raises(UsageError, match="install the training extra"):
        entropy_bench.measure((1, 2, 2), (1.0,), rounds=1)
