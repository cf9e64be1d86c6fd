"""Products without dead channels: the integers of products with them, and only where they are quicker."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fixgrad.network import Recipe, initial_state
from fixgrad.network.models import digits
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.initialise import initial_weights
from fixgrad.train.kernels import live as module
from fixgrad.train.kernels.convolution import Accumulators, Product
from fixgrad.train.kernels.live import Live, live_channels, quicker

NETWORK = digits()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_decisions", {})


@pytest.fixture(params=[True, False], ids=["narrow", "whole"])
def decided(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every trial ends that way."""
    narrow: bool = request.param
    turns = itertools.cycle([1.0, 2.0] if narrow else [2.0, 1.0])
    monkeypatch.setattr(module, "_cost", lambda make, team: next(turns))
    return narrow


def masks(dead_in: int, dead_out: int) -> dict[str, np.ndarray[Any, Any]]:
    """Random masks of density 1/2 in which so many inputs and outputs of each layer are dead."""
    rng = np.random.default_rng(2)
    found = {}
    for layer in NETWORK.mac_layers[1:]:
        mask = rng.random(layer.weight_shape[:2]) < 0.5
        mask[:, rng.choice(mask.shape[1], dead_in, replace=False)] = False
        mask[rng.choice(mask.shape[0], min(dead_out, mask.shape[0] - 1), replace=False)] = False
        found[f"{layer.name}.weight"] = mask
    return found


@pytest.mark.parametrize(("dead_in", "dead_out"), [(5, 0), (0, 7), (9, 4)])
def test_a_step_is_that_of_the_reference(dead_in: int, dead_out: int, decided: bool) -> None:
    recipe = Recipe(seed=4)
    weights = initial_weights(NETWORK, 4)
    executor = TorchExecutor(NETWORK, initial_state(NETWORK, weights, recipe), recipe, 10)
    reference = ReferenceExecutor(NETWORK, initial_state(NETWORK, weights, recipe), recipe, 10)
    rng = np.random.default_rng(1)
    x, labels = rng.integers(-127, 128, (5, 1, 8, 8)).astype(np.int8), rng.integers(0, 10, 5)
    for each in (executor, reference):
        each.calibrate(x, labels)
    for name, mask in masks(dead_in, dead_out).items():
        executor.prune(name, mask)
        reference.state.parameters[name].prune(mask)
    for _ in range(2):
        ours, theirs = executor.step(x, labels, trace=True).trace, reference.step(x, labels)
        assert ours is not None
        for kind in ("activations", "errors", "gradients"):
            mine, expected = getattr(ours, kind), getattr(theirs, kind)
            assert set(mine) == set(expected)
            for name, tensor in expected.items():
                assert np.array_equal(mine[name], tensor), (kind, name)
    assert set(module._decisions.values()) == {decided}
    assert {key[0] for key in module._decisions} == {"ff", "ng", "wg", "taps"}


def test_channels_without_a_kernel_are_dead() -> None:
    found = live_channels(torch.tensor([[True, False, True], [False, False, False]]))
    assert found is not None
    assert found.inputs is not None
    assert found.inputs.tolist() == [0, 2]
    assert found.outputs is not None
    assert found.outputs.tolist() == [0]
    found = live_channels(torch.tensor([[True, False], [True, False]]))
    assert found is not None
    assert found.outputs is None


@pytest.mark.parametrize("mask", [torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool), torch.eye(3) > 0])
def test_nothing_is_taken_out_where_nothing_or_all_is_dead(mask: torch.Tensor) -> None:
    assert live_channels(mask) is None


def test_what_was_taken_out_comes_back_as_zeros() -> None:
    live = Live(torch.tensor([0, 2]), torch.tensor([1]))
    whole = torch.arange(1, 19).reshape(2, 3, 3)
    back = live.put_back(live.of_weights(whole), whole.shape)
    assert back.tolist() == [[[0, 0, 0]] * 3, [[10, 0, 12], [13, 0, 15], [16, 0, 18]]]


def test_a_mask_that_shrinks_is_seen() -> None:
    recipe = Recipe()
    executor = TorchExecutor(NETWORK, initial_state(NETWORK, initial_weights(NETWORK, 0), recipe), recipe, 10)
    parameter = executor._by_name["conv2.weight"]
    assert parameter.live is None
    mask = np.ones((32, 32), np.bool_)
    mask[:, 3] = False
    executor.prune("conv2.weight", mask)
    assert parameter.live is not None
    assert parameter.live.outputs is None
    mask[5] = False
    executor.prune("conv2.weight", mask)
    assert parameter.live is not None
    assert len(parameter.live.outputs) == 31


def busy(seconds: float) -> Callable[[], Product]:
    """A product whose parts take so long."""

    def compute(part: slice) -> Accumulators:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass
        return Accumulators(torch.tensor(seconds), None)

    return lambda: Product([slice(0, 1), slice(1, 2)], compute)


@pytest.mark.parametrize(("whole", "narrow", "taken"), [(0.004, 0.001, 0.001), (0.001, 0.004, 0.001), (0.004, 0.00395, 0.004)])
def test_the_quicker_is_taken_and_remembered(whole: float, narrow: float, taken: float) -> None:
    chosen = quicker("key", busy(whole), busy(narrow), 1)
    assert chosen.compute(slice(0, 1)).sums == torch.tensor(taken)
    (decision,) = module._decisions.items()
    assert decision == ("key", narrow == taken)
    begin = time.thread_time()
    quicker("key", busy(1.0), busy(1.0), 1)
    assert time.thread_time() - begin < 0.5, "it was tried again"
