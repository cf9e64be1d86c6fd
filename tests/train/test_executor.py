"""The PyTorch executor against the reference: every tensor of every step is compared with ==."""

import copy
import logging
import pickle
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from fixgrad.errors import DataError, UsageError
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe, ReLU, Trace, initial_state
from fixgrad.network.layers import Layer
from fixgrad.network.models import digits, vgg11
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.network.state import State
from fixgrad.numbers import Rounding
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.executor import StepReport, TorchExecutor
from fixgrad.train.kernels import choice, convolution, tiles
from fixgrad.train.kernels.pointwise_numba import NumbaPointwise
from fixgrad.train.kernels.pointwise_torch import TorchPointwise

PATHS = ("int8", "fp32", "fp64")
TOTAL_STEPS = 12


def chain(name, input_shape, *layers):
    """A network of (class, fields) pairs, each reading the one before."""
    tensor, nodes = INPUT, []
    for index, (kind, fields) in enumerate(layers):
        node: Layer = kind(name=f"{kind.kind}{index}", inputs=(tensor,), **fields)
        nodes.append(node)
        tensor = node.name
    return Network(name, input_shape, 6, tuple(nodes))


def conv(channels, filters, kernel, relu=True, bias=True, **geometry):
    return Conv2d, {
        "in_channels": channels,
        "filters": filters,
        "kernel": kernel,
        "relu": relu,
        "bias": bias,
        "geometry": ConvGeometry(**geometry),
    }


def linear(features, outputs, relu=False, out_bits=8, bias=True):
    return Linear, {
        "in_features": features,
        "out_features": outputs,
        "relu": relu,
        "out_bits": out_bits,
        "bias": bias,
    }


POOL, FLATTEN, RELU = (MaxPool2d, {}), (Flatten, {}), (ReLU, {})

NETWORKS = {
    "strided": chain(
        "strided",
        (3, 11, 9),
        conv(3, 7, (3, 2), stride=(2, 1), padding=(1, 0)),
        conv(7, 5, (2, 3), stride=(1, 2), padding=(2, 3)),
        FLATTEN,
        linear(5 * 9 * 6, 4, out_bits=16),
    ),
    "dilated": chain(
        "dilated",
        (1, 12, 10),
        conv(1, 6, (3, 3), dilation=(2, 1), padding=(0, 2), bias=False),
        conv(6, 9, (3, 3), dilation=(1, 3), stride=(3, 2), padding=(1, 3), relu=False),
        FLATTEN,
        linear(9 * 3 * 6, 3, out_bits=12, bias=False),
    ),
    "grouped": chain(
        "grouped",
        (4, 7, 7),
        conv(4, 8, (3, 3), groups=2, padding=(1, 1)),
        conv(8, 8, (3, 3), groups=8, padding=(1, 1), stride=(2, 2)),
        conv(8, 6, (1, 1)),
        FLATTEN,
        linear(6 * 16, 5, out_bits=16),
    ),
    "ragged_pools": chain(
        "ragged_pools",
        (2, 11, 13),
        conv(2, 5, (3, 3), padding=(1, 1), relu=False),
        (MaxPool2d, {"window": (2, 3)}),
        RELU,
        conv(5, 4, (1, 1), relu=False),
        RELU,
        (MaxPool2d, {"window": (3, 1)}),
        FLATTEN,
        linear(16, 6, relu=True),
        linear(6, 2),
    ),
    "pool_first": chain("pool_first", (3, 5, 4), POOL, RELU, conv(3, 4, (2, 2)), FLATTEN, linear(4, 3, out_bits=16)),
    "linear_only": chain("linear_only", (13,), linear(13, 9, relu=True), RELU, linear(9, 17), linear(17, 4, out_bits=16)),
    "single_layer": chain("single_layer", (5,), linear(5, 3, out_bits=16)),
    "over_padded": chain(
        "over_padded",
        (2, 3, 3),
        conv(2, 3, (1, 1), padding=(2, 1)),
        conv(3, 2, (2, 2), padding=(3, 2)),
        FLATTEN,
        linear(2 * 12 * 8, 3),
    ),
    "digits": digits(),
}


def start(network: Network, recipe: Recipe, seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(0, 0.3, shape) for name, shape in network.parameters.items()}
    return initial_state(network, weights, recipe)


