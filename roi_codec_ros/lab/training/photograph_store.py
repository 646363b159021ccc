# SPDX-License-Identifier: Apache-2.0
"""The photographs of a training set, decoded once where memory allows."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from roi_codec_ros.common.images import ImageArray
from roi_codec_ros.common.photographs import PhotographError
from roi_codec_ros.lab.datasets.annotated_images import read_annotated
from roi_codec_ros.lab.datasets.annotations import Annotation

MEMORY_SHARE = 0.5  # of what is free at the start


class Photographs:
    """Reads photographs as uint8 RGB [H, W, 3] and keeps them as long as there is room."""

    def __init__(self, annotations: Sequence[Annotation], room_bytes: int | None = None) -> None:
        """room_bytes: for decoded photographs; half of the free memory unless given."""
        self._annotations = list({item.image_path: item for item in annotations}.values())
        self._room = room_for_photographs() if room_bytes is None else room_bytes
        self._kept: dict[Path, ImageArray] = {}
        self._broken: dict[Path, PhotographError] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._annotations)

    @property
    def kept(self) -> int:
        """How many are in memory."""
        return len(self._kept)

    @property
    def broken(self) -> dict[Path, PhotographError]:
        """Those that were asked for and cannot be used, and why; in the order of the data set."""
        found = dict(self._broken)
        paths = (item.image_path for item in self._annotations)
        return {path: found[path] for path in paths if path in found}

    def read(self, annotation: Annotation) -> ImageArray:
        """One photograph, of the annotated size. Raises PhotographError, each time the same."""
        path = annotation.image_path
        if path in self._broken:
            raise self._broken[path]
        pixels = self._kept.get(path)
        if pixels is None:
            try:
                pixels = read_annotated(annotation)
            except PhotographError as error:
                self._broken[path] = error
                raise
            with self._lock:
                if path not in self._kept and pixels.nbytes <= self._room:
                    self._room -= pixels.nbytes
                    self._kept[path] = pixels
        return pixels

    def read_ahead(self) -> None:
        """Read one after the other until the room is full; `broken` has those that are.

        Photographs for which there is no room are read when they are drawn.
        """

        def try_one(annotation: Annotation) -> None:
            if not self._full:
                with contextlib.suppress(PhotographError):
                    self.read(annotation)

        with ThreadPoolExecutor(max_workers=worker_threads()) as pool:
            list(pool.map(try_one, self._annotations))

    @property
    def _full(self) -> bool:
        largest = max((pixels.nbytes for pixels in list(self._kept.values())[:32]), default=0)
        return self._room < largest


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
