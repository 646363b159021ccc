# SPDX-License-Identifier: Apache-2.0
"""Live state of a demo's cameras: a table updated in place or, piped, lines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from roi_codec_ros.lab.demo.report import Summary, table_lines

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def progress_table(
    seconds: float, model: str, say: Callable[[str], None]
) -> LiveTable | LineTable:
    """The display for standard output. seconds: duration, 0: until stopped."""
    return LiveTable(seconds, model) if sys.stdout.isatty() else LineTable(say)


class LiveTable:
    """Redraws itself in place twice a second."""

    def __init__(self, seconds: float, model: str) -> None:
        self._seconds = seconds
        self._model = model
        self._lines = 0
        self._next_s = 0.0

    def show(self, elapsed_s: float, summaries: list[Summary]) -> None:
        """Show the state of the cameras, if an update is due."""
        if elapsed_s < self._next_s:
            return
        self._next_s = elapsed_s + 0.5
        total = f" of {self._seconds:g}" if self._seconds else ""
        header, *rows = table_lines(summaries)
        width = shutil.get_terminal_size().columns - 1  # a line that wraps spoils the redrawing
        title = f"roi-codec demo   model {self._model}   {elapsed_s:.0f}{total} s   Ctrl-C ends it"
        lines = [
            _BOLD + title[:width] + _PLAIN,
            _DIM + header[:width] + _PLAIN,
            *(row[:width] for row in rows),
        ]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        body = "".join(f"\x1b[2K{line}\n" for line in lines)
        sys.stdout.write(f"{_HIDE_CURSOR}{up}{body}")
        sys.stdout.flush()
        self._lines = len(lines)

    def close(self) -> None:
        """Give the terminal back."""
        sys.stdout.write(_SHOW_CURSOR)
        sys.stdout.flush()


class LineTable:
    """Writes a line per camera every two seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._next_s = 2.0
        self._started = False

    def show(self, elapsed_s: float, summaries: list[Summary]) -> None:
        """Show the state of the cameras, if an update is due."""
        if elapsed_s < self._next_s:
            return
        self._next_s += 2.0
        header, *rows = table_lines(summaries)
        if not self._started:
            self._say(f"  time  {header}")
            self._started = True
        for row in rows:
            self._say(f"{elapsed_s:4.0f} s  {row}")

    def close(self) -> None:
        """Nothing to do."""
