"""Random small networks, compiled and run on the functional simulator, against the NumPy reference: every tensor, with `==`."""

from dataclasses import replace

import numpy as np
import pytest

from fixgrad.compiler import check, compile_step
from fixgrad.errors import UsageError
from fixgrad.machine import preset
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe, initial_state
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.network.state_arrays import state_from_arrays, state_to_arrays
from fixgrad.numbers import Rounding
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.simulate.functional import FunctionalExecutor, Order, functional_subject, reference_subject, verify

STEPS = 2


def random_network(seed):
    """Odd sizes, kernels of 1 to 5, strides, padding, dilation, groups, ragged pools, channel counts that fill no group."""
    rng = np.random.default_rng(seed)
    channels, height, width = int(rng.integers(1, 5)), int(rng.integers(5, 12)), int(rng.integers(5, 12))
    shape, layers, tensor = (channels, height, width), [], INPUT
    for index in range(int(rng.integers(1, 4))):
        kernel = tuple(int(rng.choice([1, 2, 3, 5])) for _ in range(2))
        geometry = ConvGeometry(
            stride=tuple(int(rng.choice([1, 1, 2])) for _ in range(2)),
            padding=tuple(int(rng.integers(0, extent)) for extent in kernel),
            dilation=tuple(int(rng.choice([1, 1, 2])) for _ in range(2)),
            groups=channels if rng.random() < 0.2 else 1,
        )
        filters = geometry.groups * int(rng.integers(1, 8)) if geometry.groups > 1 else int(rng.integers(1, 12))
        conv = Conv2d(
            name=f"conv{index}",
            inputs=(tensor,),
            in_channels=channels,
            filters=filters,
            kernel=kernel,
            geometry=geometry,
            relu=bool(rng.random() < 0.8),
            bias=bool(rng.random() < 0.7),
        )
        try:
            conv.output_shape((channels, height, width))
        except UsageError:
            continue
        layers.append(conv)
        tensor, (channels, height, width) = conv.name, conv.output_shape((channels, height, width))
        window = (int(rng.choice([1, 2, 2])), int(rng.choice([2, 2, 3])))
        if rng.random() < 0.5 and height >= window[0] and width >= window[1]:
            layers.append(MaxPool2d(name=f"pool{index}", inputs=(tensor,), window=window))
            tensor, height, width = f"pool{index}", height // window[0], width // window[1]
    layers.append(Flatten(name="flatten", inputs=(tensor,)))
    features = channels * height * width
    if rng.random() < 0.5:
        hidden = int(rng.integers(1, 20))
        layers.append(Linear(name="hidden", inputs=("flatten",), in_features=features, out_features=hidden, relu=True))
        features = hidden
    last = layers[-1].name
    layers.append(Linear(name="head", inputs=(last,), in_features=features, out_features=int(rng.integers(2, 11)), out_bits=16))
    return Network(f"random{seed}", shape, 6, tuple(layers))


def prepared(network, recipe, batch, seed, density=1.0):
    """A calibrated state with random weights, random masks, and batches of codes and labels."""
    rng = np.random.default_rng([seed, 7])
    weights = {name: rng.normal(size=shape) * 0.4 for name, shape in network.parameters.items()}
    state = initial_state(network, weights, recipe)
    masks = {}
    for layer in network.mac_layers:
        if density < 1:
            masks[f"{layer.name}.weight"] = rng.random(layer.weight_shape[:2]) < density
            state.parameters[f"{layer.name}.weight"].prune(masks[f"{layer.name}.weight"])
    batches = [
        (rng.integers(-127, 128, (batch, *network.input_shape)).astype(np.int8), rng.integers(0, network.classes, batch))
        for _ in range(STEPS)
    ]
    ReferenceExecutor(network, state, recipe, STEPS).calibrate(*batches[0])
    return state, masks, batches


def compare(network, machine, recipe, batch, seed, density=1.0, order=None):
    """The verification of STEPS steps on the functional simulator against the reference."""
    state, masks, batches = prepared(network, recipe, batch, seed, density)
    program = compile_step(network, masks, machine, batch, recipe)
    copy = state_from_arrays(network, *state_to_arrays(state))
    subjects = [
        reference_subject(ReferenceExecutor(network, copy, recipe, STEPS)),
        functional_subject(FunctionalExecutor(program, state, STEPS, order)),
    ]
    return verify(network, subjects, batches)


