# SPDX-License-Identifier: Apache-2.0
"""What runs the graph on one machine shares: environment, waiting and stopping."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.config.bringup import NodeSpec, command, joined
from roi_codec_ros.lab.demo.processes import ProcessGroup, silence_message

RATE_HZ = 10.0  # default for a camera
SILENCE_S = 60.0
_DOMAINS = range(1, 102)  # 0 is everybody's; above 101 the ports run into the system's own
_FIRST_PORT, _PORTS_PER_DOMAIN = 7400, 250


class Ledger(Protocol):
    """Receives the messages of a running graph, from the monitor's thread.

    Who inherits it takes those that are of interest.
    """

    def silent_stage(self) -> tuple[str, str] | None:
        """The first stage that has sent nothing, and for which camera; None once all have."""

    def on_latent(self, camera: str) -> None:
        """A latent of a camera has arrived."""

    def on_coding(self, camera: str, values: Mapping[str, str]) -> None:
        """What the encoder of a camera says in the diagnostics."""

    def on_field_of_view(self, camera: str, degrees: float) -> None:
        """A calibrated camera's horizontal field of view."""

    def on_decoded(self, camera: str, message: Any) -> None:
        """A frame was decoded (fields of DecodedFrame)."""

    def on_image(self, camera: str, stamp_ns: int, image: ImageArray) -> None:
        """An anonymized image, RGB uint8 [H, W, 3]."""

    def on_persons(self, camera: str, message: Any) -> None:
        """The persons of one frame (fields of PersonArray)."""

    def on_tracks(self, message: Any) -> None:
        """The tracks of all cameras (fields of PersonArray)."""

    def on_coverage(self, message: Any) -> None:
        """Which floor cameras watch (fields of OccupancyGrid)."""


def check_ros() -> None:
    """Raise RoiCodecError unless ROS 2 and this package's messages can be imported."""
    for module, what in (("rclpy", "ROS 2"), ("roi_codec_ros.msg", "this package's messages")):
        if importlib.util.find_spec(module) is None:
            raise RoiCodecError(
                f"expected {what}, found no Python module {module}: source a ROS 2 workspace that "
                "has this package, or run scripts/demo, which sets up everything"
            )


def camera_names(count: int) -> list[str]:
    """``camera``, or ``camera1``, ``camera2``, … for more than one."""
    return ["camera"] if count == 1 else [f"camera{number}" for number in range(1, count + 1)]


def threads_per_process(cores: int, cameras: int) -> int:
    """Threads for each of encoders, decoder and detector so that they share the cores, 1 to 4."""
    return max(1, min(4, cores // (cameras + 2)))


def private_ros_environment(given: Mapping[str, str], log_folder: Path) -> dict[str, str]:
    """The variables that keep the demo's graph to itself; what the user has set stays as it is.

    given: the environment. Only this machine is searched for peers, in a domain that nobody uses.
    """
    added: dict[str, str] = {}
    if "ROS_DOMAIN_ID" not in given:
        added["ROS_DOMAIN_ID"] = str(_free_domain())
    if not {"ROS_LOCALHOST_ONLY", "ROS_AUTOMATIC_DISCOVERY_RANGE"} & set(given):
        if given.get("ROS_DISTRO") == "humble":
            added["ROS_LOCALHOST_ONLY"] = "1"
        else:
            added["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if "ROS_LOG_DIR" not in given:
        added["ROS_LOG_DIR"] = str(log_folder / "ros")
    return added


def _free_domain() -> int:
    """A domain whose first discovery port nobody on this machine listens on."""
    start = os.getpid() % len(_DOMAINS)
    for offset in range(len(_DOMAINS)):
        domain = _DOMAINS[(start + offset) % len(_DOMAINS)]
        port = _FIRST_PORT + _PORTS_PER_DOMAIN * domain + 10  # unicast discovery of participant 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return domain
    return _DOMAINS[start]


def node_environment(threads: int) -> dict[str, str]:
    """The environment of the graph's processes. threads: for each of them."""
    return {
        **{name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        "PYTHONUNBUFFERED": "1",
        **os.environ,
        "RCUTILS_COLORIZED_OUTPUT": "0",
    }


@contextmanager
def running_graph(graph: Sequence[NodeSpec], threads: int, logs: Path) -> Iterator[ProcessGroup]:
    """The processes of a graph, of its own on this machine, while the `with` block lasts.

    Nodes that this process makes within the block belong to the same graph. threads: of each
    process. logs: the folder for what they print. Raises RoiCodecError.
    """
    os.environ.update(private_ros_environment(os.environ, logs.resolve()))
    with ProcessGroup(node_environment(threads), logs) as group:
        for spec in joined(graph):
            group.start(spec.full_name.strip("/").replace("/", "."), command(spec))
        yield group


def stop_event() -> threading.Event:
    """Set on SIGINT and SIGTERM, for a process that a `ProcessGroup` ends."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


class Stop:
    """Turns SIGINT, SIGTERM and SIGHUP into a flag; a second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.reason = ""  # the signal's name
        self._flag = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, number: int, _: object) -> None:
        if self._flag.is_set():
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name
        self._flag.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, or return early on a stop request; returns whether there was one."""
        return self._flag.wait(seconds)


def await_persons(group: ProcessGroup, books: Ledger, stop: Stop) -> None:
    """Wait until the frames of every camera have gone the whole way."""
    silent = books.silent_stage()
    since_s = time.monotonic()
    while silent is not None:
        group.check()
        if stop.wait(0.1):
            raise KeyboardInterrupt
        now_silent = books.silent_stage()
        if now_silent != silent:
            silent, since_s = now_silent, time.monotonic()
        elif time.monotonic() - since_s > SILENCE_S:
            raise RoiCodecError(_silence(group, *silent))


def _silence(group: ProcessGroup, stage: str, camera: str) -> str:
    names = (f"{camera}.{stage}",) if stage == "encoder" else (stage, "server")
    said = f"the {stage} has sent nothing for {camera} in {SILENCE_S:g} s"
    return silence_message(said, next(filter(None, map(group.find, names)), None))
