"""What the workers of one run tell each other: integer sums, maxima and flags over all shares of a global batch.

Data parallelism cannot change a bit here. Each worker computes the integers of its images; sums of integers, wrapped or
exact, maxima and flags do not depend on how many workers hold the parts, and random bits follow from an image's place in
the global batch. So everything that a run remembers is a function of the global batch alone.

This module is the interface, and one worker alone; `fixgrad.train.process_group` is several.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fixgrad.errors import FixgradError

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")


class Share(NamedTuple):
    """A worker's images of a global batch: `length` from number `first`, of `batch` in all."""

    first: int
    length: int
    batch: int

    @property
    def images(self) -> slice:
        """Where they lie in the batch."""
        return slice(self.first, self.first + self.length)


class WorkerError(FixgradError):
    """Another worker of the run failed or is gone."""


class FollowedError(WorkerError):
    """Another worker of the run tells what failed; this one has nothing to add."""

    def __init__(self) -> None:
        super().__init__("another worker of this run failed: see its own message")


class Collective:
    """One worker alone: its share is the batch, and every reduction is done already.

    All tensors are integers (or bool, for `or_`) on any device and change in place. Every worker must make the same calls
    with tensors of the same shapes and types in the same order, in one thread.

    Attributes:
        rank: number of this worker, 0 to size - 1. Worker 0 writes files and prints.
        size: number of workers.

    Raises:
        WorkerError: (all methods that wait for others) a worker is gone.
    """

    rank = 0
    size = 1

    def sum_(self, tensor: "Tensor") -> "Tensor":
        """The sum over the workers, modulo 2**bits of the type: int32 wraps as an accumulator does, int64 is exact."""
        return tensor

    def max_(self, tensor: "Tensor") -> "Tensor":
        """The largest of the workers' elements."""
        return tensor

    def or_(self, tensor: "Tensor") -> "Tensor":
        """Flags that any worker raised; bool."""
        return tensor

    def barrier(self) -> None:
        """Wait until all workers are here."""

    def broadcast(self, value: Result) -> Result:
        """What worker 0 gave; the others' `value` is not looked at."""
        return value

    def gather(self, value: Result) -> list[Result]:
        """What each worker gave, in order of their ranks."""
        return [value]

    def share(self, batch: int) -> Share:
        """This worker's images of a global batch: consecutive, and as many as the others', give or take one."""
        first, end = (rank * batch // self.size for rank in (self.rank, self.rank + 1))
        return Share(first, end - first, batch)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that ends well for all workers or for none.

        Raises:
            FollowedError: the block failed on another worker, or on several in the same words.
        """
        failure: Exception | None = None
        try:
            yield
        except WorkerError:
            raise
        except Exception as error:
            failure = error
        told = self.gather(None if failure is None else str(failure))
        if failure is not None and str(failure) not in told[: self.rank]:
            raise failure
        if any(message is not None for message in told):
            raise FollowedError

    def close(self) -> None:
        """Leave the others."""


#: The default: a run in one process.
SINGLE = Collective()


def from_environment() -> Collective:
    """The workers of which `torchrun` (or `--workers`) tells in the environment, or `SINGLE` in an ordinary process.

    Raises:
        UsageError: the environment is not one that `torchrun` makes.
        WorkerError: the other workers do not come.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return SINGLE
    from fixgrad.train.process_group import ProcessGroup

    return ProcessGroup.join()
