# SPDX-License-Identifier: Apache-2.0
"""How many cameras a server serves: real node processes over DDS, fed with replayed payloads.

Used by `roi-codec bench --server`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from roi_codec_ros.commands.common import (
    not_negative,
    positive,
    positive_real,
    read_json,
)
from roi_codec_ros.common.errors import RoiCodecError, UsageError
from roi_codec_ros.common.files import Output, write_whole
from roi_codec_ros.common.photographs import PhotographError, left_out, photographs_in, readable
from roi_codec_ros.lab.demo.processes import Child, ProcessGroup, silence_message

DEFAULT_SIZE = (640, 360)
PATIENCE_S = 180.0
SETTLE_S, DRAIN_S = 2.0, 2.0
POLL_S = 0.1
MODULES = "roi_codec_ros.lab.tools"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a server's bench."""
    group = parser.add_argument_group("server")
    group.add_argument(
        "--server", action="store_true", help="measure decoder and detector as running nodes"
    )
    group.add_argument(
        "--cameras",
        type=_counts,
        default=(1, 2, 4, 8, 16),
        metavar="N,N,…",
        help="numbers of cameras to try (default: 1,2,4,8,16)",
    )
    group.add_argument(
        "--rate",
        type=positive_real,
        default=10.0,
        metavar="HZ",
        help="frames per second of each camera (default: 10)",
    )
    group.add_argument(
        "--seconds",
        type=positive_real,
        default=10.0,
        metavar="S",
        help="to measure for, once every camera's persons come (default: 10)",
    )
    group.add_argument("--model", default="fast", metavar="NAME", help="default: fast")
    group.add_argument(
        "--weights", default="", metavar="FILE", help="of the person detector (default: search)"
    )
    group.add_argument("--device", default="cpu", metavar="DEVICE", help="default: cpu")
    group.add_argument(
        "--max-batch",
        type=not_negative,
        default=0,
        metavar="N",
        help="as the nodes' max_batch (default: 0)",
    )
    group.add_argument(
        "--processes",
        nargs="+",
        type=int,
        choices=(1, 2),
        default=(1, 2),
        help="decoder and detector in one process, in two (default: both)",
    )


def run(args: argparse.Namespace, report: Output | None = None) -> None:
    """Measure, and write ``report``. Raises RoiCodecError for what can't be run."""
    from tqdm import tqdm

    from roi_codec_ros.codec.models import find_model, model_directories
    from roi_codec_ros.common.machine import describe_machine
    from roi_codec_ros.lab.demo.running import check_ros, private_ros_environment
    from roi_codec_ros.lab.tools.server_bench import saturates_at
    from roi_codec_ros.perception.person_detector import find_weights

    check_ros()
    size, threads = _only(args.sizes, DEFAULT_SIZE, "--sizes"), _only(args.threads, 0, "--threads")
    model, weights = find_model(args.model), find_weights(args.weights, model_directories())
    rows = []
    with tempfile.TemporaryDirectory(prefix="roi-codec-bench-") as name:
        folder = Path(name)
        os.environ.update(private_ros_environment(os.environ, folder / "log"))
        bits_per_pixel = _write_payloads(folder, args, model, size)
        rounds = [(count, cameras) for count in args.processes for cameras in args.cameras]
        with tqdm(total=round(len(rounds) * args.seconds), unit="s", disable=None) as progress:
            for processes, cameras in rounds:
                progress.set_description(f"{cameras} cameras, {_arrangement(processes)}")
                parameters = {
                    "models": [str(model.resolve())],
                    "detector": str(weights.resolve()),
                    "device": args.device,
                    "max_batch": args.max_batch,
                    "threads": threads or 0,
                }
                trial = _Trial(folder, processes, cameras, args.rate, args.seconds, parameters)
                rows.append({"processes": processes, **trial.run(progress.update)})
    saturation = {
        str(count): saturates_at([row for row in rows if row["processes"] == count])
        for count in args.processes
    }
    print(_table(rows, saturation, args.rate))
    if report is not None:
        settings = {
            "rate_hz": args.rate,
            "seconds": args.seconds,
            "size": "{}x{}".format(*size),
            "model": model.name,
            "weights": weights.name,
            "bits_per_pixel": bits_per_pixel,
            "max_batch": args.max_batch,
            "threads": threads or 0,
        }
        report.write_json(
            {
                "machine": describe_machine(device=args.device, threads=threads or None),
                "server": settings,
                "rows": rows,
                "saturates_at": saturation,
            },
        )


