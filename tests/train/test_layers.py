"""The layers as modules: FF, NG and WG against the operations of the reference."""

import numpy as np
import pytest
import torch

from fixgrad.network import Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe, ReLU, initial_state
from fixgrad.network.operations import (
    bias_gradient,
    mac_forward,
    mac_input_gradient,
    mac_weight_gradient,
    pass_backward,
    pass_forward,
)
from fixgrad.numbers import align
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.train.kernels.choice import choose_kernels
from fixgrad.train.layers import IntegerParameter, MacModule, PassModule, build_layer
from fixgrad.train.layers.parameter import channels_first, channels_last

CPU = torch.device("cpu")
FLATTEN = Flatten(name="flatten", inputs=("conv",))


def convolution(**geometry):
    kernel = geometry.pop("kernel", (3, 3))
    return Conv2d(name="conv", inputs=("input",), in_channels=4, filters=6, kernel=kernel, geometry=ConvGeometry(**geometry))


LAYERS = {
    "conv": convolution(padding=(1, 1)),
    "strided conv": convolution(kernel=(2, 3), stride=(2, 1), dilation=(1, 2), padding=(0, 2)),
    "grouped conv": convolution(groups=2),
    "linear": Linear(name="linear", inputs=("input",), in_features=11, out_features=7),
}
PASSING = {
    "relu": ReLU(name="relu", inputs=("input",)),
    "pool": MaxPool2d(name="pool", inputs=("input",), window=(2, 3)),
    "flatten": Flatten(name="flatten", inputs=("input",)),
}


def build(layer):
    """The layer as a module with random weights, and the shape of its input."""
    if isinstance(layer, Conv2d):
        shape, layers = (4, 9, 8), [layer, FLATTEN]
        features = int(np.prod(layer.output_shape(shape)))
        layers.append(Linear(name="logits", inputs=("flatten",), in_features=features, out_features=2))
    else:
        shape, layers = (11,), [layer]
    recipe = Recipe()
    network = Network("net", shape, 6, tuple(layers))
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 1, size) for name, size in network.parameters.items()}
    state = initial_state(network, weights, recipe)
    module = build_layer(layer, state, choose_kernels(CPU), CPU)
    assert isinstance(module, MacModule)
    return module, state, shape


def codes(shape, seed):
    return np.random.default_rng(seed).integers(-127, 128, shape, np.int8)


def to_tensor(array):
    return torch.from_numpy(np.ascontiguousarray(channels_last_maps(array)))


def channels_last_maps(array):
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def gathered(product):
    return channels_first(torch.cat([product.compute(part).copied().sums for part in product.tiles]).numpy())


@pytest.mark.parametrize("name", LAYERS)
def test_three_products(name):
    layer = LAYERS[name]
    module, state, shape = build(layer)
    operand = state.weight(layer).operand()
    x = codes((5, *shape), 1)
    y = mac_forward(layer, x, operand).values
    assert np.array_equal(gathered(module.feed_forward(to_tensor(x))), y)

    dy = codes(y.shape, 2)
    dx = gathered(module.neuron_gradient(to_tensor(dy), to_tensor(x).shape))
    assert np.array_equal(dx, mac_input_gradient(layer, dy, operand, shape).values)

    product = module.weight_gradient(to_tensor(x), to_tensor(dy))
    for task in product.tasks:
        task()
    sums, overflow = product.total()
    assert overflow is None
    assert sums.shape == module.weight.stored.shape
    assert np.array_equal(channels_first(sums.numpy()), mac_weight_gradient(layer, x, dy).values)
    bias = module.bias_gradient(to_tensor(dy))
    for task in bias.tasks:
        task()
    assert np.array_equal(bias.total().sums.numpy(), bias_gradient(dy).values[None])


@pytest.mark.parametrize("shift", [-31, -5, 0, 7, 31])
def test_bias_at_the_scale_of_the_accumulators(shift):
    module, state, _ = build(LAYERS["conv"])
    bias = module.aligned_bias(shift)
    assert bias is not None
    assert np.array_equal(bias.numpy(), align(state.parameters["conv.bias"].stored, shift, 32))


@pytest.mark.parametrize("name", PASSING)
def test_layers_without_weights(name):
    layer = PASSING[name]
    recipe = Recipe()
    network = Network("net", (3,), 6, (Linear(name="only", inputs=("input",), in_features=3, out_features=2),))
    state = initial_state(network, {key: np.ones(size) for key, size in network.parameters.items()}, recipe)
    module = build_layer(layer, state, choose_kernels(CPU), CPU)
    assert isinstance(module, PassModule)
    x = codes((5, 3, 7, 8), 1) // 50
    y = pass_forward(layer, x)
    found = module.feed_forward(to_tensor(x))
    assert np.array_equal(channels_first(found.numpy()), y)
    dy = codes(y.shape, 2)
    dx = module.neuron_gradient(to_tensor(x), found, to_tensor(dy))
    assert dx.is_contiguous()
    assert np.array_equal(channels_first(dx.numpy()), pass_backward(layer, x, dy))


def test_parameters_are_buffers_of_the_state_dict():
    module, state, _ = build(LAYERS["conv"])
    parameter, stored = state.parameters["conv.weight"], module.weight.stored
    assert np.array_equal(stored.numpy(), channels_last(parameter.stored))
    assert np.array_equal(module.weight.operand.numpy(), channels_last(parameter.operand()))
    kept = set(module.state_dict())
    assert {f"weight.{name}" for name in ("stored", "momentum", "operand", "mask")} <= kept
    assert {f"bias.{name}" for name in ("stored", "momentum")} <= kept
    assert not list(module.parameters())  # nothing for autograd


def test_pruning_twice_keeps_what_both_masks_keep():
    module, state, _ = build(LAYERS["conv"])
    parameter = state.parameters["conv.weight"]
    first, second = np.eye(6, 4, dtype=np.bool_) | (np.arange(4) == 1), np.arange(24).reshape(6, 4) % 3 > 0
    for mask in (first, second):
        module.weight.prune(mask)
        parameter.prune(mask)
    found = module.weight.to_parameter()
    assert np.array_equal(found.mask, first & second)
    assert np.array_equal(found.stored, parameter.stored)
    assert np.array_equal(module.weight.operand.numpy(), channels_last(parameter.operand()))


def test_a_parameter_round_trips():
    _, state, _ = build(LAYERS["grouped conv"])
    for parameter in state.parameters.values():
        found = IntegerParameter(parameter, CPU).to_parameter()
        assert np.array_equal(found.stored, parameter.stored)
        assert np.array_equal(found.momentum, parameter.momentum)
        assert (found.formats, found.mask) == (parameter.formats, None)
        assert (found.operand_shift, found.magnitude) == (parameter.operand_shift, parameter.magnitude)