@pytest.mark.parametrize("seed", range(10))
def test_ten_random_networks_are_equal_on_the_tiny_machine(seed):
    """Batches that fill no micro-batch, masks, all widths of stored weights, both roundings, random order of the units."""
    rng = np.random.default_rng(seed)
    rounding = Rounding.STOCHASTIC if seed % 2 else Rounding.NEAREST
    recipe = Recipe(stored_bits=(16, 24, 32)[seed % 3], update_rounding=rounding, learning_rate=0.05, seed=seed)
    network = random_network(seed)
    machine = preset("tiny").with_changes(input_words=1024, lane_words=512, kernel_words=256, gradient_words=1024)
    batch = int(rng.integers(1, 12))
    result = compare(network, machine, recipe, batch, seed, float(rng.choice([0.3, 0.7, 1.0])), Order(seed=seed))
    assert result.equal, str(result.first_mismatch)
    parameters = len(network.parameters)
    assert result.compared["stored"] == result.compared["momentum"] == STEPS * parameters
    assert result.compared["activation"] >= STEPS * len(network.mac_layers)


@pytest.mark.parametrize("machine", ["kcu1500", "u280", "ecp5-85f"])
def test_every_machine_computes_the_same_bits(machine):
    result = compare(random_network(3), preset(machine), Recipe(learning_rate=0.05), 5, 3, 0.5)
    assert result.equal, str(result.first_mismatch)


def test_queues_for_which_no_columns_are_left():
    """More PEs than channels, behind the last whole block of a wide matrix."""
    conv = Conv2d(name="conv", inputs=(INPUT,), in_channels=3, filters=3, kernel=(7, 1), relu=True)
    rows = conv.output_shape((3, 27, 7))[1:]
    features = 3 * rows[0] * rows[1]
    assert features > 256
    assert features % 256
    flat = Flatten(name="flat", inputs=("conv",))
    head = Linear(name="head", inputs=("flat",), in_features=features, out_features=3, out_bits=16)
    sizes = {"groups": 4, "input_words": 16, "lane_words": 64, "kernel_words": 16, "gradient_words": 64}
    network = Network("tall", (3, 27, 7), 6, (conv, flat, head))
    result = compare(network, preset("tiny").with_changes(**sizes), Recipe(learning_rate=0.05), 5, 3, order=Order(seed=3))
    assert result.equal, str(result.first_mismatch)


def test_a_layer_whose_kernels_are_all_dead_is_a_layer():
    network = random_network(1)
    recipe = Recipe(learning_rate=0.05)
    state, _, batches = prepared(network, recipe, 4, 1)
    first = network.mac_layers[0]
    mask = {f"{first.name}.weight": np.zeros(first.weight_shape[:2], bool)}
    state.parameters[f"{first.name}.weight"].prune(mask[f"{first.name}.weight"])
    program = compile_step(network, mask, preset("tiny"), 4, recipe)
    copy = state_from_arrays(network, *state_to_arrays(state))
    reference = reference_subject(ReferenceExecutor(network, copy, recipe, STEPS))
    result = verify(network, [reference, functional_subject(FunctionalExecutor(program, state, STEPS))], batches)
    assert result.equal, str(result.first_mismatch)


def test_a_difference_is_named_with_the_instruction_that_wrote_it():
    network, recipe = random_network(2), Recipe(learning_rate=0.05)
    state, _, batches = prepared(network, recipe, 4, 2)
    program = compile_step(network, {}, preset("tiny"), 4, recipe)
    other = state_from_arrays(network, *state_to_arrays(state))
    layer = network.mac_layers[0]
    weight = other.parameters[f"{layer.name}.weight"]
    weight.stored[0] = -weight.stored[0]
    reference = reference_subject(ReferenceExecutor(network, other, recipe, STEPS))
    result = verify(network, [reference, functional_subject(FunctionalExecutor(program, state, STEPS))], batches)
    assert not result.equal
    found = result.first_mismatch
    assert (found.step, found.kind, found.tensor, found.phase) == (0, "activation", layer.name, "ff")
    assert found.expected != found.got
    assert "POST" in found.instruction


def test_what_does_not_fit_is_explained_before_anything_runs():
    network = Network(
        "wide",
        (1, 1, 1),
        6,
        (
            Flatten(name="flat", inputs=(INPUT,)),
            Linear(name="a", inputs=("flat",), in_features=1, out_features=4000, relu=True),
            Linear(name="head", inputs=("a",), in_features=4000, out_features=10, out_bits=16),
        ),
    )
    small = preset("tiny")
    cramped = small.with_changes(memory=replace(small.memory, bytes_total=1 << 20))
    reasons = check(network, cramped, 64)
    assert reasons
    for reason in reasons:
        assert reason.needed > reason.available
        assert f"{reason.needed:,}" in str(reason)
        assert reason.remedies
    assert check(network, preset("kcu1500"), 64) == []
