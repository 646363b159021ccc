# SPDX-License-Identifier: Apache-2.0
"""How a server coped with its cameras' frames: rates, latencies, and where frames were dropped.

A frame is identified by its camera and its stamp, which passes through from latent to persons. One
whose persons never arrived was dropped: by a node that a newer frame reached before it had begun
with this one, which it counts, or on the way.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roi_codec_ros.common.tables import number, text_table

SATURATED_BELOW = 0.95  # of the frames that came in
NODES = ("decoder", "detector")

Moments = Sequence[Sequence[int]]  # (ns, …) each


@dataclass(frozen=True)
class Usage:
    """What processes have used up to a moment.

    at_ns: by the system's clock. cpu_s: processor time. resident_bytes: memory, what processes
    share counted for each.
    """

    at_ns: int
    cpu_s: float
    resident_bytes: int

    @classmethod
    def of(cls, pids: Sequence[int], at_ns: int) -> Usage:
        """From /proc; a process that has ended counts nothing."""
        ticks, pages = 0, 0
        for pid in pids:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
            pages += int(fields[21])
        return cls(at_ns, ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


def summary(
    sent: Mapping[str, Sequence[int]],
    persons: Mapping[str, Moments],
    dropped: Mapping[str, Moments],
    before: Usage,
    after: Usage,
) -> dict[str, Any]:
    """Figures of the frames that were sent between two moments.

    sent: camera → stamps, ns. persons: camera → (stamp, arrival), ns. dropped: "<node>: <camera>"
    → (ns, how many until then).
    """
    start, end = before.at_ns, after.at_ns
    seconds = (end - start) / 1e9
    went_in = {
        (c, stamp) for c, stamps in sent.items() for stamp in stamps if start <= stamp < end
    }
    latencies_ms = [
        (arrival - stamp) / 1e6
        for camera, arrivals in persons.items()
        for stamp, arrival in arrivals
        if (camera, stamp) in went_in
    ]
    in_fps, out_fps = len(went_in) / seconds, len(latencies_ms) / seconds
    return {
        "cameras": len(sent),
        "in_fps": in_fps,
        "out_fps": out_fps,
        "latency_ms": {
            f"p{percent}": float(np.percentile(latencies_ms, percent)) if latencies_ms else None
            for percent in (50, 95, 99)
        },
        "dropped": {
            "total": len(went_in) - len(latencies_ms),
            **{node: _dropped_by(node, dropped, start, end) for node in NODES},
        },
        "cpu_percent": 100.0 * (after.cpu_s - before.cpu_s) / seconds,
        "memory_mib": after.resident_bytes / 2**20,
        "saturated": out_fps < SATURATED_BELOW * in_fps,
    }


def saturates_at(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The least number of cameras at which a server is saturated; None if it never was."""
    return min((row["cameras"] for row in rows if row["saturated"]), default=None)


def _dropped_by(node: str, dropped: Mapping[str, Moments], start: int, end: int) -> int:
    """How many frames a node says it dropped between two moments."""
    counts = [moments for name, moments in dropped.items() if name.partition(":")[0] == node]
    return round(sum(_count_at(moments, end) - _count_at(moments, start) for moments in counts))


def _count_at(moments: Moments, at_ns: int) -> float:
    """A counter at a moment between two of its readings, as if it rose evenly."""
    index = bisect_right([moment for moment, _ in moments], at_ns)
    if index == 0:
        return float(moments[0][1]) if moments else 0.0
    if index == len(moments):
        return float(moments[-1][1])
    (t0, n0), (t1, n1) = moments[index - 1], moments[index]
    return n0 + (n1 - n0) * (at_ns - t0) / (t1 - t0)


def arrangement(processes: int) -> str:
    """How decoder and detector are distributed, in words."""
    return "one process" if processes == 1 else "two processes"


def server_table(
    rows: Sequence[Mapping[str, Any]], saturation: Mapping[str, int | None], rate_hz: float
) -> str:
    """The rows of a bench for the terminal, and from how many cameras on it saturates."""
    header = ["", "cameras", "in/s", "out/s", "p50 ms", "p95 ms", "p99 ms", "dropped", *NODES]
    cells = [
        [
            arrangement(row["processes"]),
            row["cameras"],
            f"{row['in_fps']:.1f}",
            f"{row['out_fps']:.1f}",
            *(number(row["latency_ms"][name], ".0f") for name in ("p50", "p95", "p99")),
            *(row["dropped"][name] for name in ("total", *NODES)),
            f"{row['cpu_percent']:.0f}",
            f"{row['memory_mib']:.0f}",
        ]
        for row in rows
    ]
    lines = [text_table([*header, "CPU %", "MiB"], cells)]
    for count, cameras in saturation.items():
        where = f"saturates at {cameras} cameras" if cameras else "did not saturate"
        lines.append(f"{arrangement(int(count))}: {where} of {rate_hz:g} frames/s each")
    return "\n".join(lines)
