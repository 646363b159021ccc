# SPDX-License-Identifier: Apache-2.0
"""A soak: cameras, server and tracker as processes that run for long, and are looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from roi_codec_ros.codec.models import find_model, model_directories
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.machine import describe_machine
from roi_codec_ros.config.bringup import NodeSpec, demo_graph
from roi_codec_ros.lab.demo.processes import ProcessGroup
from roi_codec_ros.lab.demo.running import Stop, await_persons, camera_names, running_graph
from roi_codec_ros.lab.simulation.photograph_cameras import photograph_cameras
from roi_codec_ros.lab.tools.burst import FORGOTTEN_S, Burst
from roi_codec_ros.lab.tools.soak import (
    ProcessSample,
    SoakBook,
    Span,
    first_and_last,
    latency_row,
    sample_process,
    soak_result,
)
from roi_codec_ros.perception.person_detector import find_weights

if TYPE_CHECKING:
    from roi_codec_ros.lab.tools.camera_rates import CameraRates

SAMPLE_S = 5.0
AROUND_BURST = 3  # times as long as it is the run has to be


@dataclass(frozen=True)
class Soak:
    """What runs, and for how long.

    warmup_minutes: not evaluated. window_minutes: of both spans that are compared. videos: what
    the cameras show in turn; empty for bundled photographs. burst: factor of the frame rate, for
    burst_s seconds halfway; None without. Raises UsageError where the time is too short for that.
    """

    minutes: float
    warmup_minutes: float
    window_minutes: float
    cameras: int
    rate_hz: float
    max_width: int
    model: str
    detector: str
    videos: Sequence[Path] = ()
    burst: float | None = None
    burst_s: float = 10.0

    def __post_init__(self) -> None:
        if self._evaluated_s <= 0:
            raise UsageError(
                f"expected more minutes than the {self.warmup_minutes:g} of the warm-up, "
                f"found {self.minutes:g}"
            )
        if self.burst and self._evaluated_s < AROUND_BURST * self.burst_s:
            raise UsageError(
                f"expected {AROUND_BURST * self.burst_s:g} s or more after the warm-up around a "
                f"burst of {self.burst_s:g} s, found {self._evaluated_s:g} s"
            )

    @property
    def _evaluated_s(self) -> float:
        return 60 * (self.minutes - self.warmup_minutes)

    def run(self, out: Path, stop: Stop, say: Callable[[str], None]) -> dict[str, Any]:
        """Run it to its end, or until it is stopped; the figures, as `soak_result` has them.

        out: folder of the logs. Raises RoiCodecError.
        """
        names = camera_names(self.cameras)
        with running_graph(self._graph(names, out, say), 1, out / "log") as group:
            # Not before the processes: they are forked from here, and ROS starts threads.
            from roi_codec_ros.lab.demo.monitor import DemoMonitor
            from roi_codec_ros.lab.tools.camera_rates import CameraRates

            book = SoakBook(names)
            with DemoMonitor(names, book), CameraRates(names) as rates:
                await_persons(group, book, stop)
                whole, samples, burst = self._watch(group, rates, stop)
        return self._result(book, names, whole, samples, burst)

    def _graph(
        self, names: Sequence[str], out: Path, say: Callable[[str], None]
    ) -> list[NodeSpec]:
        for path in self.videos:
            if not path.is_file():
                raise RoiCodecError(f"expected a video at {path}, found none")
        videos = self.videos or photograph_cameras(self.cameras, [out / ".source"], say)
        return demo_graph(
            {name: str(videos[n % len(videos)].resolve()) for n, name in enumerate(names)},
            model=str(find_model(self.model).resolve()),
            detector=str(find_weights(self.detector, model_directories()).resolve()),
            camera_parameters={
                "rate_hz": self.rate_hz,
                "threads": 1,
                "max_width": self.max_width,
            },
            server_parameters={"threads": 1, "stale_after_s": max(2.0, 3.0 / self.rate_hz)},
        )

    def _watch(
        self, group: ProcessGroup, rates: CameraRates, stop: Stop
    ) -> tuple[Span, dict[str, list[ProcessSample]], Burst | None]:
        """Look at every process, all five seconds or more often if compared spans are short, until
        the time is over or the user ends it."""
        samples: dict[str, list[ProcessSample]] = {child.name: [] for child in group.children}
        every_s = min(SAMPLE_S, min(60 * self.window_minutes, self._evaluated_s) / 10)
        start_s = time.monotonic()
        end_s = start_s + 60 * self.minutes
        changes: list[tuple[float, float]] = []  # when, and the rate from then on
        if self.burst:
            middle_s = start_s + 30 * (self.minutes + self.warmup_minutes)
            changes = [
                (middle_s, self.burst * self.rate_hz),
                (middle_s + self.burst_s, self.rate_hz),
            ]
        changed_s: list[float] = []
        with tqdm(total=round(60 * self.minutes), unit="s", disable=None) as progress:
            while (now_s := time.monotonic()) < end_s:
                group.check()
                if len(changed_s) < len(changes) and changes[len(changed_s)][0] <= now_s:
                    rates.set(changes[len(changed_s)][1])
                    changed_s.append(time.monotonic())
                for child in group.children:
                    sample = sample_process(child.process.pid)
                    if sample is not None:
                        samples[child.name].append(sample)
                progress.update(round(now_s - start_s) - progress.n)
                moments = [
                    now_s + every_s,
                    end_s,
                    *(at_s for at_s, _ in changes[len(changed_s) :]),
                ]
                if stop.wait(max(0.0, min(moments) - time.monotonic())):
                    break
        done = self.burst is not None and len(changed_s) == 2
        burst = Burst(Span(*changed_s), self.burst or 0.0) if done else None
        return Span(start_s, time.monotonic()), samples, burst

    def _result(
        self,
        book: SoakBook,
        names: Sequence[str],
        whole: Span,
        samples: dict[str, list[ProcessSample]],
        burst: Burst | None,
    ) -> dict[str, Any]:
        first, last = first_and_last(
            whole,
            60 * self.warmup_minutes,
            60 * self.window_minutes,
            burst.span if burst else None,
        )
        if whole.end_s <= first.start_s:
            raise RoiCodecError("ended within the warm-up: nothing to compare")
        settled = Span(first.start_s, whole.end_s)
        passages = book.passages()
        minutes = [
            Span(whole.start_s + 60 * minute, whole.start_s + 60 * (minute + 1))
            for minute in range(int(whole.minutes))
        ]
        return {
            "machine": describe_machine(threads=1),
            "minutes": whole.minutes,
            "warmup_minutes": self.warmup_minutes,
            "window_minutes": first.minutes,
            "cameras": self.cameras,
            "rate_hz": self.rate_hz,
            "max_width": self.max_width,
            **soak_result(samples, book, first, last),
            "burst": burst and burst.result(book, names, settled, self.rate_hz),
            "latency_ms_by_minute": [latency_row(passages, minute) for minute in minutes],
            "samples": {
                name: [
                    [s.at_s - whole.start_s, s.rss_mib, s.pss_mib, s.threads, s.files]
                    for s in found
                ]
                for name, found in samples.items()
            },
        }


def check_soak(result: dict[str, Any]) -> None:
    """Raise RoiCodecError where something grew, or a burst was not forgotten soon."""
    if not (result["memory_flat"] and result["latency_steady"]):
        raise RoiCodecError("expected memory and latency to stay, found them to grow")
    burst = result["burst"]
    if burst and not burst["forgotten"]:
        raise RoiCodecError(
            f"expected a burst to be forgotten within {FORGOTTEN_S:g} s, found frames late for "
            f"{burst['late_s']:.1f} s"
        )
