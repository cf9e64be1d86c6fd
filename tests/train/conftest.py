"""Small runs for the tests of the loop, of checkpoints and of the run's folder."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fixgrad.train.plan import Arithmetic
from fixgrad.train.request import RunRequest
from fixgrad.train.run import TrainingRun

#: Three short epochs on digits, pruned after the first: everything that a run does, in about a second.
SMALL = RunRequest(model="digits", data="digits", epochs=3, batch=240, density="0.4", prune_epoch=1, seed=3)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Nets this small only lose by threads, and the machine may be busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small() -> RunRequest:
    """The request of the small run in fixed point."""
    return SMALL


@pytest.fixture(scope="session")
def small_float() -> RunRequest:
    """The request of its float baseline."""
    return replace(SMALL, arithmetic=Arithmetic.FLOAT, density=None, prune_epoch=None)


def finish(run: TrainingRun, epochs: int | None = None) -> TrainingRun:
    """Train `epochs` epochs, or all that are left, and let go of the folder."""
    for done, _ in enumerate(run.train(), start=1):
        if done == epochs:
            break
    run.close()
    return run


@pytest.fixture(scope="session")
def train() -> Callable[..., TrainingRun]:
    """`train(request, out, epochs=None)` makes a run, ended early after `epochs` epochs."""

    def made(request: RunRequest, out: Path, epochs: int | None = None) -> TrainingRun:
        return finish(TrainingRun.begin(request, out), epochs)

    return made


@pytest.fixture(scope="session")
def resume() -> Callable[..., TrainingRun]:
    """`resume(out, checkpoint=None)` finishes a run."""

    def resumed(out: Path, checkpoint: str | None = None) -> TrainingRun:
        return finish(TrainingRun.resume(out, checkpoint))

    return resumed


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("finished") / "run"
    finish(TrainingRun.begin(SMALL, out))
    return out


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A copy of the small run, complete: a test may damage it."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))


@pytest.fixture(scope="session")
def checkpoints() -> Callable[[Path], dict[str, bytes]]:
    """Bytes of every checkpoint of a run, by name."""

    def of(out: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((out / "checkpoints").glob("*.safetensors"))}

    return of
