"""The float baseline of networks with branches: resumed to the same numbers, and the network's own description of its tensors."""

import numpy as np
import pytest
import torch

from fixgrad.errors import DataError
from fixgrad.network import INPUT, Add, BatchNorm, Conv2d, Dropout, Flatten, Linear, Network, Recipe
from fixgrad.train.float_baseline import FloatTrainer
from fixgrad.train.initialise import initial_weights


def network() -> Network:
    """A normalised convolution, a shortcut and dropout."""
    layers = (
        Conv2d(name="conv", inputs=(INPUT,), in_channels=2, filters=2, kernel=(1, 1), bias=False, out_bits=16),
        BatchNorm(name="norm", inputs=("conv",), channels=2, relu=True, momentum=0.5),
        Add(name="total", inputs=("norm", INPUT), relu=True),
        Dropout(name="drop", inputs=("total",), p=0.5),
        Flatten(name="flat", inputs=("drop",)),
        Linear(name="head", inputs=("flat",), in_features=18, out_features=3, out_bits=16),
    )
    return Network("forked", (2, 3, 3), 6, layers)


def batches(count: int):
    rng = np.random.default_rng(0)
    return [(rng.integers(-127, 128, (8, 2, 3, 3)).astype(np.int8), rng.integers(0, 3, 8)) for _ in range(count)]


def test_a_resumed_baseline_goes_on_to_the_same_numbers():
    recipe, data = Recipe(learning_rate=0.1), batches(5)
    whole = FloatTrainer(network(), initial_weights(network(), 1), recipe, 10)
    for codes, labels in data[:2]:
        whole.step(codes, labels)
    saved = whole.snapshot()
    saved = type(saved)({name: array.copy() for name, array in saved.arrays.items()}, dict(saved.values))
    assert {name for name in saved.arrays if name.startswith("running/")} == {
        "running/norm.running_mean",
        "running/norm.running_variance",
    }
    torch.manual_seed(99)  # dropping follows from the seed of the run and the step alone
    resumed = FloatTrainer.from_snapshot(network(), saved, recipe, 10)
    for codes, labels in data[2:]:
        assert whole.step(codes, labels) == resumed.step(codes, labels)
    assert np.array_equal(whole.predict(data[0][0]), resumed.predict(data[0][0]))


def test_evaluation_drops_nothing_and_moves_no_statistics():
    trainer = FloatTrainer(network(), initial_weights(network(), 1), Recipe(), 10)
    codes, labels = batches(1)[0]
    trainer.step(codes, labels)
    first = trainer.predict(codes)
    assert np.array_equal(first, trainer.predict(codes))
    assert np.allclose(first[:1], trainer.predict(codes[:1]), atol=1e-6)


def test_a_snapshot_without_statistics_is_refused():
    trainer = FloatTrainer(network(), initial_weights(network(), 1), Recipe(), 10)
    saved = trainer.snapshot()
    del saved.arrays["running/norm.running_mean"]
    with pytest.raises(DataError, match=r"no value for norm\.running_mean"):
        FloatTrainer.from_snapshot(network(), saved, Recipe(), 10)
