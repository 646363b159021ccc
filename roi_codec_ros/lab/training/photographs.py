# SPDX-License-Identifier: Apache-2.0
"""The photographs of a training set, decoded once where memory allows."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation

MEMORY_SHARE = 0.5  # of what is free at the start
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL = 4096  # bytes in which the end mark is looked for: cameras write a little behind it


class Photographs:
    """Reads photographs as uint8 RGB [H, W, 3] and keeps them as long as there is room."""

    def __init__(self, annotations: Sequence[Annotation], room_bytes: int | None = None) -> None:
        """room_bytes: for decoded photographs; half of the free memory unless given."""
        self._paths = list(dict.fromkeys(item.image_path for item in annotations))
        self._room = room_for_photographs() if room_bytes is None else room_bytes
        self._kept: dict[Path, np.ndarray] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def kept(self) -> int:
        """How many are in memory."""
        return len(self._kept)

    def read(self, path: Path) -> np.ndarray:
        """One photograph. Raises RoiCodecError where it is missing, broken or ends too soon."""
        pixels = self._kept.get(path)
        if pixels is None:
            pixels = read_photograph(path)
            with self._lock:
                if path not in self._kept and pixels.nbytes <= self._room:
                    self._room -= pixels.nbytes
                    self._kept[path] = pixels
        return pixels

    def read_ahead(self) -> dict[Path, str]:
        """Read one after the other until the room is full; returns those that are broken, and why.

        Photographs for which there is no room are read when they are drawn.
        """
        broken: dict[Path, str] = {}

        def try_one(path: Path) -> None:
            if self._full:
                return
            try:
                self.read(path)
            except RoiCodecError as error:
                broken[path] = str(error)

        with ThreadPoolExecutor(max_workers=worker_threads()) as pool:
            list(pool.map(try_one, self._paths))
        return {path: broken[path] for path in self._paths if path in broken}

    @property
    def _full(self) -> bool:
        largest = max((pixels.nbytes for pixels in list(self._kept.values())[:32]), default=0)
        return self._room < largest


def read_photograph(path: Path) -> np.ndarray:
    """Decode one file to uint8 RGB [H, W, 3]. Raises RoiCodecError, also for half a JPEG file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RoiCodecError(
            f"expected a readable photograph at {path}, found: {error.strerror}"
        ) from error
    if data.startswith(_JPEG_START) and _JPEG_END not in data[-_JPEG_TAIL:]:
        raise RoiCodecError(f"expected a whole photograph at {path}, found one that is cut off")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if decoded is None:
        raise RoiCodecError(f"expected a readable photograph at {path}, found none")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def room_for_photographs() -> int:
    """Half of the memory that is free now, in bytes, shared with processes that train beside."""
    free = 2 << 30  # on a system that does not tell
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) << 10
    except OSError:
        pass
    return int(free * MEMORY_SHARE) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def worker_threads() -> int:
    """Threads for work beside the training: half of the CPUs that this process may use, 1 to 8."""
    may_use = getattr(os, "sched_getaffinity", None)
    cpus = len(may_use(0)) if may_use is not None else os.cpu_count() or 1
    return max(1, min(8, cpus // 2))
