"""Two steps of the talk's network, dense and then pruned at its densities, on everything that may compute them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fixgrad.network import Recipe, initial_state
from fixgrad.network.models import vgg11
from fixgrad.network.state_arrays import StateArrays
from fixgrad.numbers import Rounding
from fixgrad.train.collective import Collective
from fixgrad.train.execution import Execution
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.initialise import initial_weights
from fixgrad.train.pruning import layer_densities, magnitude_masks
from fixgrad.train.trainer import FixedPointTrainer

#: Not a multiple of 4 workers.
BATCH = 6
RECIPE = Recipe(seed=1, update_rounding=Rounding.STOCHASTIC, stored_bits=16)
NETWORK = vgg11()
Snapshot = StateArrays


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return initial_weights(NETWORK, seed=1)


def two_steps(weights: dict[str, Any], execution: Execution, make: Callable[..., Any] = TorchExecutor) -> Snapshot:
    """What has to be remembered after them, by this worker."""
    rng = np.random.default_rng(0)
    x = rng.integers(-127, 128, (BATCH, *NETWORK.input_shape)).astype(np.int8)
    labels = rng.integers(0, 10, BATCH)
    mine = execution.collective.share(BATCH).images
    state = initial_state(NETWORK, weights, RECIPE)
    options = {"device": execution.device, "path": execution.path, "fused": execution.fused}
    trainer = FixedPointTrainer(make(NETWORK, state, RECIPE, 2, collective=execution.collective, **options))
    trainer.calibrate(x[mine], labels[mine])
    trainer.step(x[mine], labels[mine])
    trainer.prune(magnitude_masks(trainer.weights(), layer_densities("talk", NETWORK), {}))
    trainer.step(x[mine], labels[mine])
    return trainer.snapshot()


@pytest.fixture(scope="module")
def expected(weights: dict[str, Any]) -> Snapshot:
    """By the fast paths, on one thread."""
    torch.set_num_threads(1)
    return two_steps(weights, Execution())


@pytest.mark.slow
@pytest.mark.parametrize("execution", [Execution(path=path) for path in ("int8", "fp32", "fp64")] + [Execution(fused=False)])
def test_paths(execution: Execution, weights: Any, expected: Snapshot, same: Any) -> None:
    same([expected, two_steps(weights, execution)])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 4])
def test_threads(threads: int, weights: Any, expected: Snapshot, same: Any) -> None:
    torch.set_num_threads(threads)
    same([expected, two_steps(weights, Execution())])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_workers(workers: int, weights: Any, expected: Snapshot, same: Any, team: Any) -> None:
    def work(collective: Collective) -> Snapshot:
        return two_steps(weights, replace(Execution(), collective=collective))

    same([expected, *team(workers, work)])


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_cuda(weights: Any, expected: Snapshot, same: Any) -> None:
    same([expected, two_steps(weights, Execution(device="cuda"))])


@pytest.mark.slow
def test_the_reference(weights: Any, expected: Snapshot, same: Any, reference: Any) -> None:
    same([expected, two_steps(weights, Execution(), reference)])
