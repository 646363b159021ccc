# SPDX-License-Identifier: Apache-2.0
"""Whether a graph that runs for long stays stable: memory, threads, files, latency, frames.

The first minutes after the warm-up are compared with the last ones. Times are seconds
of one monotonic clock, memory is in MiB, latencies are in ms.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from roi_codec_ros.common.tables import number, text_table
from roi_codec_ros.lab.demo.map_book import stamp_of
from roi_codec_ros.lab.demo.running import Ledger

FLAT = 0.02  # the most that memory may have grown by, of what it was first
CREEP = 0.10  # the most that the latency of the fastest tenth of the frames may have grown by
_MIB = 1 << 20


@dataclass(frozen=True)
class ProcessSample:
    """One look at a process.

    Resident memory is whole, and with its part of what is shared. waited_s: how long its threads
    have waited for a core so far.
    """

    at_s: float
    rss_mib: float
    pss_mib: float
    threads: int
    files: int
    waited_s: float = 0.0


@dataclass(frozen=True)
class Passage:
    """A frame that went through the whole graph: when its tracks arrived, its age then, whose."""

    at_s: float
    latency_ms: float
    camera: str = ""

    @property
    def taken_s(self) -> float:
        """When the camera took it."""
        return self.at_s - self.latency_ms / 1e3


@dataclass(frozen=True)
class Span:
    """Some time of the run, first to last second."""

    start_s: float
    end_s: float

    def __contains__(self, at_s: float) -> bool:
        return self.start_s <= at_s < self.end_s

    @property
    def minutes(self) -> float:
        """Length in minutes."""
        return (self.end_s - self.start_s) / 60.0


def sample_process(pid: int) -> ProcessSample | None:
    """Look at a process now; None if it has ended, or the system does not tell."""
    folder = Path("/proc") / str(pid)
    try:
        rollup = _kib(folder / "smaps_rollup", ("Rss", "Pss"))
        threads = os.listdir(folder / "task")
        files = len(os.listdir(folder / "fd"))
        waited_ns = sum(_waited_ns(folder / "task" / thread) for thread in threads)
    except OSError:
        return None
    return ProcessSample(
        time.monotonic(),
        rollup["Rss"] / 1024,
        rollup["Pss"] / 1024,
        len(threads),
        files,
        waited_ns / 1e9,
    )


def _waited_ns(thread: Path) -> int:
    """On the run queue; 0 where the kernel does not count it."""
    try:
        return int((thread / "schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0


def _kib(path: Path, names: Sequence[str]) -> dict[str, int]:
    found = {}
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        name, _, rest = line.partition(":")
        if name in names:
            found[name] = int(rest.split()[0])
    return found


class SoakBook(Ledger):
    """Notes when frames have come through; fed as the demo's monitor feeds its ledger."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._silent = dict.fromkeys(cameras, True)
        self._passages: list[Passage] = []
        self._sequences: dict[str, list[tuple[float, int]]] = {camera: [] for camera in cameras}
        self._lock = threading.Lock()

    def silent_stage(self) -> tuple[str, str] | None:
        """Which camera's frames have not come through the tracker yet."""
        with self._lock:
            silent = [camera for camera, is_silent in self._silent.items() if is_silent]
        return ("tracker", silent[0]) if silent else None

    def passages(self) -> list[Passage]:
        """All frames so far."""
        with self._lock:
            return list(self._passages)

    def sent(self, span: Span) -> int:
        """Frames that the encoders sent in a span, by the sequence of those that were decoded."""
        with self._lock:
            counts = [
                [sequence for at_s, sequence in seen if at_s in span]
                for seen in self._sequences.values()
            ]
        return sum(max(found) - min(found) + 1 for found in counts if found)

    def on_tracks(self, message: Any) -> None:
        """The tracker has passed a camera's persons on (fields of PersonArray)."""
        age_ms = (time.time_ns() - stamp_of(message)) / 1e6
        passage = Passage(time.monotonic(), age_ms, message.camera)
        with self._lock:
            if message.camera in self._silent:
                self._silent[message.camera] = False
                self._passages.append(passage)

    def on_decoded(self, camera: str, message: Any) -> None:
        """A frame was decoded (fields of DecodedFrame)."""
        with self._lock:
            self._sequences[camera].append((time.monotonic(), message.sequence))


def first_and_last(
    whole: Span, warmup_s: float, window_s: float, between: Span | None = None
) -> tuple[Span, Span]:
    """The two spans that are compared; shorter if the run is too short.

    between: belongs to neither, if it lies in the run.
    """
    start_s = whole.start_s + warmup_s
    length_s = min(window_s, (whole.end_s - start_s) / 2)
    if between is not None and between.end_s < whole.end_s:
        length_s = min(length_s, between.start_s - start_s, whole.end_s - between.end_s)
    return Span(start_s, start_s + length_s), Span(whole.end_s - length_s, whole.end_s)


