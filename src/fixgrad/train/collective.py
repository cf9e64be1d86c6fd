"""What the workers of one run tell each other: integer sums, maxima and flags over all shares of a global batch.

Data parallelism cannot change a bit here. Each worker computes the integers of its images; sums of integers, wrapped or
exact, maxima and flags do not depend on how many workers hold the parts, and random bits follow from an image's place in
the global batch. So everything that a run remembers is a function of the global batch alone.

`torchrun` starts the processes and tells them of each other in the environment; integers travel by gloo.
"""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from fixgrad.errors import FixgradError, UsageError

#: Seconds without a word from another worker after which a run ends. A step takes seconds at most; reading data longer.
PATIENCE = 1800
#: Of a worker that ends because another one failed, and has nothing to say itself.
FOLLOWED = "another worker failed"

Result = TypeVar("Result")


class Share(NamedTuple):
    """A worker's images of a global batch: `length` from number `first`, of `batch` in all."""

    first: int
    length: int
    batch: int

    @property
    def images(self) -> slice:
        return slice(self.first, self.first + self.length)


class WorkerError(FixgradError):
    """Another worker of the run failed or is gone."""


class Collective:
    """One worker alone: its share is the batch, and every reduction is done already. The base of `ProcessGroup`.

    All tensors are integers (or bool, for `or_`) on any device and change in place. Every worker must make the same calls
    with tensors of the same shapes and types in the same order, in one thread.

    Attributes:
        rank: number of this worker, 0 to size - 1. Worker 0 writes files and prints.
        size: number of workers.
    """

    rank = 0
    size = 1

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over the workers, modulo 2**bits of the type: int32 wraps as an accumulator does, int64 is exact."""
        return tensor

    def max_(self, tensor: Tensor) -> Tensor:
        """The largest of the workers' elements."""
        return tensor

    def or_(self, tensor: Tensor) -> Tensor:
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
            WorkerError: the block went well here, and failed elsewhere.
        """
        try:
            yield
        except WorkerError:
            raise
        except Exception:
            self.gather(True)
            raise
        if any(self.gather(False)):
            raise WorkerError(FOLLOWED)

    def close(self) -> None:
        """Leave the others."""


#: The default: a run in one process.
SINGLE = Collective()


class ProcessGroup(Collective):
    """The workers that `torchrun` started, through the process group of `torch.distributed`."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def sum_(self, tensor: Tensor) -> Tensor:
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def max_(self, tensor: Tensor) -> Tensor:
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def or_(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(self._reduce(tensor.to(torch.uint8), dist.ReduceOp.MAX).to(torch.bool))

    def barrier(self) -> None:
        self.sum_(torch.zeros(1, dtype=torch.int32))

    def broadcast(self, value: Result) -> Result:
        values = [value if self.rank == 0 else None]
        _told(lambda: dist.broadcast_object_list(values, src=0))
        return cast(Result, values[0])

    def gather(self, value: Result) -> list[Result]:
        values: list[Any] = [None] * self.size
        _told(lambda: dist.all_gather_object(values, value))
        return values

    def close(self) -> None:
        dist.destroy_process_group()

    def _reduce(self, tensor: Tensor, operation: Any) -> Tensor:
        """Through the host: gloo adds there, and integers are the same wherever they are added."""
        if tensor.is_floating_point():
            raise TypeError(f"a reduction over workers is exact for integers only, not for {tensor.dtype}")
        host = tensor.to("cpu").contiguous()
        _told(lambda: dist.all_reduce(host, operation))
        return tensor if host is tensor else tensor.copy_(host)


def _told(exchange: Callable[[], Any]) -> None:
    try:
        exchange()
    except (RuntimeError, EOFError, pickle.UnpicklingError) as problem:
        raise WorkerError(
            f"lost another worker of this run ({_first_line(problem)}): it ended, or was silent for {PATIENCE} s; see its own "
            "message, then continue with --resume and any number of workers"
        ) from None


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().split("\n", 1)[0]


def from_environment() -> Collective:
    """The workers of which `torchrun` tells in the environment, or `SINGLE` in an ordinary process.

    Raises:
        UsageError: the environment is not one that `torchrun` makes.
        WorkerError: the other workers do not come.
    """
    size = os.environ.get("WORLD_SIZE")
    if size is None or size == "1":
        return SINGLE
    needed = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise UsageError(f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set: start the workers with torchrun")
    _told(lambda: dist.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE)))
    return ProcessGroup()
