"""The loop: order of events, pruning, measurement, divergence; and the same bits on the reference executor."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.errors import FixgradError, UsageError
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe, State, initial_state
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.network.state_arrays import StateArrays
from fixgrad.train.data import DataSource, open_data
from fixgrad.train.epoch_tally import EpochTally
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.initialise import initial_weights
from fixgrad.train.loop import TrainingLoop, count_correct
from fixgrad.train.plan import Arithmetic, Plan
from fixgrad.train.pruning import macs_kept, magnitude_masks, training_macs, weights_kept
from fixgrad.train.trainer import FixedPointTrainer

TINY = Network(
    "tiny",
    (1, 8, 8),
    6,
    (
        Conv2d(name="conv1", inputs=(INPUT,), in_channels=1, filters=4, kernel=(3, 3), relu=True),
        MaxPool2d(name="pool1", inputs=("conv1",)),
        Flatten(name="flatten", inputs=("pool1",)),
        Linear(name="dense2", inputs=("flatten",), in_features=36, out_features=10, out_bits=16),
    ),
)
DENSITIES = {"conv1": 0.75, "dense2": 0.25}


@pytest.fixture(scope="module")
def data() -> DataSource:
    whole = open_data("digits")
    return replace(whole, train=whole.train.take(np.arange(50), "train"), test=whole.test.take(np.arange(37), "test"))


def plan(**changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "network": TINY,
        "arithmetic": Arithmetic.FIXED,
        "recipe": Recipe(seed=5, warmup_steps=2),
        "epochs": 3,
        "batch": 16,
        "steps_per_epoch": 3,
        "prune_epoch": 1,
        "densities": DENSITIES,
        "data": "digits",
        "fingerprint": "",
    }
    return Plan(**{**fields, **changes})


@dataclass
class Report:
    loss: float = 1.0
    correct: int = 4
    saturated: Mapping[str, float] = field(default_factory=dict)
    overflows: set[str] = field(default_factory=set)
    forward_bits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    error_bits: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class Recorder:
    """A trainer and a watcher that note what is asked of them."""

    def __init__(self, reports: list[Report] | None = None) -> None:
        self.network = TINY
        self.events: list[Any] = []
        self.seen: list[NDArray[np.int64]] = []
        self._reports = reports or []
        self._masks: dict[str, NDArray[np.bool_]] = {}

    def calibrate(self, x: Any, labels: Any) -> None:
        self.events.append(("calibrate", labels.tolist()))

    def step(self, x: Any, labels: Any) -> Report:
        self.seen.append(labels)
        return self._reports.pop(0) if self._reports else Report()

    def predict(self, x: Any) -> NDArray[Any]:
        return np.eye(10)[np.full(len(x), 3)]

    def weights(self) -> dict[str, NDArray[Any]]:
        return {name: np.arange(np.prod(shape)).reshape(shape) for name, shape in TINY.parameters.items()}

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        return self._masks

    def prune(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        self._masks = dict(masks)

    def exponents(self) -> dict[str, int]:
        return {}

    def snapshot(self) -> StateArrays:
        return StateArrays({}, {})

    def epoch_begins(self, epoch: int, steps: int) -> None:
        self.events.append(("epoch", epoch, steps))

    def step_done(self, step: int, report: Any, images: int, rate: float) -> None:
        self.events.append(("step", step, images, round(rate, 6)))

    def evaluation_begins(self, batches: int) -> None:
        self.events.append(("test", batches))

    def batch_evaluated(self) -> None:
        self.events.append("tested")

    def pruned(self, epoch: int, trainer: Any) -> None:
        self.events.append(("pruned", epoch))

    def epoch_done(self, metrics: Any, trainer: Any) -> None:
        self.events.append(("done", metrics.epoch))


def test_order_of_events(data: DataSource) -> None:
    recorder = Recorder()
    loop = TrainingLoop(plan(epochs=2), data, recorder, [recorder])
    loop.calibrate()
    assert [metrics.epoch for metrics in loop.epochs()] == [1, 2]
    assert recorder.events == [
        ("calibrate", recorder.seen[0].tolist()),
        ("epoch", 1, 3),
        ("step", 0, 16, 0.01),
        ("step", 1, 16, 0.02),
        ("step", 2, 16, 0.02),
        ("test", 1),
        "tested",
        ("done", 1),
        ("pruned", 1),
        ("epoch", 2, 3),
        ("step", 3, 16, 0.015),
        ("step", 4, 16, 0.01),
        ("step", 5, 16, 0.005),
        ("test", 1),
        "tested",
        ("done", 2),
    ]
    assert not np.array_equal(recorder.seen[0], recorder.seen[3])  # each epoch in an order of its own


def test_metrics_of_an_epoch(data: DataSource) -> None:
    reports = [
        Report(1.0, 4, {"activation/conv1": 0.25, "error/dense2": 0.0}, set()),
        Report(2.0, 8, {"activation/conv1": 0.0, "error/dense2": 0.125}, {"conv1/wg"}),
        Report(3.0, 12, {"activation/conv1": 0.125, "error/dense2": 0.0}, set()),
    ]
    recorder = Recorder(reports)
    first, second = list(TrainingLoop(plan(epochs=2), data, recorder).epochs())
    assert (first.step, first.loss, first.train_accuracy) == (3, 2.0, 24 / 48)
    assert first.test_accuracy == int((data.test.labels == 3).sum()) / 37
    assert (first.saturated, first.saturation) == ("activation/conv1", 0.125)
    assert first.overflows == second.overflows == ("conv1/wg",)
    assert (first.weights_kept, first.macs_kept, first.densities) == (1.0, 1.0, {"conv1": 1.0, "dense2": 1.0})
    assert second.densities == DENSITIES
    assert second.weights_kept == (0.75 * 36 + 0.25 * 360) / 396
    conv, dense = 4 * 9 * 36, 360  # MACs of one image: FF and WG of both, NG of the second
    assert second.macs_kept == (2 * 0.75 * conv + 3 * 0.25 * dense) / (2 * conv + 3 * dense)


def test_a_resumed_loop_prunes_when_it_should_and_remembers_overflows(data: DataSource) -> None:
    recorder = Recorder([Report(overflows={"conv1/wg"})])
    whole = list(TrainingLoop(plan(), data, recorder).epochs())
    later = Recorder()
    resumed = list(TrainingLoop(plan(), data, later, [later]).epochs(whole[:1]))
    assert [event for event in later.events if event[0] == "pruned"] == [("pruned", 1)]
    assert [metrics.epoch for metrics in resumed] == [2, 3]
    assert resumed[-1].overflows == ("conv1/wg",)
    again = Recorder()
    list(TrainingLoop(plan(), data, again, [again]).epochs(whole[:2]))
    assert [event for event in again.events if event[0] == "pruned"] == []


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (Report(saturated={"error/conv1": 0.6}), r"diverged in epoch 1: 60 % of error/conv1 saturates \(limit 50 %\)"),
        (Report(loss=400.0), r"diverged in epoch 1: the mean loss is 400 \(limit 23\.03\); lower --lr or raise --warmup"),
    ],
)
def test_divergence_is_an_error_that_says_what_to_do(data: DataSource, report: Report, message: str) -> None:
    with pytest.raises(FixgradError, match=message):
        list(TrainingLoop(plan(), data, Recorder([report] * 3)).epochs())


class Reference(ReferenceExecutor):
    """The NumPy reference with the two verbs that only a run needs."""

    def prune(self, parameter: str, mask: NDArray[np.bool_]) -> None:
        self.state.parameters[parameter].prune(mask)

    def to_state(self) -> State:
        return self.state


@pytest.mark.parametrize("stored_bits", [16, 24])
def test_a_run_on_pytorch_is_a_run_on_the_reference_bit_for_bit(data: DataSource, stored_bits: int) -> None:
    chosen = plan(recipe=Recipe(seed=5, warmup_steps=2, stored_bits=stored_bits))
    results = []
    for executor in (Reference, TorchExecutor):
        state = initial_state(TINY, initial_weights(TINY, 5), chosen.recipe)
        trainer = FixedPointTrainer(executor(TINY, state, chosen.recipe, chosen.total_steps))
        loop = TrainingLoop(chosen, data, trainer)
        loop.calibrate()
        results.append((list(loop.epochs()), trainer.snapshot()))
    (ours, saved), (theirs, expected) = results
    assert ours == theirs
    assert saved.values == expected.values
    assert set(saved.arrays) == set(expected.arrays)
    for name, array in saved.arrays.items():
        assert np.array_equal(array, expected.arrays[name]), name
    assert not saved.arrays["stored/dense2.weight"][~saved.arrays["mask/dense2.weight"]].any()


def test_masks_keep_the_largest() -> None:
    weights = {"conv1.weight": np.zeros((4, 1, 3, 3), np.int32), "dense2.weight": np.arange(360).reshape(10, 36)}
    weights["conv1.weight"][1:, 0, 0, 0] = [-5, 1, 3]
    masks = magnitude_masks(weights, {"conv1": 0.5, "dense2": 0.1}, {})
    assert masks["conv1.weight"].tolist() == [[False], [True], [False], [True]]
    assert np.array_equal(masks["dense2.weight"].ravel(), np.arange(360) >= 324)
    again = magnitude_masks(weights, {"conv1": 1.0, "dense2": 1.0}, masks)
    assert np.array_equal(again["conv1.weight"], masks["conv1.weight"])
    assert weights_kept(TINY, masks) == (0.5 * 36 + 0.1 * 360) / 396


def test_macs_of_the_talks_network() -> None:
    from fixgrad.network.models import model
    from fixgrad.sparse import TALK_DENSITIES

    vgg = model("vgg11")
    first = vgg.mac_layers[0]
    assert training_macs(vgg, first) == 2 * first.macs(vgg.shapes["conv1"])
    weights = {f"{layer.name}.weight": np.ones(layer.weight_shape, np.int8) for layer in vgg.mac_layers}
    masks = magnitude_masks(weights, TALK_DENSITIES, {})
    assert macs_kept(vgg, masks) == pytest.approx(0.4646, abs=1e-4)
    assert weights_kept(vgg, masks) == pytest.approx(0.2491, abs=1e-4)


def test_ties_of_logits_go_to_the_first() -> None:
    logits = np.array([[1, 3, 3], [2, 2, 2], [0, 1, 5]])
    assert count_correct(logits, np.array([1, 0, 2])) == 3
    assert count_correct(logits, np.array([2, 1, 2])) == 1


def test_an_empty_tally_divides_by_nothing() -> None:
    tally = EpochTally()
    assert (tally.loss, tally.accuracy, tally.most_saturated()) == (0.0, 0.0, ("", 0.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0: choose 1 to 9999"),
        ({"epochs": 10_000}, "epochs is 10000"),
        ({"prune_epoch": 3}, "prune epoch is 3, but the run has 3 epochs: choose 0 to 2"),
        ({"prune_epoch": -1}, "prune epoch is -1"),
        ({"prune_epoch": None}, "belong together"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(**changes)
