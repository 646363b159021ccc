# SPDX-License-Identifier: Apache-2.0
"""A server as real node processes over DDS, fed with replayed payloads of many cameras."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from roi_codec_ros.codec import Encoder, load_model
from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.files import write_whole
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.machine import describe_machine
from roi_codec_ros.config.bringup import command, joined, server_graph
from roi_codec_ros.lab.demo.processes import Child, ProcessGroup, silence_message
from roi_codec_ros.lab.demo.running import private_ros_environment
from roi_codec_ros.lab.tools.encode_bench import fitted
from roi_codec_ros.lab.tools.server_bench import Usage, arrangement, saturates_at, summary

PATIENCE_S = 180.0
SETTLE_S, DRAIN_S = 2.0, 2.0
POLL_S = 0.1
MODULES = "roi_codec_ros.lab.tools"


class Progress(Protocol):
    """What a bench tells how far it is; tqdm's bars are that."""

    def set_description(self, desc: str | None = None) -> None:
        """What is measured now."""

    def update(self, n: float = 1) -> Any:
        """Seconds that have passed."""


def write_payloads(
    folder: Path, model: Path, size: tuple[int, int], photographs: Iterable[ImageArray]
) -> float:
    """Write payloads of photographs, cut to ``size`` (width, height); their mean bits per pixel.

    There must be at least one photograph.
    """
    encoder = Encoder(load_model(model))
    frames = [encoder.encode(fitted(photograph, size)) for photograph in photographs]
    for index, frame in enumerate(frames):
        write_whole(folder / f"{index:03}.roic", frame.data)
    return sum(frame.bits_per_pixel for frame in frames) / len(frames)


@dataclass(frozen=True)
class ServerTrial:
    """One server with a number of cameras.

    folder: with the payloads. parameters: of `bringup.server_graph`.
    """

    folder: Path
    processes: int
    cameras: int
    rate_hz: float
    seconds: float
    parameters: dict[str, Any]

    def run(self, on_second: Callable[[float], Any]) -> dict[str, Any]:
        """The row of this trial, but for the number of processes. Raises RoiCodecError."""

        names = [f"camera{number}" for number in range(1, self.cameras + 1)]
        *nodes, _ = server_graph(names, **self.parameters)
        place = self.folder / f"{self.processes}-{self.cameras}"
        sent, heard = place / "sent.json", place / "heard.json"
        with ProcessGroup({"PYTHONUNBUFFERED": "1", **os.environ}, place) as group:
            server = [
                group.start(spec.name, command(spec))
                for spec in (joined(nodes) if self.processes == 1 else nodes)
            ]
            group.start("listening", _module("listening", heard, *names))
            replaying = _module("replaying", self.folder, self.rate_hz, sent, *names)
            group.start("replaying", replaying)
            self._await(heard, group, server[-1])
            pids = [child.process.pid for child in server]
            before = Usage.of(pids, time.time_ns())
            self._measure(group, on_second)
            after = Usage.of(pids, time.time_ns())
            time.sleep(DRAIN_S)  # what is under way at the end still counts
        books = json.loads(heard.read_bytes())
        return summary(
            json.loads(sent.read_bytes()), books["persons"], books["dropped"], before, after
        )

    def _await(self, heard: Path, group: ProcessGroup, server: Child) -> None:
        """Wait for persons of every camera: there is a first report then."""
        deadline = time.monotonic() + PATIENCE_S
        while not heard.exists():
            group.check()
            if time.monotonic() > deadline:
                said = f"no persons of all {self.cameras} cameras within {PATIENCE_S:g} s"
                raise RoiCodecError(silence_message(said, server))
            time.sleep(POLL_S)
        time.sleep(SETTLE_S)

    def _measure(self, group: ProcessGroup, on_second: Callable[[float], Any]) -> None:
        ends_s = time.monotonic() + self.seconds
        while (left_s := ends_s - time.monotonic()) > 0:
            step_s = min(1.0, left_s)
            time.sleep(step_s)
            on_second(round(step_s, 3))
            group.check()


@dataclass(frozen=True)
class ServerBench:
    """What is to be measured: a trial for each number of processes and of cameras.

    size: (width, height) of frames. threads: 0 for the runtimes' own choice.
    """

    model: Path
    weights: Path
    size: tuple[int, int]
    rate_hz: float
    seconds: float
    processes: Sequence[int]
    cameras: Sequence[int]
    backend: str
    device: str
    max_batch: int
    threads: int

    def run(self, photographs: Iterable[ImageArray], progress: Progress) -> dict[str, Any]:
        """The report. photographs: one or more. Raises RoiCodecError for what can't be run."""
        rows = []
        with tempfile.TemporaryDirectory(prefix="roi-codec-bench-") as name:
            folder = Path(name)
            os.environ.update(private_ros_environment(os.environ, folder / "log"))
            bits_per_pixel = write_payloads(folder, self.model, self.size, photographs)
            for processes in self.processes:
                for cameras in self.cameras:
                    progress.set_description(f"{cameras} cameras, {arrangement(processes)}")
                    trial = ServerTrial(
                        folder, processes, cameras, self.rate_hz, self.seconds, self._parameters()
                    )
                    rows.append({"processes": processes, **trial.run(progress.update)})
        return {
            "machine": describe_machine(device=self.device, threads=self.threads or None),
            "server": {
                "rate_hz": self.rate_hz,
                "seconds": self.seconds,
                "size": "{}x{}".format(*self.size),
                "model": self.model.name,
                "weights": self.weights.name,
                "bits_per_pixel": bits_per_pixel,
                "backend": self.backend,
                "max_batch": self.max_batch,
                "threads": self.threads,
            },
            "rows": rows,
            "saturates_at": {
                str(count): saturates_at([row for row in rows if row["processes"] == count])
                for count in self.processes
            },
        }

    @property
    def steps(self) -> int:
        """Seconds that `run` reports in all."""
        return round(len(self.processes) * len(self.cameras) * self.seconds)

    def _parameters(self) -> dict[str, Any]:
        return {
            "models": [str(self.model.resolve())],
            "detector": str(self.weights.resolve()),
            "backend": self.backend,
            "device": self.device,
            "max_batch": self.max_batch,
            "threads": self.threads,
        }


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"{MODULES}.{name}", *map(str, arguments)]
