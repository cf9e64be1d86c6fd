"""Networks that are no chains: the PyTorch executor against the reference, on written and on random graphs."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fixgrad.errors import DataError, UsageError
from fixgrad.network import (
    INPUT,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Network,
    PadChannels,
    Recipe,
    ReLU,
    ReLU6,
    SlidingMaxPool2d,
    initial_state,
)
from fixgrad.network.layers import Layer
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.network.state import State
from fixgrad.network.state_arrays import state_from_arrays, state_to_arrays
from fixgrad.numbers import Rounding
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.executor import TorchExecutor
from fixgrad.train.float_graph import FloatGraph
from fixgrad.train.kernels import choice, tiles
from fixgrad.train.kernels.joining_numba import NumbaJoining
from fixgrad.train.kernels.joining_torch import TorchJoining

TOTAL_STEPS = 12


class Builder:
    """Layers one by one, with the shapes that they give."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {INPUT: shape}
        self.layers: list[Layer] = []

    def add(self, kind: type[Layer], *inputs: str, **fields: object) -> str:
        """Append a layer of that kind; its name."""
        layer = kind(name=f"{kind.kind}{len(self.layers)}", inputs=inputs, **fields)
        self.layers.append(layer)
        self.shapes[layer.name] = layer.output_shape(*(self.shapes[name] for name in inputs))
        return layer.name

    def conv(self, tensor: str, filters: int, kernel: int = 3, out_bits: int = 8, relu: bool = False, **geometry: object) -> str:
        return self.add(
            Conv2d,
            tensor,
            in_channels=self.shapes[tensor][0],
            filters=filters,
            kernel=(kernel, kernel),
            geometry=ConvGeometry(**{"padding": (kernel // 2, kernel // 2), **geometry}),
            bias=out_bits == 8,
            relu=relu,
            out_bits=out_bits,
        )

    def norm(self, tensor: str, **fields: object) -> str:
        return self.add(BatchNorm, tensor, channels=self.shapes[tensor][0], **fields)

    def conv_norm(self, tensor: str, filters: int, relu: bool = True, **fields: object) -> str:
        return self.norm(self.conv(tensor, filters, out_bits=16, **fields), relu=relu)

    def network(self, tensor: str, name: str = "graph", classes: int = 4) -> Network:
        """Pooled, flattened, and classified."""
        if len(self.shapes[tensor]) == 3:
            tensor = self.add(Flatten, self.add(AdaptiveAvgPool2d, tensor, output=(1, 1)))
        self.add(Linear, tensor, in_features=self.shapes[tensor][0], out_features=classes, out_bits=16)
        return Network(name, self.shapes[INPUT], 6, tuple(self.layers))


def residual() -> Network:
    """Two blocks of ResNet: an identity shortcut, and one with a convolution."""
    b = Builder((3, 8, 8))
    stem = b.conv_norm(INPUT, 6)
    block = b.add(Add, b.conv_norm(b.conv_norm(stem, 6), 6, relu=False), stem, relu=True)
    narrow = b.conv_norm(b.conv_norm(block, 10, stride=(2, 2)), 10, relu=False)
    shortcut = b.conv_norm(block, 10, relu=False, kernel=1, stride=(2, 2))
    return b.network(b.add(Add, narrow, shortcut, relu=True), "residual")


def shortcut_without_weights() -> Network:
    """ResNet's option A: every second pixel, and zero channels."""
    b = Builder((2, 9, 7))
    stem = b.conv_norm(INPUT, 4)
    picked = b.add(SlidingMaxPool2d, stem, window=(1, 1), geometry=ConvGeometry(stride=(2, 2)))
    branch = b.conv_norm(b.conv_norm(stem, 8, stride=(2, 2)), 8, relu=False)
    return b.network(b.add(Add, branch, b.add(PadChannels, picked, before=1, behind=3), relu=True), "option_a")


def inverted_residual() -> Network:
    """A block of MobileNetV2: expansion, depthwise convolution, linear bottleneck; ReLU6 and dropout."""
    b = Builder((3, 8, 8))
    stem = b.norm(b.conv(INPUT, 6, out_bits=16, stride=(2, 2)), relu=True, clip6=True)
    wide = b.norm(b.conv(stem, 12, kernel=1, out_bits=16), relu=True, clip6=True)
    deep = b.norm(b.conv(wide, 12, out_bits=16, groups=12), relu=True, clip6=True)
    total = b.add(Add, stem, b.conv_norm(deep, 6, kernel=1, relu=False))
    flat = b.add(Flatten, b.add(AdaptiveAvgPool2d, b.add(ReLU6, b.conv(total, 9))))
    return b.network(b.add(Dropout, flat, p=0.3), "inverted")


def dense_block() -> Network:
    """Concatenation and normalisation before convolution, as in DenseNet; average pools."""
    b = Builder((3, 9, 9))
    stem = b.add(SlidingMaxPool2d, b.conv(INPUT, 5), window=(3, 3), geometry=ConvGeometry(stride=(2, 2), padding=(1, 1)))
    one = b.add(Concat, stem, b.conv(b.norm(stem, relu=True), 4))
    two = b.add(Concat, one, b.conv(b.norm(one, relu=True), 3), stem)
    pooled = b.add(AvgPool2d, two, window=(3, 2), geometry=ConvGeometry(stride=(2, 1), padding=(1, 1)), count_padding=False)
    counted = b.add(AvgPool2d, two, window=(3, 2), geometry=ConvGeometry(stride=(2, 1), padding=(1, 1)))
    return b.network(b.add(AdaptiveAvgPool2d, b.add(Add, counted, pooled, pooled), output=(2, 3)), "dense")


def mixed_pools() -> Network:
    """Rectified tensors with several readers, of which some pass codes on and some make errors anew."""
    b = Builder((2, 8, 8))
    stem = b.conv(INPUT, 5, relu=True)
    left = b.add(MaxPool2d, stem, window=(2, 2))
    right = b.add(AvgPool2d, stem, window=(2, 2), geometry=ConvGeometry(stride=(2, 2)))
    overlapping = b.add(SlidingMaxPool2d, stem, window=(2, 3), geometry=ConvGeometry(stride=(2, 2), padding=(0, 1), dilation=(1, 1)))
    total = b.add(Add, left, right, overlapping)
    rectified = b.add(ReLU, total)
    dropped = b.add(Dropout, rectified, p=0.5)
    return b.network(b.add(Concat, dropped, rectified, b.conv(rectified, 2, kernel=1)), "mixed_pools")


def twice() -> Network:
    """A tensor added to itself, and one that is joined with the input."""
    b = Builder((3, 6, 6))
    conv = b.conv(INPUT, 3, relu=True)
    return b.network(b.norm(b.conv(b.add(Concat, b.add(Add, conv, conv), INPUT), 4, out_bits=16)), "twice")


def vectors() -> Network:
    """Batch normalisation of features."""
    b = Builder((2, 3, 3))
    flat = b.add(Flatten, INPUT)
    hidden = b.add(Linear, flat, in_features=18, out_features=7, out_bits=16, bias=False)
    return b.network(b.norm(hidden, relu=True, eps=1e-3, momentum=0.3), "vectors")


NETWORKS = [residual, shortcut_without_weights, inverted_residual, dense_block, mixed_pools, twice, vectors]


def random_graph(seed: int) -> Network:
    """A few layers of any kind, each on tensors that are there, all joined at the end."""
    rng = np.random.default_rng(seed)
    b = Builder((int(rng.integers(1, 4)), int(rng.integers(5, 9)), int(rng.integers(5, 9))))
    maps, unread = [INPUT], {INPUT}

    def pick() -> str:
        tensor = maps[-1] if rng.random() < 0.6 else maps[int(rng.integers(len(maps)))]
        unread.discard(tensor)
        return tensor

    for _ in range(int(rng.integers(4, 9))):
        tensor = pick()
        channels = b.shapes[tensor][0]
        kind = rng.integers(9)
        if kind == 0:
            made = b.conv(tensor, int(rng.integers(1, 7)), kernel=int(rng.choice([1, 2, 3])), relu=bool(rng.integers(2)))
        elif kind == 1:
            made = b.conv_norm(tensor, 2 * channels, groups=channels, relu=bool(rng.integers(2)))
        elif kind == 2:
            made = b.norm(tensor, relu=True, clip6=bool(rng.integers(2)))
        elif kind == 3:
            made = b.add(AvgPool2d, tensor, window=(2, 3), geometry=ConvGeometry(padding=(1, 1)), count_padding=bool(rng.integers(2)))
        elif kind == 4:
            made = b.add(SlidingMaxPool2d, tensor, window=(3, 2), geometry=ConvGeometry(padding=(1, 1)))
        elif kind == 5:
            made = b.add(Dropout, tensor, p=float(rng.choice([0.1, 0.5, 0.9])))
        elif kind == 6:
            made = b.add(ReLU if rng.integers(2) else ReLU6, tensor)
        else:
            same = [other for other in maps if b.shapes[other][1:] == b.shapes[tensor][1:]]
            other = same[int(rng.integers(len(same)))]
            unread.discard(other)
            equal = b.shapes[other] == b.shapes[tensor]
            made = b.add(Add, tensor, other, relu=bool(rng.integers(2))) if equal else b.add(Concat, tensor, other)
        maps.append(made)
        unread.add(made)
    ends = [b.add(AdaptiveAvgPool2d, tensor, output=(2, 2)) for tensor in maps if tensor in unread]
    return b.network(b.add(Concat, *ends) if len(ends) > 1 else ends[0], f"random{seed}")


def start(network: Network, recipe: Recipe, seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(0, 0.4, shape) for name, shape in network.parameters.items()}
    weights |= {layer.gamma: rng.normal(1, 0.5, layer.channels) for layer in network.batch_norms}
    return initial_state(network, weights, recipe)


def batches(network: Network, batch: int, count: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        codes = rng.integers(-127, 128, (batch, *network.input_shape)).astype(np.int8)
        yield codes, rng.integers(0, network.classes, batch)


def assert_same(expected, found, what: str) -> None:
    """Arrays, and dictionaries and tuples of them, are equal."""
    if isinstance(expected, dict):
        assert expected.keys() == found.keys(), what
        for name in expected:
            assert_same(expected[name], found[name], f"{what} of {name}")
    elif isinstance(expected, np.ndarray):
        assert np.array_equal(expected, found), what
    elif isinstance(expected, tuple):
        for one, other in zip(expected, found, strict=True):
            assert_same(one, other, what)
    else:
        assert expected == found, what


def assert_same_state(expected: State, found: State) -> None:
    for what in ("step", "activation_scales", "error_scales", "overflows", "running"):
        assert_same(getattr(expected, what), getattr(found, what), what)
    for name, parameter in expected.parameters.items():
        for what in ("stored", "momentum", "operand_shift", "magnitude", "formats"):
            assert_same(getattr(parameter, what), getattr(found.parameters[name], what), f"{what} of {name}")


def train_both(network: Network, recipe: Recipe, *, batch: int = 5, steps: int = 3, seed: int = 0, data=None):
    """Trains both executors and compares every tensor of every step; returns them."""
    state = start(network, recipe, seed)
    executor = TorchExecutor(network, state, recipe, TOTAL_STEPS)
    reference = ReferenceExecutor(network, copy.deepcopy(state), recipe, TOTAL_STEPS)
    data = data or list(batches(network, batch, steps + 1, seed + 1))
    reference.calibrate(*data[0])
    executor.calibrate(*data[0])
    assert_same_state(reference.state, executor.to_state())
    for codes, labels in data[1:]:
        expected, report = reference.step(codes, labels), executor.step(codes, labels, trace=True)
        assert report.trace is not None
        for what in ("activations", "fracs", "errors", "error_fracs", "gradients", "forward_bits", "error_bits"):
            assert_same(getattr(expected, what), getattr(report.trace, what), what)
        for what in ("saturated", "overflows", "loss", "correct"):
            assert_same(getattr(expected, what), getattr(report, what), what)
        assert_same_state(reference.state, executor.to_state())
    codes, _ = data[0]
    assert np.array_equal(reference.predict(codes), executor.predict(codes).numpy())
    return reference, executor


@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("rounding", Rounding)
def test_every_tensor_equals_the_reference(make, rounding):
    recipe = Recipe(update_rounding=rounding, error_rounding=rounding, learning_rate=0.1, momentum=0.8)
    train_both(make(), recipe)


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_equal_the_reference(seed):
    train_both(random_graph(seed), Recipe(learning_rate=0.05), batch=1 + seed % 4, steps=2, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 70))
def test_many_random_graphs_equal_the_reference(seed):
    train_both(random_graph(seed), Recipe(learning_rate=0.5), batch=1 + seed % 5, steps=3, seed=seed)


@pytest.mark.parametrize("make", [residual, inverted_residual, vectors], ids=lambda make: make.__name__)
def test_a_batch_of_one_and_images_of_zeros(make):
    network = make()
    labels = np.zeros(1, np.int64)
    zeros = np.zeros((1, *network.input_shape), np.int8)
    ones = np.full((1, *network.input_shape), 127, np.int8)
    train_both(network, Recipe(), data=[(zeros, labels), (zeros, labels), (ones, labels), (zeros, labels), (ones, labels)])


@pytest.mark.parametrize("fused", [True, False])
def test_many_small_tiles_give_the_same_bits(fused, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 1)
    monkeypatch.setattr(tiles, "_SMALL_BYTES", 0)
    if not fused:
        monkeypatch.setattr(choice, "_fused_pointwise", lambda: None)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for make in (residual, dense_block, mixed_pools):
            train_both(make(), Recipe(update_rounding=Rounding.STOCHASTIC), steps=2)
    finally:
        torch.set_num_threads(before)


def test_logits_that_are_read_on_are_refused():
    network = residual()
    head = replace(network.layers[-1], name="more", inputs=(network.logits,), in_features=4)
    wide = Network("wide", network.input_shape, 6, (*network.layers, head))
    with pytest.raises(UsageError, match="more reads codes of 16 bits"):
        TorchExecutor(wide, start(wide, Recipe()), Recipe(), TOTAL_STEPS)


def float_gradients(network: Network, state: State, codes, labels) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits, and the gradients of the summed loss, of the float network with the same operands on the same codes."""
    module = FloatGraph(network)
    tensors = module.tensors_by_name()
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            values, frac = parameter.stored, parameter.formats.stored_frac
            if name.endswith(".weight"):
                values, frac = parameter.operand(), parameter.operand_frac
            tensors[name].copy_(torch.from_numpy(np.ldexp(values.astype(np.float64), -frac)))
    logits = module(torch.from_numpy(np.ldexp(codes.astype(np.float32), -network.input_frac)))
    loss = F.cross_entropy(logits, torch.from_numpy(labels), reduction="sum")
    found = torch.autograd.grad(loss, [tensors[name] for name in state.parameters])
    return logits.detach().numpy(), {name: gradient.numpy() for name, gradient in zip(state.parameters, found, strict=True)}


@pytest.mark.parametrize("make", [residual, shortcut_without_weights, dense_block, vectors], ids=lambda make: make.__name__)
@pytest.mark.parametrize("seed", [0, 1])
def test_gradients_point_where_floats_point(make, seed):
    """The cosine between integer and float gradients is above 0.9 for each weight, and above 0.93 on average of all parameters.

    Those of single offsets may be lower: they are sums of errors that almost cancel.
    """
    network, recipe = make(), Recipe(learning_rate=1e-9, weight_decay=0.0)
    executor = TorchExecutor(network, start(network, recipe, seed), recipe, TOTAL_STEPS)
    codes, labels = next(batches(network, 32, 1, seed + 1))
    executor.calibrate(codes, labels)
    logits, expected = float_gradients(network, executor.to_state(), codes, labels)
    trace = executor.step(codes, labels, trace=True).trace
    assert trace is not None
    found = np.ldexp(trace.activations[network.logits].astype(np.float64), -trace.fracs[network.logits])
    assert np.abs(found - logits).max() < 0.06 * np.abs(logits).max()
    cosines = {name: cosine(gradient, trace.gradients[name]) for name, gradient in expected.items()}
    assert min(value for name, value in cosines.items() if name.endswith(".weight")) > 0.9, cosines
    assert np.mean(list(cosines.values())) > 0.93


def cosine(one, other) -> float:
    one, other = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def test_a_state_with_running_statistics_goes_on_to_the_same_bits():
    network, recipe = residual(), Recipe()
    (codes, labels), *rest = batches(network, 4, 3)
    executor = TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS)
    executor.calibrate(codes, labels)
    executor.step(codes, labels)
    arrays, values = state_to_arrays(executor.to_state())
    assert {name for name in arrays if name.startswith("running")} == {
        f"running_{what}/{layer.name}" for what in ("mean", "variance") for layer in network.batch_norms
    }
    resumed = TorchExecutor(network, state_from_arrays(network, arrays, values), recipe, TOTAL_STEPS)
    for more, classes in rest:
        executor.step(more, classes)
        resumed.step(more, classes)
    assert_same_state(executor.to_state(), resumed.to_state())
    assert np.array_equal(executor.predict(codes), resumed.predict(codes))


def test_evaluation_changes_nothing():
    network, recipe = inverted_residual(), Recipe()
    codes, labels = next(batches(network, 4, 1))
    executor = TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS)
    executor.calibrate(codes, labels)
    executor.step(codes, labels)
    before = executor.to_state()
    alone = np.concatenate([executor.predict(codes[index : index + 1]).numpy() for index in range(4)])
    assert np.array_equal(executor.predict(codes).numpy(), alone)
    assert_same_state(before, executor.to_state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("running_mean/batchnorm1"), "lacks 'running_mean/batchnorm1'"),
        (lambda arrays: arrays.update({"running_mean/batchnorm1": np.zeros(5, np.int64)}), r"is int64 \[5\]: expected int64 \[6\]"),
        (lambda arrays: arrays.update({"running_variance/batchnorm1": np.full(6, -1)}), "holds codes of -1 to -1: expected 0 to"),
        (lambda arrays: arrays.update({"running_mean/other": np.zeros(6, np.int64)}), "'running_mean/other' belongs to no"),
    ],
)
def test_damaged_running_statistics_are_refused(change, message):
    network = residual()
    arrays, values = state_to_arrays(start(network, Recipe()))
    change(arrays)
    with pytest.raises(DataError, match=message):
        state_from_arrays(network, arrays, values)


def test_compiled_functions_that_err_are_not_used(monkeypatch, caplog):
    """The trial finds a compiled function that gives other integers; training goes on with eager ones, and says so."""
    choice._fused_joining.cache_clear()
    monkeypatch.setattr(NumbaJoining, "normalise", lambda self, codes, mapped, ceiling, out: out.zero_())
    network, recipe = vectors(), Recipe()
    executor = TorchExecutor(network, start(network, recipe), recipe, TOTAL_STEPS)
    choice._fused_joining.cache_clear()
    assert type(executor.kernels.joining) is TorchJoining
    assert "give other integers than eager ones" in caplog.text


def test_factors_that_begin_at_zero():
    """The last normalisation of each block gives zeros at first: nothing saturates for long once it no longer does."""
    network, recipe = residual(), Recipe(learning_rate=0.05, weight_decay=0.0, schedule="constant")
    state = start(network, recipe)
    for name in ("batchnorm5.gamma", "batchnorm10.gamma", "batchnorm5.beta", "batchnorm10.beta"):
        state.parameters[name].stored[...] = 0
        state.parameters[name].magnitude = 0
    executor = TorchExecutor(network, state, recipe, TOTAL_STEPS)
    reference = ReferenceExecutor(network, copy.deepcopy(state), recipe, TOTAL_STEPS)
    data = list(batches(network, 16, 6))
    executor.calibrate(*data[0])
    reference.calibrate(*data[0])
    saturated = []
    for codes, labels in data:
        report = executor.step(codes, labels)
        reference.step(codes, labels)
        saturated.append(max(report.saturated.values()))
    assert_same_state(reference.state, executor.to_state())
    assert max(saturated[3:]) < 0.05
    assert executor.to_state().parameters["batchnorm5.gamma"].stored.any()