def _write_payloads(
    folder: Path, args: argparse.Namespace, model: Path, size: tuple[int, int]
) -> float:
    """Payloads of the photographs, as files in a folder; their mean bits per pixel."""
    from roi_codec_ros.codec import Encoder, load_model
    from roi_codec_ros.lab.simulation.photograph_cameras import installed_shots
    from roi_codec_ros.lab.tools.encode_bench import fitted

    if args.images is not None:
        paths = photographs_in(args.images)
    else:
        paths = list(dict.fromkeys(shot.photograph for shot in installed_shots()))
    encoder = Encoder(load_model(model))
    broken: list[PhotographError] = []
    photographs = islice(readable(paths, broken), args.limit)
    frames = [encoder.encode(fitted(photograph, size)) for photograph in photographs]
    for sentence in left_out(broken, len(paths)):
        print(sentence, file=sys.stderr)
    if not frames:
        raise RoiCodecError(f"expected photographs in {args.images}, found none that can be read")
    for index, frame in enumerate(frames):
        write_whole(folder / f"{index:03}.roic", frame.data)
    return sum(frame.bits_per_pixel for frame in frames) / len(frames)


@dataclass(frozen=True)
class _Trial:
    """One server with so many cameras.

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
        from roi_codec_ros.config.bringup import command, joined, server_graph
        from roi_codec_ros.lab.tools.server_bench import Usage, summary

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
        books = read_json(heard)
        return summary(read_json(sent), books["persons"], books["dropped"], before, after)

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


def _module(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"{MODULES}.{name}", *map(str, arguments)]


def _only(values: Sequence[Any] | None, default: Any, option: str) -> Any:
    """The one value of an option that elsewhere takes several."""
    if values is None:
        return default
    if len(values) != 1:
        raise UsageError(f"expected one value for {option} with --server, found {len(values)}")
    return values[0]


def _arrangement(processes: int) -> str:
    return "one process" if processes == 1 else "two processes"


def _table(rows: list[dict[str, Any]], saturation: dict[str, int | None], rate_hz: float) -> str:
    lines = [
        f"{'':<14} {'cameras':>7} {'in/s':>7} {'out/s':>7} {'p50 ms':>8} {'p95 ms':>8} "
        f"{'p99 ms':>8} {'dropped':>8} {'decoder':>8} {'detector':>9} {'CPU %':>6} {'MiB':>6}"
    ]
    for row in rows:
        latency, dropped = row["latency_ms"], row["dropped"]
        cells = " ".join(
            f"{latency[name]:>8.0f}" if latency[name] is not None else f"{'–':>8}"
            for name in ("p50", "p95", "p99")
        )
        lines.append(
            f"{_arrangement(row['processes']):<14} {row['cameras']:>7} {row['in_fps']:>7.1f} "
            f"{row['out_fps']:>7.1f} {cells} {dropped['total']:>8} {dropped['decoder']:>8} "
            f"{dropped['detector']:>9} {row['cpu_percent']:>6.0f} {row['memory_mib']:>6.0f}"
        )
    for count, cameras in saturation.items():
        where = f"saturates at {cameras} cameras" if cameras else "did not saturate"
        lines.append(f"{_arrangement(int(count))}: {where} of {rate_hz:g} frames/s each")
    return "\n".join(lines)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


_counts.__name__ = "list of numbers of cameras"
