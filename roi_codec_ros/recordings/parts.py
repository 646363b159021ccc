# SPDX-License-Identifier: Apache-2.0
"""The folder beside a recording that is written, where its whole parts outlast a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from roi_codec_ros.common.files import json_bytes, write

REPAIRED = "repaired_"  # begins names of files that a run makes anew where they are needed
_STATE = "state.json"


class PartsFolder:
    """Parts of a recording, and where a run that goes on after a kill continues.

    Attributes:
        path: the folder.
        names: of the parts that are whole, in their order.
        state: what `remember` was told with the last of them, also by an earlier run.
    """

    def __init__(self, target: Path, told: str) -> None:
        """target: the recording. told: what tells it and its settings from others.

        What an earlier run left of another recording, or of a part that is not whole, is removed.
        """
        self.path = work_folder(target)
        self._told = told
        self.state = self._read()
        self.names: list[str] = list(self.state.get("parts", []))
        self._clear()

    def remember(self, state: dict[str, Any]) -> None:
        """The parts so far are whole. state: for the next run, for JSON. Raises RoiCodecError."""
        self.state = {"told": self._told, "parts": self.names, **state}
        write(self.path / _STATE, json_bytes(self.state), durable=True)

    def remove(self) -> None:
        """The recording is in its place."""
        shutil.rmtree(self.path)

    def abandon(self) -> None:
        """Keep only what another run can continue from."""
        if not self.names:
            shutil.rmtree(self.path, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.path / _STATE).read_bytes())
        except (OSError, ValueError):
            return {}
        return state if state.get("told") == self._told else {}

    def _clear(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for path in self.path.iterdir():
            if path.name not in (_STATE, *self.names) and not path.name.startswith(REPAIRED):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def work_folder(target: Path) -> Path:
    """Where a recording is written before it takes its place."""
    return target.parent / f".{target.name}.anonymizing"
