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
        pool = ProcessPoolExecutor(
            min(workers, len(tasks)), context, initializer=_set_up, initargs=(make_bench,)
        )
        try:
            yield from pool.map(_measure, tasks)
        except BrokenProcessPool as error:
            raise RoiCodecError(
                f"expected {workers} processes to stay alive, found one dead, perhaps for want of "
                "memory; go on with --resume and fewer --workers"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    return measure


_benches: list[Bench] = []  # this process's own


def _set_up(make_bench: Callable[[], Bench]) -> None:
    _benches.append(make_bench())


def _measure(task: Task) -> Outcome:
    return _benches[0].measure(task.annotation, task.rows)
