"""One small run in many ways: the requests, workers as threads, and the bytes that a run leaves."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from fixgrad.network import Optimiser
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.numbers import Rounding
from fixgrad.train.collective import Collective, WorkerError
from fixgrad.train.execution import HERE, Execution
from fixgrad.train.request import RunRequest, prepare
from fixgrad.train.run import TrainingRun

Result = TypeVar("Result")

#: All that a chain of layers can hold, on 8x8 images: stride, dilation, groups, layers without bias; and a graph with batch
#: normalisation, sums, dropout and average pooling.
MODEL = """
from torch import nn

def chain():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2, bias=False), nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=2, dilation=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10, bias=False),
    )


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.25)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(x + self.bn2(self.conv2(self.drop(y))))


def residual():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Block(8), nn.MaxPool2d(2), Block(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )
"""


class Meeting:
    """Where workers in threads leave what they tell each other: a list for each of their exchanges."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._told: dict[int, dict[int, Any]] = {}
        self._broken = False

    def exchange(self, number: int, rank: int, value: Any) -> list[Any]:
        """What all workers gave to exchange `number`."""
        with self._changed:
            told = self._told.setdefault(number, {})
            told[rank] = value
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(told) == self.size or self._broken, timeout=120)
            if len(told) < self.size:
                raise WorkerError("a worker is gone")
            return [told[each] for each in range(self.size)]

    def leave(self) -> None:
        """A worker has failed: nobody waits for it any more."""
        with self._changed:
            self._broken = True
            self._changed.notify_all()


class Member(Collective):
    """A worker that is a thread."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.size = rank, meeting.size
        self._meeting = meeting
        self._exchanges = 0

    def gather(self, value: Result) -> list[Result]:
        self._exchanges += 1
        return self._meeting.exchange(self._exchanges, self.rank, value)

    def broadcast(self, value: Result) -> Result:
        return self.gather(value)[0]

    def barrier(self) -> None:
        self.gather(None)

    def sum_(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(torch.stack(self.gather(tensor.clone())).sum(dim=0, dtype=tensor.dtype))

    def max_(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(torch.stack(self.gather(tensor.clone())).amax(dim=0))

    def or_(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(torch.stack(self.gather(tensor.clone())).any(dim=0))


Team = Callable[[int, Callable[[Collective], Any]], list[Any]]


@pytest.fixture(scope="session")
def team() -> Team:
    """`team(size, work)` runs `work(collective)` as that many workers in threads; what each returned."""

    def run(size: int, work: Callable[[Collective], Any]) -> list[Any]:
        meeting = Meeting(size)

        def member(rank: int) -> Any:
            try:
                return work(Member(rank, meeting))
            except BaseException:
                meeting.leave()
                raise

        alone = threading.Lock()

        def one_by_one(*arguments: Any) -> Any:
            """Tracing a module and seeding PyTorch are for one thread of a process; workers are processes."""
            with alone:
                return prepare(*arguments)

        with ThreadPoolExecutor(size) as threads, pytest.MonkeyPatch.context() as patch:
            patch.setattr("fixgrad.train.run.prepare", one_by_one)
            futures = [threads.submit(member, rank) for rank in range(size)]
            # Whoever lost or followed another worker is not the one that failed.
            errors = [error for future in futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, WorkerError)):
            raise error
        return [future.result() for future in futures]

    return run


@pytest.fixture(scope="session")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRequest]:
    """Two epochs of five steps each, pruned after the first; no number of workers divides the batch."""
    file = tmp_path_factory.mktemp("model") / "models.py"
    file.write_text(MODEL, encoding="utf-8")
    chain = RunRequest(
        model=f"{file}:chain", data="digits", epochs=2, batch=241, density="0.4", prune_epoch=1, seed=11, augment="crop"
    )
    return {
        "chain": chain,
        "stochastic": replace(chain, update_rounding=Rounding.STOCHASTIC, stored_bits=16),
        "regrown": replace(
            chain, density=None, macs=0.4, prune_epoch=0, prune_until=1, prune_every=2, regrow=0.5, regrow_until=2, balance=0.1
        ),
        "residual": replace(chain, model=f"{file}:residual"),
        "adam": replace(chain, optimiser=Optimiser.ADAM, weight_decay=0.01, stored_bits=16, update_rounding=Rounding.STOCHASTIC),
        "adamw": replace(chain, model=f"{file}:residual", optimiser=Optimiser.ADAMW),
        "nearest": replace(chain, error_rounding=Rounding.NEAREST, stored_bits=32, density=None, prune_epoch=None),
    }


def bytes_of(out: Path) -> dict[str, bytes]:
    """Every checkpoint of a run."""
    return {path.name: path.read_bytes() for path in sorted((out / "checkpoints").glob("*.safetensors"))}


Trained = Callable[..., dict[str, bytes]]


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """`trained(request, execution)` is what a whole run leaves in its checkpoints."""

    def whole(request: RunRequest, execution: Execution = HERE, out: Path | None = None) -> dict[str, bytes]:
        out = out or tmp_path / "run"
        run = TrainingRun.begin(request, out, execution=execution)
        for _ in run.train():
            pass
        run.close()
        return bytes_of(out)

    return whole


@pytest.fixture(scope="session")
def expected(requests: dict[str, RunRequest], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The checkpoints of each request as the fast paths of one thread make them."""
    found = {}
    torch.set_num_threads(1)
    for name, request in requests.items():
        out = tmp_path_factory.mktemp(name) / "run"
        run = TrainingRun.begin(request, out)
        for _ in run.train():
            pass
        run.close()
        found[name] = bytes_of(out)
    return found


class Reference(ReferenceExecutor):
    """The NumPy reference behind the verbs of an executor."""

    def __init__(self, network: Any, state: Any, recipe: Any, total_steps: int, **unused: Any) -> None:
        super().__init__(network, state, recipe, total_steps)

    def prune(self, parameter: str, mask: Any) -> None:
        self.state.parameters[parameter].prune(mask)

    def set_mask(self, parameter: str, mask: Any) -> None:
        self.state.parameters[parameter].set_mask(mask)

    def to_state(self) -> Any:
        return self.state


@pytest.fixture
def on_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are computed by the NumPy reference."""
    monkeypatch.setattr("fixgrad.train.executor.TorchExecutor", Reference)


@pytest.fixture(scope="session")
def same() -> Callable[[Sequence[Any]], None]:
    """`same(states)` compares snapshots of trainers with `==`."""

    def compare(snapshots: Sequence[Any]) -> None:
        first = snapshots[0]
        for other in snapshots[1:]:
            assert other.values == first.values
            assert set(other.arrays) == set(first.arrays)
            for name, array in first.arrays.items():
                assert np.array_equal(array, other.arrays[name]), name

    return compare


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    """The NumPy reference as an executor."""
    return Reference
