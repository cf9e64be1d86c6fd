"""Gradual pruning, budgets and exchange of kernels: when, how much, and the same bits on the reference and on PyTorch."""

from dataclasses import replace
from math import cos, pi
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.errors import UsageError
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, Network, Recipe, State, initial_state
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.sparse import cost_of
from fixgrad.train.data import DataSource, open_data
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.float_baseline import FloatTrainer
from fixgrad.train.initialise import initial_weights
from fixgrad.train.loop import TrainingLoop
from fixgrad.train.plan import Arithmetic, Plan
from fixgrad.train.pruning_events import pruned_masks
from fixgrad.train.pruning_schedule import Budget, PruningOptions, PruningSchedule, _cosine
from fixgrad.train.trainer import FixedPointTrainer

TINY = Network(
    "tiny",
    (1, 8, 8),
    6,
    (
        Conv2d(name="conv1", inputs=(INPUT,), in_channels=1, filters=8, kernel=(3, 3), relu=True),
        Conv2d(name="conv2", inputs=("conv1",), in_channels=8, filters=8, kernel=(3, 3), relu=True),
        Flatten(name="flatten", inputs=("conv2",)),
        Linear(name="dense3", inputs=("flatten",), in_features=128, out_features=10, out_bits=16),
    ),
)
WEIGHTS = Budget(0.3, "weights", {"conv1": 9, "conv2": 9, "dense3": 1}, 8 * 9 + 64 * 9 + 1280)


def plan(options: PruningOptions | None, **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "network": TINY,
        "arithmetic": Arithmetic.FIXED,
        "recipe": Recipe(seed=5, warmup_steps=2),
        "epochs": 4,
        "batch": 16,
        "steps_per_epoch": 3,
        "prune_epoch": 1,
        "densities": None if options is not None and options.budget else {"conv1": 0.75, "conv2": 0.25, "dense3": 0.25},
        "data": "digits",
        "fingerprint": "",
        "pruning": options,
    }
    return Plan(**{**fields, **changes})


@pytest.fixture(scope="module")
def data() -> DataSource:
    whole = open_data("digits")
    return replace(whole, train=whole.train.take(np.arange(50), "train"), test=whole.test.take(np.arange(37), "test"))


class Reference(ReferenceExecutor):
    """The NumPy reference with the verbs that only a run needs."""

    def prune(self, parameter: str, mask: NDArray[np.bool_]) -> None:
        self.state.parameters[parameter].prune(mask)

    def set_mask(self, parameter: str, mask: NDArray[np.bool_]) -> None:
        self.state.parameters[parameter].set_mask(mask)

    def to_state(self) -> State:
        return self.state


def trained(chosen: Plan, data: DataSource, executor: type) -> tuple[list[Any], Any]:
    state = initial_state(TINY, initial_weights(TINY, 5), chosen.recipe)
    trainer = FixedPointTrainer(executor(TINY, state, chosen.recipe, chosen.total_steps))
    loop = TrainingLoop(chosen, data, trainer)
    loop.calibrate()
    return list(loop.epochs()), trainer.snapshot()


@pytest.mark.parametrize(
    "options",
    [
        PruningOptions(until=2, every=1),
        PruningOptions(every=2, exchange=0.5, exchange_until=4),
        PruningOptions(budget=WEIGHTS, until=2, every=1, exchange=0.4, exchange_until=3),
        PruningOptions(balance=0.2),
    ],
    ids=["gradual", "exchange", "all", "balance"],
)
def test_the_reference_and_pytorch_change_the_same_masks(data: DataSource, options: PruningOptions) -> None:
    (ours, saved), (theirs, expected) = (trained(plan(options), data, each) for each in (TorchExecutor, Reference))
    assert ours == theirs
    assert saved.values == expected.values
    assert set(saved.arrays) == set(expected.arrays)
    for name, array in saved.arrays.items():
        assert np.array_equal(array, expected.arrays[name]), name
    assert not saved.arrays["stored/dense3.weight"][~saved.arrays["mask/dense3.weight"]].any()


def test_an_exchange_changes_masks_and_no_density(data: DataSource) -> None:
    (plain, without), (exchanged, with_) = (
        trained(plan(options), data, TorchExecutor)
        for options in (None, PruningOptions(every=2, exchange=0.5, exchange_until=4))
    )
    assert plain[-1].densities == exchanged[-1].densities
    assert not np.array_equal(without.arrays["mask/conv2.weight"], with_.arrays["mask/conv2.weight"])


