# SPDX-License-Identifier: Apache-2.0
"""Child processes that end with their parent, whatever ends it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roi_codec_ros.common.errors import RoiCodecError, reason_of

_PR_SET_PDEATHSIG = 1
_ENDINGS = ((signal.SIGINT, 4.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))
_PLAINTEXT = re.compile(r"\x1b\[[0-9;]*m")
_LOUD = re.compile(r"\[(ERROR|FATAL)\]|^\w*(Error|Exception)\b")
_ROS_PREFIX = re.compile(r"^\[(ERROR|FATAL|WARN)\] \[[\d.]+\] \[[^\]]*\]: ")


@dataclass(frozen=True)
class Child:
    """One started process and the file that holds all it wrote."""

    name: str
    process: subprocess.Popen
    log: Path

    def last_words(self) -> str:
        """The last error in the log, else its last line; empty if it wrote nothing."""
        try:
            text = self.log.read_text(errors="replace")[-20_000:]
        except OSError:
            return ""
        lines = [_PLAINTEXT.sub("", line).strip() for line in text.splitlines()]
        lines = [line for line in lines if line]
        loud = [line for line in lines if _LOUD.search(line)]
        return _ROS_PREFIX.sub("", (loud or lines or [""])[-1])[:300]


class ProcessGroup:
    """Starts processes and ends all of them on leaving the `with` block.

    Each process leads a session of its own, so a Ctrl-C in the terminal reaches only the parent,
    which then ends the children in order; if the parent is killed, the kernel kills them.
    """

    def __init__(self, environment: Mapping[str, str], log_folder: Path) -> None:
        self._environment = dict(environment)
        self._log_folder = log_folder
        self.children: list[Child] = []

    def start(self, name: str, argv: Sequence[str]) -> Child:
        """Start one process; its output goes to `<name>.log`. Call from the main thread.

        Raises RoiCodecError when the program cannot be started or its log not be written.
        """
        log = self._log_folder / f"{name}.log"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,
                    preexec_fn=_die_with(os.getpid()),
                )
        except OSError as error:
            raise RoiCodecError(
                f"cannot start {name}: {error.filename}: {reason_of(error)}"
            ) from error
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def find(self, name: str) -> Child | None:
        """The child of that name."""
        return next((child for child in self.children if child.name == name), None)

    def check(self) -> None:
        """Raise RoiCodecError, with its last words, if a process has ended by itself."""
        for child in self.children:
            status = child.process.poll()
            if status is not None:
                raise RoiCodecError(f"{child.name} {_ending(status)}{_said(child)}")

    def stop(self) -> None:
        """End all processes and wait: ask by SIGINT, then by SIGTERM, then kill."""
        for number, patience_s in _ENDINGS:
            alive = [child for child in self.children if child.process.poll() is None]
            for child in alive:
                _signal_group(child.process, number)
            deadline = time.monotonic() + patience_s
            for child in alive:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(deadline - time.monotonic(), 0.01))
        for child in self.children:  # what a process left behind in its own session
            _signal_group(child.process, signal.SIGKILL)

    def kill(self) -> None:
        """End all processes without asking."""
        for child in self.children:
            _signal_group(child.process, signal.SIGKILL)
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(2.0)

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        except BaseException:  # a second Ctrl-C while waiting: no more patience
            self.kill()
            raise


def silence_message(what: str, child: Child | None) -> str:
    """One line that says what is missing and what the process behind it wrote last."""
    return what + (_said(child) if child is not None else "")


def _said(child: Child) -> str:
    words = child.last_words()
    return f"; its last words: {words!r} (all in {child.log})" if words else f" (see {child.log})"


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _signal_group(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _die_with(parent: int) -> Callable[[], None] | None:
    """What a child runs before its program: be killed when the parent dies (Linux only)."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        # A shell that starts the demo in the background has its children ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare
