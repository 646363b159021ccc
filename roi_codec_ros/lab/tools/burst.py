# SPDX-License-Identifier: Apache-2.0
"""A burst in a soak: cameras that take several times as many frames for some seconds.

What cannot be worked off is to be dropped, not to wait: soon after the burst frames are to come
through as fast as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from roi_codec_ros.common.tables import number
from roi_codec_ros.lab.tools.soak import Passage, SoakBook, Span, latency_row

FORGOTTEN_S = 2.0  # after its end, frames that are taken are no longer late
AS_BEFORE = 95  # the percentile of the latencies before a burst that a frame after it is held to


@dataclass(frozen=True)
class Burst:
    """span: when. factor: how many times as many frames."""

    span: Span
    factor: float

    def result(
        self, book: SoakBook, cameras: Sequence[str], whole: Span, rate_hz: float
    ) -> dict[str, Any]:
        """The figures; whole: of the run, without its warm-up. rate_hz: of each camera before.

        late_s: for how long after the burst frames were taken that came late, the longest of all
        cameras. forgotten: no longer than FORGOTTEN_S.
        """
        passages = book.passages()
        before = Span(whole.start_s, self.span.start_s)
        seconds = self.span.end_s - self.span.start_s
        punctual_ms = latency_row(passages, before, (AS_BEFORE,))[f"p{AS_BEFORE}"]
        late_s = max(
            _late_s([p for p in passages if p.camera == name], self.span, whole, punctual_ms)
            for name in cameras
        )
        return {
            "factor": self.factor,
            "seconds": seconds,
            "asked": round(self.factor * rate_hz * seconds * len(cameras)),
            "sent": book.sent(self.span),
            "through": sum(passage.taken_s in self.span for passage in passages),
            "latency_ms": {
                "before": latency_row(passages, before),
                "burst": latency_row(passages, self.span),
                "after": latency_row(passages, Span(self.span.end_s + FORGOTTEN_S, whole.end_s)),
            },
            "late_s": late_s,
            "forgotten": late_s <= FORGOTTEN_S,
        }


def _late_s(
    passages: Sequence[Passage], burst: Span, whole: Span, punctual_ms: float | None
) -> float:
    """How long after a burst the last frame of a camera was taken before a punctual one came."""
    taken = sorted((p.taken_s - burst.end_s, p.latency_ms) for p in passages)
    late_s = 0.0
    for after_s, latency_ms in taken:
        if after_s < 0:
            continue
        if punctual_ms is not None and latency_ms <= punctual_ms:
            return late_s
        late_s = after_s
    return whole.end_s - burst.end_s  # none came


def burst_line(result: Mapping[str, Any]) -> str:
    """One line for the terminal."""
    medians = [number(row["p50"], ".0f") for row in result["latency_ms"].values()]
    return (
        f"burst of {result['factor']:g} times the rate for {result['seconds']:.0f} s: "
        f"{result['asked']} frames asked for, {result['sent']} sent, {result['through']} came "
        f"through; p50 {' → '.join(medians)} ms; late for {result['late_s']:.1f} s after it"
    )
