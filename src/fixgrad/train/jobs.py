"""Several runs at once, each in a process of its own with one thread."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty

from fixgrad.train.metrics import EpochMetrics
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun
from fixgrad.train.trainer import StepReport, Trainer

#: Called with (job, its steps done, its steps in all).
JobProgress = Callable[[int, int, int], None]
#: Seconds between two looks at the processes.
_POLL = 0.1
#: Steps between two messages of a process.
_EVERY = 10

_messages: "Queue[tuple[int, int, int]] | None" = None


@dataclass(frozen=True, slots=True)
class Job:
    """A run to make.

    Attributes:
        request: what to train.
        out: folder of the run.
    """

    request: RunRequest
    out: Path


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_jobs(jobs: Sequence[Job], workers: int, progress: JobProgress) -> None:
    """Make all runs, `workers` at a time, in the order given.

    Raises:
        FixgradError: a run failed; those that have not begun are dropped.
    """
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    messages: Queue[tuple[int, int, int]] = context.Queue()
    with ProcessPoolExecutor(workers, context, initializer=_connect, initargs=(messages,)) as pool:
        futures = [pool.submit(_make, number, job) for number, job in enumerate(jobs)]
        try:
            _follow(futures, messages, progress)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _follow(futures: Iterable["Future[None]"], messages: "Queue[tuple[int, int, int]]", progress: JobProgress) -> None:
    waiting = list(futures)
    while waiting:
        try:
            progress(*messages.get(timeout=_POLL))
        except Empty:
            for future in [future for future in waiting if future.done()]:
                waiting.remove(future)
                future.result()


def _connect(messages: "Queue[tuple[int, int, int]]") -> None:
    """Runs once in each process, before its first job."""
    global _messages
    _messages = messages
    from fixgrad.train.threads import use_threads

    use_threads(1)


def _make(number: int, job: Job) -> None:
    run = TrainingRun.begin(job.request, job.out)
    assert _messages is not None
    for _ in run.train([_Reporter(number, run.plan.total_steps, _messages)], keep=1):
        pass
    run.close()


class _Reporter:
    """Tells the parent process how far a run is."""

    def __init__(self, number: int, steps: int, messages: "Queue[tuple[int, int, int]]") -> None:
        self._number, self._steps, self._messages = number, steps, messages

    def step_done(self, step: int, report: StepReport, images: int, rate: float) -> None:
        if (step + 1) % _EVERY == 0 or step + 1 == self._steps:
            self._messages.put((self._number, step + 1, self._steps))

    def epoch_begins(self, epoch: int, steps: int) -> None:
        """Nothing to tell."""

    def evaluation_begins(self, batches: int) -> None:
        """Nothing to tell."""

    def batch_evaluated(self) -> None:
        """Nothing to tell."""

    def pruned(self, epoch: int, trainer: Trainer) -> None:
        """Nothing to tell."""

    def epoch_done(self, metrics: EpochMetrics, trainer: Trainer) -> None:
        """Nothing to tell."""