def soak_result(
    processes: Mapping[str, Sequence[ProcessSample]],
    book: SoakBook,
    first: Span,
    last: Span,
) -> dict[str, Any]:
    """The figures of both spans, and what they come to.

    memory_flat: no process and not all of them together grew by more than FLAT. latency_steady:
    the 10th percentile did not grow by more than CREEP. A queue that grows delays every frame;
    what else runs on the machine delays the median as it comes and goes. `waited` tells of that:
    seconds in a second that threads would have run and had no core.
    """
    rows = {name: _process_row(samples, first, last) for name, samples in processes.items()}
    together = {
        "rss_mib": _pair(*(sum(row["rss_mib"][key] for row in rows.values()) for key in _KEYS)),
        "pss_mib": _pair(*(sum(row["pss_mib"][key] for row in rows.values()) for key in _KEYS)),
    }
    passages = book.passages()
    spans = dict(zip(_KEYS, (first, last), strict=True))
    latency = {key: latency_row(passages, span) for key, span in spans.items()}
    waited = {
        key: sum(_waited_s(samples, span) for samples in processes.values()) / 60 / span.minutes
        for key, span in spans.items()
    }
    frames = {
        key: {
            "per_minute": sum(p.at_s in span for p in passages) / span.minutes,
            "sent_per_minute": book.sent(span) / span.minutes,
        }
        for key, span in spans.items()
    }
    growths = [row["rss_mib"]["growth"] for row in (*rows.values(), together)]
    fastest = [latency[key]["p10"] for key in _KEYS]
    steady = None not in fastest and fastest[1] <= (1 + CREEP) * fastest[0]
    return {
        "processes": rows,
        "together": together,
        "latency_ms": latency,
        "waited": waited,
        "frames": frames,
        "frames_in_all": len(passages),
        "memory_flat": max(growths) <= FLAT,
        "latency_steady": steady,
    }


_KEYS = ("first", "last")


def latency_row(
    passages: Sequence[Passage], span: Span, percentiles: Sequence[int] = (10, 50, 95)
) -> dict[str, float | None]:
    """Percentiles of the frames of a span in ms; None where there was none."""
    found = [passage.latency_ms for passage in passages if passage.at_s in span]
    return {f"p{p}": float(np.percentile(found, p)) if found else None for p in percentiles}


def _waited_s(samples: Sequence[ProcessSample], span: Span) -> float:
    found = [sample.waited_s for sample in samples if sample.at_s in span]
    return found[-1] - found[0] if found else 0.0


def _process_row(samples: Sequence[ProcessSample], first: Span, last: Span) -> dict[str, Any]:
    spans = [[sample for sample in samples if sample.at_s in span] for span in (first, last)]
    return {
        "rss_mib": _pair(*(fmean(s.rss_mib for s in span) for span in spans)),
        "pss_mib": _pair(*(fmean(s.pss_mib for s in span) for span in spans)),
        "rss_mib_per_hour": _slope_per_hour([s for s in samples if s.at_s >= first.start_s]),
        "threads": dict(zip(_KEYS, (max(s.threads for s in span) for span in spans), strict=True)),
        "files": dict(zip(_KEYS, (max(s.files for s in span) for span in spans), strict=True)),
    }


def _pair(first: float, last: float) -> dict[str, float]:
    return {"first": first, "last": last, "growth": last / first - 1.0}


def _slope_per_hour(samples: Sequence[ProcessSample]) -> float:
    """Of the least-squares line through the resident memory."""
    times = np.array([sample.at_s for sample in samples]) / 3600.0
    sizes = np.array([sample.rss_mib for sample in samples])
    return float(np.polyfit(times - times[0], sizes, 1)[0]) if len(samples) > 1 else 0.0


def table_lines(result: Mapping[str, Any]) -> list[str]:
    """For the terminal: one line per process, one for all, latency, frames, and the verdict."""
    header = ["process", "RSS first", "last", "grown", "MiB/h", "PSS last", "threads", "files"]
    rows = []
    for name, row in {**result["processes"], "together": result["together"]}.items():
        rss = row["rss_mib"]
        counts = [
            f"{row[key]['first']} → {row[key]['last']}" if key in row else ""
            for key in ("threads", "files")
        ]
        per_hour = row.get("rss_mib_per_hour")
        rows.append(
            [
                name,
                f"{rss['first']:.1f}",
                f"{rss['last']:.1f}",
                f"{100 * rss['growth']:+.2f}%",
                "" if per_hour is None else f"{per_hour:+.1f}",
                f"{row['pss_mib']['last']:.1f}",
                *counts,
            ]
        )
    lines = [text_table(header, rows)]
    first, last = (result["latency_ms"][key] for key in _KEYS)
    lines.append(
        "capture to tracks: "
        + ", ".join(
            f"{p} {number(first[p], '.0f')} → {number(last[p], '.0f')} ms"
            for p in ("p10", "p50", "p95")
        )
    )
    first, last = (f"{result['waited'][key]:.2f}" for key in _KEYS)
    lines.append(f"waited for a core: {first} → {last} s in a second, all threads together")
    first, last = (result["frames"][key] for key in _KEYS)
    lines.append(
        f"frames a minute: {first['per_minute']:.1f} of {first['sent_per_minute']:.1f} sent → "
        f"{last['per_minute']:.1f} of {last['sent_per_minute']:.1f}"
    )
    return [*lines, verdict(result)]


def verdict(result: Mapping[str, Any]) -> str:
    """One line."""
    memory = "flat" if result["memory_flat"] else "NOT flat"
    latency = "does not creep" if result["latency_steady"] else "CREEPS"
    return f"memory {memory} within {FLAT:.0%}, latency {latency} (p10 within {CREEP:.0%})"