def batches(network: Network, batch: int, count: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        codes = rng.integers(-127, 128, (batch, *network.input_shape)).astype(np.int8)
        yield codes, rng.integers(0, network.classes, batch)


def assert_same_arrays(expected, found, what):
    assert expected.keys() == found.keys(), what
    for name in expected:
        assert np.array_equal(expected[name], found[name]), f"{what} of {name}"


def assert_same_trace(expected: Trace, report: StepReport) -> None:
    found = report.trace
    assert found is not None
    for what in ("activations", "errors", "gradients"):
        assert_same_arrays(getattr(expected, what), getattr(found, what), what)
    for what in ("fracs", "error_fracs", "forward_bits", "error_bits", "saturated", "overflows", "loss", "correct"):
        assert getattr(expected, what) == getattr(found, what), what
    for what in ("forward_bits", "error_bits", "saturated", "overflows", "loss", "correct"):
        assert getattr(expected, what) == getattr(report, what), what


def assert_same_state(expected: State, found: State) -> None:
    assert expected.step == found.step
    assert expected.activation_scales == found.activation_scales
    assert expected.error_scales == found.error_scales
    assert expected.overflows == found.overflows
    assert expected.parameters.keys() == found.parameters.keys()
    for name, parameter in expected.parameters.items():
        other = found.parameters[name]
        assert np.array_equal(parameter.stored, other.stored), name
        assert np.array_equal(parameter.momentum, other.momentum), name
        assert (parameter.operand_shift, parameter.magnitude) == (other.operand_shift, other.magnitude), name
        assert parameter.formats == other.formats
        assert (parameter.mask is None) == (other.mask is None), name
        assert parameter.mask is None or np.array_equal(parameter.mask, other.mask), name


def train_both(network, recipe, *, batch=6, steps=3, path="auto", prune_at=None, seed=0):
    """Trains both executors and compares them after each step; returns them."""
    state = start(network, recipe, seed)
    torch_executor = TorchExecutor(network, state, recipe, TOTAL_STEPS, path=path)
    reference = ReferenceExecutor(network, copy.deepcopy(state), recipe, TOTAL_STEPS)
    data = list(batches(network, batch, steps + 1, seed + 1))
    reference.calibrate(*data[0])
    torch_executor.calibrate(*data[0])
    assert_same_state(reference.state, torch_executor.to_state())
    for step, (codes, labels) in enumerate(data[1:]):
        if step == prune_at:
            prune_both(reference, torch_executor, seed)
        expected = reference.step(codes, labels)
        assert_same_trace(expected, torch_executor.step(codes, labels, trace=True))
        assert_same_state(reference.state, torch_executor.to_state())
    codes, _ = data[0]
    assert np.array_equal(reference.predict(codes), torch_executor.predict(codes).numpy())
    return reference, torch_executor


def prune_both(reference: ReferenceExecutor, executor: TorchExecutor, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, parameter in reference.state.parameters.items():
        if name.endswith(".weight"):
            mask = rng.random(parameter.stored.shape[:2]) < 0.6
            parameter.prune(mask)
            executor.prune(name, mask)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rounding", Rounding)
def test_every_tensor_equals_the_reference(name, rounding):
    recipe = Recipe(update_rounding=rounding, error_rounding=rounding, learning_rate=0.1, momentum=0.8)
    train_both(NETWORKS[name], recipe, prune_at=1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["strided", "grouped", "ragged_pools"])
def test_every_path_gives_the_same_bits(name, path):
    train_both(NETWORKS[name], Recipe(), path=path, steps=2)


@pytest.mark.parametrize("stored_bits", [16, 24, 32])
@pytest.mark.parametrize("momentum_bits", [16, 24, 32])
@pytest.mark.parametrize("rounding", Rounding)
def test_widths_of_stored_weights_and_momentum(stored_bits, momentum_bits, rounding):
    recipe = Recipe(
        stored_bits=stored_bits, momentum_bits=momentum_bits, update_rounding=rounding, learning_rate=0.5, weight_decay=0.01
    )
    train_both(NETWORKS["grouped"], recipe)


@pytest.mark.parametrize("learning_rate", [0.0, 1e-9, 9e3])
def test_extreme_rates(learning_rate):
    recipe = Recipe(learning_rate=learning_rate, update_rounding=Rounding.STOCHASTIC)
    train_both(NETWORKS["ragged_pools"], recipe, steps=4)


@pytest.mark.parametrize("name", ["strided", "digits", "linear_only"])
def test_a_batch_of_one(name):
    train_both(NETWORKS[name], Recipe(), batch=1)


@pytest.mark.slow
def test_vgg11_equals_the_reference():
    train_both(vgg11(), Recipe(update_rounding=Rounding.STOCHASTIC), batch=3, steps=2, prune_at=1)


def test_zero_inputs():
    network = NETWORKS["digits"]
    recipe, codes, labels = Recipe(), np.zeros((4, *network.input_shape), np.int8), np.arange(4)
    state = start(network, recipe)
    reference = ReferenceExecutor(network, copy.deepcopy(state), recipe, TOTAL_STEPS)
    executor = TorchExecutor(network, state, recipe, TOTAL_STEPS)
    reference.calibrate(codes, labels)
    executor.calibrate(codes, labels)
    assert_same_trace(reference.step(codes, labels), executor.step(codes, labels, trace=True))
    assert_same_state(reference.state, executor.to_state())


def test_dead_weights_stay_dead():
    recipe = Recipe(update_rounding=Rounding.STOCHASTIC, learning_rate=0.5)
    _, executor = train_both(NETWORKS["grouped"], recipe, steps=4, prune_at=1)
    for name, parameter in executor.to_state().parameters.items():
        if name.endswith(".weight"):
            assert parameter.mask is not None
            assert not parameter.mask.all(), name
            dead = ~np.broadcast_to(parameter.expanded_mask(), parameter.stored.shape)
            assert not parameter.stored[dead].any()
            assert not parameter.momentum[dead].any()


def test_a_state_continues_to_the_same_bits():
    network, recipe = NETWORKS["digits"], Recipe(update_rounding=Rounding.STOCHASTIC)
    (first, labels), *rest = batches(network, 5, 4)
    executor = TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS)
    executor.calibrate(first, labels)
    executor.step(first, labels)
    resumed = TorchExecutor(network, executor.to_state(), recipe, TOTAL_STEPS)
    for codes, classes in rest:
        executor.step(codes, classes)
        resumed.step(codes, classes)
    assert_same_state(executor.to_state(), resumed.to_state())


def test_state_dict_round_trips(tmp_path):
    network, recipe = NETWORKS["grouped"], Recipe()
    (codes, labels), (more, classes) = batches(network, 5, 2)
    executor = TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS)
    executor.calibrate(codes, labels)
    executor.prune("conv2d0.weight", np.eye(8, 2, dtype=np.bool_))
    executor.step(codes, labels)
    torch.save(executor.state_dict(), tmp_path / "run.pt")
    other = TorchExecutor(network, start(network, recipe, seed=9), recipe, TOTAL_STEPS)
    other.load_state_dict(torch.load(tmp_path / "run.pt", weights_only=True))
    for each in (executor, other):
        each.step(more, classes)
    assert_same_state(executor.to_state(), other.to_state())


