"""Threads that share the tiles of a pass. Each computes its tiles alone, from im2col to requantised codes.

One thread a tile beats one GEMM on all threads here: a tile stays in one core's cache from the first function to the last,
threads meet once a layer and not once a function, and a core that is busy elsewhere takes fewer tiles instead of holding up
the others. Which thread computes a tile cannot change a bit: tiles are disjoint, and integer sums have no order.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A team of `count` threads, the calling one included.

    PyTorch's own threads are a setting of each thread: those of the team have one each, and the calling thread while it is
    inside `alone`.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, "fixgrad-worker") if count > 1 else None
        if self._pool is not None:
            self._start(self._pool)

    def __reduce__(self) -> tuple[Callable[[int], "Workers"], tuple[int]]:
        """A copy, also one in another process, is that process's team."""
        return workers, (self.count,)

    def _start(self, pool: ThreadPoolExecutor) -> None:
        """Starts all threads, and gives back the process-wide default that `set_num_threads` leaves behind."""
        before = torch.get_num_threads()
        barrier = Barrier(self.count)

        def begin() -> None:
            torch.set_num_threads(1)
            barrier.wait()

        for _ in range(self.count - 1):
            pool.submit(begin)
        barrier.wait()
        torch.set_num_threads(before)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within, PyTorch's functions run on the calling thread only."""
        before = torch.get_num_threads()
        if before == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`function` of each item, in their order; each free thread takes the next item."""
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]
        results: dict[int, Result] = {}
        counter = itertools.count()

        def work() -> None:
            while (index := next(counter)) < len(items):
                results[index] = function(items[index])

        helpers = [self._pool.submit(work) for _ in range(min(self.count, len(items)) - 1)]
        try:
            work()
        finally:
            started = [helper for helper in helpers if not helper.cancel()]
            failures = [helper.exception() for helper in started]
        for failure in failures:
            if failure is not None:
                raise failure
        return [results[index] for index in range(len(items))]


@lru_cache
def workers(count: int) -> Workers:
    """The process's team of that size."""
    return Workers(count)


# A forked process inherits no threads: it starts its own when it needs them.
os.register_at_fork(after_in_child=workers.cache_clear)