def test_gradients_of_dead_channels_are_those_of_the_reference(data: DataSource) -> None:
    """Channels that are dead through and through are left out of products, unless their gradients are asked for."""
    recipe = Recipe(seed=5)
    batch = data.train_batches(16, seed=5, epoch=0).part(0, slice(0, 16))
    dead = np.ones((8, 8), np.bool_)
    dead[3], dead[:, 2] = False, False
    found = []
    for kind in (TorchExecutor, Reference):
        executor = kind(TINY, initial_state(TINY, initial_weights(TINY, 5), recipe), recipe, 10)
        executor.calibrate(batch.codes, batch.labels)
        executor.prune("conv2.weight", dead)
        executor.watch_gradients()
        executor.step(batch.codes, batch.labels)
        found.append(executor.take_gradients())
    ours, theirs = found
    assert set(ours) == set(theirs) == {"conv1.weight", "conv2.weight", "dense3.weight"}
    for name, gradient in ours.items():
        assert np.array_equal(gradient, theirs[name]), name
    assert ours["conv2.weight"][:, 2].any()


def test_float_training_exchanges_too(data: DataSource) -> None:
    chosen = plan(PruningOptions(every=2, exchange=0.5, exchange_until=4), arithmetic=Arithmetic.FLOAT)
    trainer = FloatTrainer(TINY, initial_weights(TINY, 5), chosen.recipe, chosen.total_steps)
    metrics = list(TrainingLoop(chosen, data, trainer).epochs())
    assert metrics[-1].densities == {"conv1": 0.75, "conv2": 0.25, "dense3": 0.25}


def test_a_gradual_schedule_is_cubic_and_ends_at_its_target() -> None:
    schedule = PruningSchedule(begin=100, end=200, every=25)
    assert [(step, schedule.progress_before(step)) for step in range(300) if schedule.progress_before(step)] == [
        (125, 1 - 0.75**3),
        (150, 1 - 0.5**3),
        (175, 1 - 0.25**3),
        (200, 1.0),
    ]
    uneven = PruningSchedule(begin=0, end=10, every=4)
    assert [step for step in range(20) if uneven.progress_before(step)] == [4, 8, 10]
    at_once = PruningSchedule(7, 7, 1)
    assert [step for step in range(20) if at_once.progress_before(step)] == [7]


def test_exchanges_fall_like_a_cosine() -> None:
    schedule = PruningSchedule(begin=0, end=10, every=10, exchange=0.3, exchange_end=50)
    shares = {step: schedule.exchanged_after(step) for step in range(100) if schedule.exchanged_after(step)}
    assert list(shares) == [19, 29, 39]
    assert list(shares.values()) == pytest.approx([0.15 * (1 + cos(pi * x)) for x in (0.25, 0.5, 0.75)])
    assert all(abs(_cosine(x) - cos(x)) < 1e-14 for x in np.linspace(0, pi, 99))


def test_densities_never_rise_on_the_way() -> None:
    rng = np.random.default_rng(1)
    weights = {name: rng.integers(-999, 999, shape) for name, shape in TINY.parameters.items()}
    for options in (PruningOptions(until=3, every=1), PruningOptions(budget=WEIGHTS, until=3, every=1)):
        masks: dict[str, NDArray[np.bool_]] = {}
        for progress in (0.2, 0.5, 0.9, 1.0):
            found = pruned_masks(plan(options), progress, weights, masks)
            assert all((before | ~found[name]).all() for name, before in masks.items())
            masks = found
        if options.budget is None:
            assert {name: mask.mean() for name, mask in masks.items()} == {
                "conv1.weight": 0.75, "conv2.weight": 0.25, "dense3.weight": 0.25
            }
        else:
            kept = cost_of({name.removesuffix(".weight"): mask for name, mask in masks.items()}, WEIGHTS.costs)
            assert WEIGHTS.at(0.3) - 9 < kept <= WEIGHTS.at(0.3)


@pytest.mark.parametrize("options", [PruningOptions(until=2, every=7), PruningOptions(budget=WEIGHTS, exchange=0.2, exchange_until=4)])
def test_a_plan_survives_json(options: PruningOptions) -> None:
    assert Plan.from_dict(plan(options).to_dict()) == plan(options)
    assert "pruning" not in plan(None).to_dict()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plan(PruningOptions(until=1)), "gradual pruning ends after 1 epochs: choose 2 to 3"),
        (lambda: plan(PruningOptions(exchange=0.3, exchange_until=1)), "regrowth ends after 1 epochs: choose 2 to 4"),
        (lambda: plan(PruningOptions(budget=WEIGHTS), densities={"conv1": 1.0}), "exclude each other"),
        (lambda: plan(PruningOptions(until=2), prune_epoch=None, densities=None), "how to prune was said, but not how much"),
        (lambda: PruningOptions(every=0), "masks change every 0 steps"),
        (lambda: PruningOptions(exchange=2), "regrowth exchanges 2 of the kernels: choose 0 to 1"),
        (lambda: PruningOptions(balance=1), "balance tolerance is 1: choose 0 to below 1"),
        (lambda: replace(WEIGHTS, share=0.0), "a budget of 0 of the weights: choose a number above 0, up to 1"),
        (lambda: replace(WEIGHTS, share=0.005), r"too small for one kernel in each layer: choose at least 0\.0099"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
