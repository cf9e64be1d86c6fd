"""The reference step: it learns, and each of its tensors is what the definition says."""

import numpy as np
import pytest

from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe, initial_state
from fixgrad.network.operations import element_index, pool_backward, pool_forward
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.network.step_table import step_table
from fixgrad.numbers import Rounding


def tiny_network():
    return Network(
        "tiny",
        (1, 6, 6),
        6,
        (
            Conv2d(name="conv", inputs=(INPUT,), in_channels=1, filters=4, kernel=(3, 3), relu=True),
            MaxPool2d(name="pool", inputs=("conv",)),
            Flatten(name="flat", inputs=("pool",)),
            Linear(name="head", inputs=("flat",), in_features=16, out_features=2, out_bits=16),
        ),
    )


def stripes(count, seed):
    """Horizontal stripes against vertical ones, with noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    lines = np.where(np.arange(6) % 2, 80, -80)
    images = np.where(labels[:, None, None, None] == 1, lines[None, None, :, None], lines[None, None, None, :])
    return (images + rng.integers(-40, 41, (count, 1, 6, 6))).astype(np.int8), labels


def executor(recipe, seed=0, steps=40):
    network = tiny_network()
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(size=shape) * 0.3 for name, shape in network.parameters.items()}
    run = ReferenceExecutor(network, initial_state(network, weights, recipe), recipe, steps)
    run.calibrate(*stripes(16, 99))
    return run


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_it_learns(rounding, bits):
    run = executor(Recipe(learning_rate=0.1, stored_bits=bits, update_rounding=rounding))
    losses = [run.step(*stripes(16, seed)).loss for seed in range(40)]
    assert losses[-1] < losses[0] / 4
    x, labels = stripes(64, 1000)
    assert (run.predict(x).argmax(axis=1) == labels).mean() == 1.0


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    def final(seed):
        run = executor(Recipe(learning_rate=0.1, update_rounding=Rounding.STOCHASTIC, seed=seed))
        for index in range(5):
            run.step(*stripes(16, index))
        return np.concatenate([parameter.stored.ravel() for parameter in run.state.parameters.values()])

    assert (final(1) == final(1)).all()
    assert (final(1) != final(2)).any()


def test_all_scales_are_known_before_the_step():
    run = executor(Recipe(learning_rate=0.1))
    table = step_table(run.network, run.state, run.recipe, run.total_steps, 16)
    trace = run.step(*stripes(16, 5))
    assert {name: scales.output_frac for name, scales in table.forward.items()} == {
        name: trace.fracs[name] for name in ("conv", "head")
    }
    assert {name: scales.frac for name, scales in table.errors.items()} == {
        name: trace.error_fracs[name] for name in ("head", "flat")
    }
    assert {name: parameter.operand_shift for name, parameter in run.state.parameters.items()} == {
        name: scales.operand_shift for name, scales in table.updates.items()
    }


def test_a_pruned_network_keeps_its_dead_weights_at_zero():
    run = executor(Recipe(learning_rate=0.1, update_rounding=Rounding.STOCHASTIC))
    run.step(*stripes(16, 0))
    mask = np.zeros((2, 16), bool)
    mask[:, ::3] = True
    run.state.parameters["head.weight"].prune(mask)
    for index in range(5):
        trace = run.step(*stripes(16, index))
        assert not trace.gradients["head.weight"][~mask].any()
    parameter = run.state.parameters["head.weight"]
    assert not parameter.stored[~mask].any()
    assert not parameter.momentum[~mask].any()
    assert parameter.stored[mask].any()


def test_errors_vanish_where_the_rectifier_is_closed():
    run = executor(Recipe())
    trace = run.step(*stripes(16, 0))
    closed = trace.activations["flat"] == 0
    assert closed.any()
    assert not trace.errors["flat"][closed].any()


def test_an_all_zero_batch_is_a_step():
    run = executor(Recipe())
    trace = run.step(np.zeros((3, 1, 6, 6), np.int8), np.array([0, 1, 1]))
    assert not trace.gradients["conv.weight"].any()


def test_overflow_is_flagged_and_stays():
    """Biases that do not fit the accumulators' scale saturate; sums beyond 32 bits wrap and raise the flag."""
    run = executor(Recipe())
    weight = run.state.parameters["conv.weight"]
    weight.stored[...] = np.abs(weight.stored)
    bias = run.state.parameters["conv.bias"]
    bias.stored[...] = bias.stored * 0 + (2**23 - 1)
    bias.formats = bias.formats._replace(stored_frac=0)
    trace = run.step(np.full((2, 1, 6, 6), 127, np.int8), np.array([0, 1]))
    assert "conv/ff" in trace.overflows
    run.step(*stripes(4, 1))
    assert "conv/ff" in run.state.overflows


@pytest.mark.parametrize("offset", [0, 3])
def test_a_part_of_a_batch_draws_the_same_random_bits(offset):
    whole = element_index((8, 2, 3, 3))
    part = element_index((4, 2, 3, 3), offset, 8)
    assert (whole[offset : offset + 4] == part).all()


def test_element_indices_put_the_batch_innermost():
    index = element_index((4, 2, 3, 5))
    assert index[1, 0, 0, 0] == 1
    assert index[0, 0, 0, 1] == 4
    assert index[0, 0, 1, 0] == 4 * 5
    assert index[0, 1, 0, 0] == 4 * 15
    assert sorted(index.ravel().tolist()) == list(range(4 * 2 * 3 * 5))


def test_pooling_takes_the_first_of_equal_maxima():
    x = np.array([[[[3, 3, 1], [3, 2, 9], [7, 7, 7]]]])
    assert pool_forward(x, (2, 2)).tolist() == [[[[3]]]]
    assert pool_backward(x, np.array([[[[5]]]]), (2, 2)).tolist() == [[[[5, 0, 0], [0, 0, 0], [0, 0, 0]]]]
