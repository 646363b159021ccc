# SPDX-License-Identifier: Apache-2.0
"""Images measured here, or by several processes at once; the results and their order are the same.

Latencies are meaningless while other processes work, so they are only measured by a single one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import repeat

from roi_codec_ros.common.errors import RoiCodecError
from roi_codec_ros.lab.datasets.annotations import Annotation
from roi_codec_ros.lab.evaluation.measurement import Bench
from roi_codec_ros.lab.evaluation.results import Failure, ImageResult

Outcome = dict[int, ImageResult] | Failure
Measure = Callable[[Sequence["Task"]], Iterator[Outcome]]


@dataclass(frozen=True, eq=False)
class Task:
    """An image, and the rows of the table that it is still wanted for."""

    annotation: Annotation
    rows: tuple[int, ...]


def measure_here(bench: Bench) -> Measure:
    """Measure one image after the other in this process."""
    return lambda tasks: (bench.measure(task.annotation, task.rows) for task in tasks)


def measure_in_processes(make_bench: Callable[[], Bench], workers: int) -> Measure:
    """Measure in `workers` processes, each with a bench of its own, in the order of the tasks.

    make_bench is sent to them, so it has to be picklable. RoiCodecError where a process dies.
    """

    def measure(tasks: Sequence[Task]) -> Iterator[Outcome]:
        if not tasks:
            return
        # Not by fork: torch's threads do not survive it.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context)
        try:
            yield from pool.map(_measure, repeat(make_bench), tasks)
        except BrokenProcessPool as error:
            raise RoiCodecError(
                f"expected {workers} processes to stay alive, found one dead, perhaps for want of "
                "memory; go on with --resume and fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    return measure


_benches: dict[Callable[[], Bench], Bench] = {}  # this process's own, made with its first image


def _measure(make_bench: Callable[[], Bench], task: Task) -> Outcome:
    if make_bench not in _benches:
        _benches[make_bench] = make_bench()
    return _benches[make_bench].measure(task.annotation, task.rows)
