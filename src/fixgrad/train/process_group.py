"""Several workers of one run in a process each, through `torch.distributed`: integers travel by gloo."""

import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from fixgrad.errors import UsageError
from fixgrad.train.collective import Collective, WorkerError

#: Seconds without a word from another worker after which a run ends. A step takes seconds at most; reading data longer.
PATIENCE = 1800
#: Names a file through which workers of one machine find each other; `torchrun` uses an address and a port instead.
RENDEZVOUS = "FIXGRAD_RENDEZVOUS"

Result = TypeVar("Result")


class ProcessGroup(Collective):
    """The workers of the process group that `join` made. There is one for a process."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def __reduce__(self) -> tuple[type["ProcessGroup"], tuple[()]]:
        return ProcessGroup, ()

    @classmethod
    def join(cls) -> "ProcessGroup":
        """Meet the workers of which the environment tells; see `from_environment` for what is raised."""
        file = os.environ.get(RENDEZVOUS)
        needed = ("RANK",) if file else ("RANK", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in needed if name not in os.environ]
        if missing:
            raise UsageError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set: start the workers with "
                "torchrun or --workers, or unset WORLD_SIZE"
            )
        _told(
            lambda: dist.init_process_group(
                "gloo",
                init_method=f"file://{file}" if file else "env://",
                rank=int(os.environ["RANK"]),
                world_size=int(os.environ["WORLD_SIZE"]),
                timeout=timedelta(seconds=PATIENCE),
            )
        )
        return cls()

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
    """Run an exchange; what PyTorch raises where another worker is gone becomes one line."""
    try:
        exchange()
    except (RuntimeError, EOFError, pickle.UnpicklingError) as problem:
        reason = str(problem).strip().split("\n", 1)[0].partition(". This is typically")[0]
        raise WorkerError(
            f"lost another worker of this run: it ended, or was silent for {PATIENCE} s ({reason}); see its own message, "
            "then continue with --resume, with any number of workers"
        ) from None
