# SPDX-License-Identifier: Apache-2.0
"""Finders of heads and persons for films, in the form that is fastest on this machine.

    frame ─┬─► faces of the model ────────────────────────────────► every frame
           └─► small faces; its heads and persons, or those of
               its 8-bit form ────────────────────────────────────► frames some time apart

Faces, which people are known by, are looked for with the same numbers in both forms: on half of
the pixels in each direction in every frame, and on every pixel in frames that are judged whole.
The other network, which finds heads from behind and persons, sees half of them, and takes a third
of its time in 8-bit integers, where this processor has instructions for them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from roi_codec_ros.common.graph_choice import least_seconds
from roi_codec_ros.common.graph_runtime import GRAPH_SUFFIX, find_graph, read_graph
from roi_codec_ros.regions import RegionFinder, open_regions

INT8 = "-int8"  # ends the name of a model's 8-bit form
TIMED_SIZE = (360, 640)  # small: each command waits for it, and the ratio is that of large frames
MOST_APART = 0.1  # mean difference of a probability: a processor whose integers overflow has more


def film_finders(
    model: str | Path, *, backend: str = "onnxruntime", integers: bool = True
) -> Callable[[], RegionFinder]:
    """A factory of finders, one for each worker, which compute on one thread.

    integers: use the model's 8-bit form, where that is faster. Raises ModelFileError: there is no
    such file, or it is no regions model. RoiCodecError: the backend is not there.
    """
    path = find_graph(model)

    def opened(content: bytes) -> RegionFinder:
        return open_regions(content, where=str(path), backend=backend, threads=1, small_faces=True)

    content = read_graph(path)
    opened(content)  # what is wrong with it is said at once
    small = path.with_name(path.stem + INT8 + GRAPH_SUFFIX)
    chosen = content
    if integers and small.is_file():
        chosen = _faster(content, read_graph(small), opened)
    return lambda: opened(chosen)


def _faster(exact: bytes, small: bytes, opened: Callable[[bytes], RegionFinder]) -> bytes:
    """The one that takes less time here; the exact one where the other computes something else."""
    rows, columns = (np.arange(side, dtype=np.uint32) for side in TIMED_SIZE)
    ramps = [
        7 * rows[:, None] + 3 * columns,
        rows[:, None] * columns // 64,
        rows[:, None] + 0 * columns,
    ]
    image = np.stack(ramps, axis=-1).astype(np.uint8)
    finders = [opened(content) for content in (exact, small)]
    found = [finder.find(image) for finder in finders]
    seconds = least_seconds([partial(finder.find, image) for finder in finders])
    pairs = [(regions.heads, regions.persons) for regions in found]
    apart = max(float(np.abs(a - b).mean()) for a, b in zip(*pairs, strict=True))
    return small if seconds[1] < seconds[0] and apart <= MOST_APART else exact
