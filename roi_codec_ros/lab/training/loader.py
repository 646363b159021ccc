# SPDX-License-Identifier: Apache-2.0
"""Prefetched batches, in an order that depends only on the seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np

Batch_co = TypeVar("Batch_co", covariant=True)


class _Sampler(Protocol[Batch_co]):
    def batch(self, size: int, rng: np.random.Generator) -> Batch_co: ...


class Prefetcher(Generic[Batch_co]):
    """Batches prefetched by threads.

    Batch number ``n`` is drawn from its own generator ``(seed, n)``, so that a run which is
    continued at step ``n`` sees what an uninterrupted one would have seen, however many threads
    there are. Of several processes each takes every ``stride``-th batch.
    """

    def __init__(
        self,
        sampler: _Sampler[Batch_co],
        batch_size: int,
        seed: int,
        first: int = 0,
        stride: int = 1,
        workers: int = 1,
    ) -> None:
        self._sampler, self._batch_size, self._seed = sampler, batch_size, seed
        self._next, self._stride = first, stride
        self._pool = ThreadPoolExecutor(
            max_workers=workers, thread_name_prefix="crops", initializer=_one_thread
        )
        self._ahead: deque[Future[Batch_co]] = deque()
        for _ in range(2 * workers + 2):
            self._ask()

    def _ask(self) -> None:
        self._ahead.append(self._pool.submit(self._draw, self._next))
        self._next += self._stride

    def _draw(self, number: int) -> Batch_co:
        return self._sampler.batch(self._batch_size, np.random.default_rng((self._seed, number)))

    def __iter__(self) -> Iterator[Batch_co]:
        while True:
            batch = self._ahead.popleft().result()
            self._ask()
            yield batch

    def close(self) -> None:
        """End the worker threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    cv2.setNumThreads(1)