def test_the_given_state_is_copied():
    network, recipe = NETWORKS["digits"], Recipe()
    state = start(network, recipe)
    before = copy.deepcopy(state)
    codes, labels = next(batches(network, 4, 1))
    executor = TorchExecutor(network, state, recipe, TOTAL_STEPS)
    executor.calibrate(codes, labels)
    executor.step(codes, labels)
    assert_same_state(before, state)


def test_channels_last_and_torch_inputs_are_the_same_images():
    network, recipe = NETWORKS["strided"], Recipe()
    codes, labels = next(batches(network, 4, 1))
    executors = [TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS) for _ in range(2)]
    executors[0].calibrate(codes, labels)
    executors[1].calibrate(torch.from_numpy(codes).permute(0, 2, 3, 1), torch.from_numpy(labels), nhwc=True)
    executors[0].step(codes, labels)
    executors[1].step(codes.transpose(0, 2, 3, 1), labels, nhwc=True)
    assert_same_state(executors[0].to_state(), executors[1].to_state())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["strided", "grouped", "ragged_pools", "linear_only"])
def test_many_small_tiles_give_the_same_bits(name, fused, monkeypatch):
    """Tiles of one image, shared by more threads than there are cores, with fused and with eager functions."""
    monkeypatch.setattr(tiles, "TILE_BYTES", 1)
    monkeypatch.setattr(tiles, "_SMALL_BYTES", 0)
    monkeypatch.setattr(convolution, "_SMALL_PRODUCTS", 0)
    monkeypatch.setattr(convolution, "_WG_PIXELS", 1)
    if not fused:
        monkeypatch.setattr(choice, "_fused_pointwise", lambda: None)
    with threads(3):
        _, executor = train_both(NETWORKS[name], Recipe(update_rounding=Rounding.STOCHASTIC), prune_at=1, steps=2)
        assert executor.kernels.workers.count == 3
        assert isinstance(executor.kernels.pointwise, NumbaPointwise) == fused


@contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_bits():
    network, recipe = NETWORKS["digits"], Recipe()
    data = list(batches(network, 48, 3))
    states = []
    for count in (1, 2, 3, 4):
        with threads(count):
            executor = TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS)
            assert executor.kernels.workers.count == count
            executor.calibrate(*data[0])
            for codes, labels in data[1:]:
                executor.step(codes, labels)
            assert torch.get_num_threads() == count
        states.append(executor.to_state())
    for state in states[1:]:
        assert_same_state(states[0], state)


def test_without_numba_training_is_eager_and_the_same(monkeypatch, caplog):
    choice._fused_pointwise.cache_clear()
    monkeypatch.setitem(sys.modules, "fixgrad.train.kernels.pointwise_numba", None)
    try:
        with caplog.at_level(logging.WARNING):
            _, executor = train_both(NETWORKS["strided"], Recipe())
        assert type(executor.kernels.pointwise) is TorchPointwise
        assert "Numba does not work here" in caplog.text
    finally:
        choice._fused_pointwise.cache_clear()


@pytest.mark.parametrize("path", PATHS)
def test_accumulators_that_leave_32_bits_raise_their_flags(path):
    """FF adds 134,000 features, above the 133,144 products of 127 * 127 that are sure to fit."""
    network = chain("long", (134_000,), linear(134_000, 2, bias=False), linear(2, 2))
    recipe = Recipe(learning_rate=0.0)
    weights = {name: np.full(shape, 0.995) for name, shape in network.parameters.items()}
    reference, executor = pair(network, initial_state(network, weights, recipe), recipe, path)
    codes, labels = np.full((2, 134_000), 127, np.int8), np.array([0, 1])
    for each in (reference, executor):
        each.calibrate(codes, labels)
    assert_same_trace(reference.step(codes, labels), executor.step(codes, labels, trace=True))
    assert executor.to_state().overflows == {"linear0/ff"}


@pytest.mark.parametrize("path", PATHS)
def test_weight_gradients_that_leave_32_bits_raise_their_flags(path):
    """WG adds 134,000 images."""
    network = chain("many", (2,), linear(2, 2))
    recipe = Recipe(learning_rate=0.0)
    weights = {"linear0.weight": np.array([[3.0, 3.0], [-3.0, -3.0]]), "linear0.bias": np.zeros(2)}
    reference, executor = pair(network, initial_state(network, weights, recipe), recipe, path)
    codes, labels = np.full((134_000, 2), 127, np.int8), np.ones(134_000, np.int64)
    for each in (reference, executor):
        each.calibrate(codes, labels)
    assert_same_trace(reference.step(codes, labels), executor.step(codes, labels, trace=True))
    assert_same_state(reference.state, executor.to_state())
    assert executor.to_state().overflows == {"linear0/wg"}


def pair(network, state, recipe, path):
    return (
        ReferenceExecutor(network, copy.deepcopy(state), recipe, TOTAL_STEPS),
        TorchExecutor(network, state, recipe, TOTAL_STEPS, path=path),
    )


def test_a_bias_that_leaves_32_bits_raises_the_flag():
    network = chain("biased", (3,), linear(3, 2), linear(2, 2))
    recipe = Recipe(stored_bits=32, learning_rate=0.0)
    weights = {name: np.full(shape, 1e-8 if name == "linear0.weight" else 3.9) for name, shape in network.parameters.items()}
    reference, executor = pair(network, initial_state(network, weights, recipe), recipe, "auto")
    codes, labels = np.full((4, 3), 127, np.int8), np.array([0, 1, 0, 1])
    for each in (reference, executor):
        each.calibrate(codes, labels)
    assert_same_trace(reference.step(codes, labels), executor.step(codes, labels, trace=True))
    assert executor.to_state().overflows == {"linear0/ff"}


