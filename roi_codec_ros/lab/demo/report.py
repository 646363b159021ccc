# SPDX-License-Identifier: Apache-2.0
"""The demo's figures: bits, latencies and losses of each camera's frames.

Times are seconds of one monotonic clock, latencies milliseconds.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

RAW_BITS_PER_PIXEL = 24
_Arrived = TypeVar("_Arrived", "Coding", "Decoded", "Detected")


@dataclass(frozen=True)
class Latency:
    """Median and 95th percentile in ms; None where nothing was measured."""

    p50: float | None
    p95: float | None

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Latency:
        """From single values; those that are not finite don't count."""
        finite = [value for value in values_ms if math.isfinite(value)]
        if not finite:
            return cls(None, None)
        p50, p95 = np.percentile(finite, [50, 95])
        return cls(round(float(p50), 2), round(float(p95), 2))

    @classmethod
    def of_text(cls, p50: str, p95: str) -> Latency:
        """From what diagnostics say, where an empty text is no value yet."""
        return cls(*(round(float(text), 2) if text else None for text in (p50, p95)))

    def as_dict(self) -> dict[str, float | None]:
        """As it stands in the report."""
        return {"p50": self.p50, "p95": self.p95}


@dataclass(frozen=True)
class Decoded:
    """One frame that the server decoded.

    arrival_s: when. sequence: how many the encoder has published with it. Pixels are counts.
    """

    arrival_s: float
    sequence: int
    payload_bytes: int
    coded_pixels: int
    original_pixels: int
    decode_ms: float


@dataclass(frozen=True)
class Coding:
    """What an encoder says of itself once a second.

    arrival_s: when. dropped: frames that it has given up so far. encode_ms: of the last ones.
    """

    arrival_s: float
    dropped: int
    encode_ms: Latency


@dataclass(frozen=True)
class Detected:
    """One frame that was searched for persons, after the whole pipeline."""

    arrival_s: float
    detect_ms: float
    end_to_end_ms: float
    persons: int


@dataclass(frozen=True)
class Summary:
    """The figures of one camera over some time, as they stand in the report.

    frames: those that went the whole way from the camera to persons, fps: of the same.
    dropped: frames that the camera captured and that were given up anywhere on the way.
    bpp: payload bits per coded pixel. kbit_s: payloads over the network; raw_kbit_s: what the same
    frames take at 24 bits per camera pixel.
    """

    name: str
    frames: int
    fps: float
    dropped: int
    bpp: float | None
    kbit_s: float
    raw_kbit_s: float
    encode_ms: Latency
    decode_ms: Latency
    detect_ms: Latency
    end_to_end_ms: Latency
    persons_mean: float | None

    def as_dict(self) -> dict[str, object]:
        """As it stands in the report."""
        return {
            key: value.as_dict() if isinstance(value, Latency) else value
            for key, value in self.__dict__.items()
        }


@dataclass
class CameraRecord:
    """Everything recorded about one camera's frames, in order of arrival."""

    name: str
    coding: list[Coding] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)
    detected: list[Detected] = field(default_factory=list)

    def summary(self, start_s: float, end_s: float) -> Summary:
        """The figures of the frames that arrived in [start_s, end_s)."""
        seconds = max(end_s - start_s, 1e-9)
        decoded = _between(self.decoded, start_s, end_s)
        detected = _between(self.detected, start_s, end_s)
        coding = _between(self.coding, -math.inf, end_s)
        payload_bits = 8 * sum(frame.payload_bytes for frame in decoded)
        coded_pixels = sum(frame.coded_pixels for frame in decoded)
        raw_bits = RAW_BITS_PER_PIXEL * sum(frame.original_pixels for frame in decoded)
        return Summary(
            name=self.name,
            frames=len(detected),
            fps=round(len(detected) / seconds, 2),
            dropped=_dropped(coding, decoded, len(detected)),
            bpp=round(payload_bits / coded_pixels, 4) if coded_pixels else None,
            kbit_s=round(payload_bits / seconds / 1000, 1),
            raw_kbit_s=round(raw_bits / seconds / 1000, 1),
            encode_ms=coding[-1].encode_ms if coding else Latency(None, None),
            decode_ms=Latency.of([frame.decode_ms for frame in decoded]),
            detect_ms=Latency.of([frame.detect_ms for frame in detected]),
            end_to_end_ms=Latency.of([frame.end_to_end_ms for frame in detected]),
            persons_mean=(
                round(sum(frame.persons for frame in detected) / len(detected), 2)
                if detected
                else None
            ),
        )


def _between(frames: list[_Arrived], start_s: float, end_s: float) -> list[_Arrived]:
    times = _Arrivals(frames)
    return frames[bisect_left(times, start_s) : bisect_left(times, end_s)]


class _Arrivals:
    """The arrival times of a list of frames, without copying it."""

    def __init__(self, frames: Sequence[Coding | Decoded | Detected]) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> float:
        return self._frames[index].arrival_s


def _dropped(coding: Sequence[Coding], decoded: Sequence[Decoded], came_through: int) -> int:
    """Captured minus come through, one frame that may still be on its way not counted."""
    if not decoded:
        return 0
    given_up = coding[-1].dropped - coding[0].dropped if coding else 0
    published = decoded[-1].sequence - decoded[0].sequence + 1
    lost = published - came_through
    return max(given_up, 0) + (lost if lost > 1 else 0)


def report(model: str, seconds: float, cameras: Sequence[Summary]) -> dict[str, object]:
    """The whole report as plain data for JSON."""
    return {
        "model": model,
        "seconds": round(seconds, 2),
        "cameras": [camera.as_dict() for camera in cameras],
    }


_COLUMNS: tuple[tuple[str, int], ...] = (
    ("fps", 6),
    ("drop", 6),
    ("bpp", 7),
    ("kbit/s", 7),
    ("raw", 8),
    ("encode", 8),
    ("decode", 8),
    ("detect", 8),
    ("total", 7),
    ("persons", 8),
)


def table_lines(summaries: Sequence[Summary]) -> list[str]:
    """A header and a line per camera, in columns that stay where they are and fit 80 characters.

    raw: the raw rate in kbit/s. Latencies in ms; total: from the camera to persons.
    """
    name_width = max([6, *(len(summary.name) for summary in summaries)])
    header = "camera".ljust(name_width) + "".join(title.rjust(w) for title, w in _COLUMNS)
    return [header, *(table_row(summary, name_width) for summary in summaries)]


def table_row(summary: Summary, name_width: int) -> str:
    """One camera's line of the table; latencies are medians."""
    cells = (
        f"{summary.fps:.1f}",
        f"{summary.dropped}",
        _number(summary.bpp, ".3f"),
        f"{summary.kbit_s:.0f}",
        f"{summary.raw_kbit_s:.0f}",
        _number(summary.encode_ms.p50, ".1f"),
        _number(summary.decode_ms.p50, ".1f"),
        _number(summary.detect_ms.p50, ".1f"),
        _number(summary.end_to_end_ms.p50, ".0f"),
        _number(summary.persons_mean, ".1f"),
    )
    padded = (cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    return summary.name.ljust(name_width) + "".join(padded)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def bit_rate(kbit_s: float) -> str:
    """A bit rate in the unit that suits it: ``96 kbit/s``, ``73.7 Mbit/s``."""
    return f"{kbit_s / 1000:.1f} Mbit/s" if kbit_s >= 1000 else f"{kbit_s:.0f} kbit/s"