def test_a_copy_and_a_pickle_go_on_alone():
    network, recipe = NETWORKS["ragged_pools"], Recipe()
    (codes, labels), (more, classes) = batches(network, 5, 2)
    executor = TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS)
    executor.calibrate(codes, labels)
    copies = [copy.deepcopy(executor), pickle.loads(pickle.dumps(executor))]
    for each in (executor, *copies):
        each.step(codes, labels)
        each.step(more, classes)
    for each in copies:
        assert_same_state(executor.to_state(), each.to_state())


def test_conversions_leave_the_integers_alone():
    network, recipe = NETWORKS["digits"], Recipe()
    executor = TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS)
    types = {name: buffer.dtype for name, buffer in executor.named_buffers()}
    executor.double().to(torch.bfloat16).to("cpu")
    assert {name: buffer.dtype for name, buffer in executor.named_buffers()} == types
    assert set(types.values()) == {torch.int32, torch.int8, torch.bool}
    codes, labels = next(batches(network, 4, 1))
    executor.calibrate(codes, labels)
    executor.step(codes, labels)
    assert executor.steps_done == 1


def test_a_step_before_calibration_is_refused():
    network = NETWORKS["single_layer"]
    executor = TorchExecutor(network, start(network, Recipe()), Recipe(), TOTAL_STEPS)
    with pytest.raises(UsageError, match="call calibrate"):
        executor.step(np.zeros((1, 5), np.int8), np.zeros(1, np.int64))


def test_wide_codes_between_layers_are_refused():
    network = chain("wide", (5,), linear(5, 4, out_bits=16), linear(4, 2))
    with pytest.raises(UsageError, match="reads codes of 16 bits from linear0"):
        TorchExecutor(network, start(network, Recipe()), Recipe(), TOTAL_STEPS)


def test_unknown_path_is_refused():
    network = NETWORKS["single_layer"]
    with pytest.raises(UsageError, match="'int4' is unknown: choose auto, int8, fp32, fp64"):
        TorchExecutor(network, start(network, Recipe()), Recipe(), TOTAL_STEPS, path="int4")


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (np.zeros((2, 4), np.int8), [0, 1], r"input has shape \(2, 4\)"),
        (np.full((2, 5), -128, np.int8), [0, 1], "must be integers of -127 to 127"),
        (np.full((2, 5), 200), [0, 1], "must be integers of -127 to 127"),
        (np.zeros((2, 5), np.float32), [0, 1], "must be integers of -127 to 127"),
        (np.zeros((2, 5), np.int8), [0], r"labels have shape \(1,\): a batch of 2"),
        (np.zeros((2, 5), np.int8), [0, 3], "labels go from 0 to 3"),
    ],
)
def test_wrong_batches_are_refused(codes, labels, message):
    network = NETWORKS["single_layer"]
    executor = TorchExecutor(network, start(network, Recipe()), Recipe(), TOTAL_STEPS)
    with pytest.raises(DataError, match=message):
        executor.calibrate(codes, np.array(labels))


def test_wrong_masks_are_refused():
    network = NETWORKS["single_layer"]
    executor = TorchExecutor(network, start(network, Recipe()), Recipe(), TOTAL_STEPS)
    with pytest.raises(UsageError, match=r"no parameter 'conv9\.weight'"):
        executor.prune("conv9.weight", np.ones((3, 5), np.bool_))
    with pytest.raises(DataError, match=r"mask has shape \(5, 3\): the parameter needs \(3, 5\)"):
        executor.prune("linear0.weight", np.ones((5, 3), np.bool_))
    with pytest.raises(DataError, match="mask"):
        executor.prune("linear0.bias", np.ones((3,), np.bool_))


def test_schedules_and_seeds_reach_the_step():
    recipe = Recipe(warmup_steps=2, seed=77, error_rounding=Rounding.STOCHASTIC)
    reference, _ = train_both(NETWORKS["ragged_pools"], recipe)
    other, _ = train_both(NETWORKS["ragged_pools"], replace(recipe, seed=78))
    weights = [executor.state.parameters["conv2d0.weight"].stored for executor in (reference, other)]
    assert not np.array_equal(*weights)
