"""Networks with shortcuts, batch normalisation and pools of all kinds, on the functional simulator against the reference."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from fixgrad.compiler import compile_step, context, register_banks
from fixgrad.compiler.error_memory import error_lifetimes, shared_places
from fixgrad.compiler.graph_builder import build_graph
from fixgrad.machine import Machine, preset
from fixgrad.network import (
    INPUT,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    PadChannels,
    Recipe,
    ReLU,
    SlidingMaxPool2d,
    State,
    initial_state,
)
from fixgrad.network.batch_norm import WIDE_BITS
from fixgrad.network.builder import NetworkBuilder
from fixgrad.network.models import model
from fixgrad.network.reference import ReferenceExecutor
from fixgrad.network.state_arrays import state_from_arrays, state_to_arrays
from fixgrad.numbers import Rounding
from fixgrad.numbers.convolution import ConvGeometry
from fixgrad.simulate.functional import FunctionalExecutor, Order, extreme_orders, functional_subject, reference_subject, verify

STEPS = 2
MACHINE = preset("tiny-graph")
Batches = list[tuple[NDArray[np.int8], NDArray[np.int64]]]


class Drawn:
    """A network that is put together at random; every method appends layers and gives the name of the last tensor."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 3])
        self.shape = (int(self.rng.integers(1, 4)), int(self.rng.integers(6, 11)), int(self.rng.integers(6, 11)))
        self.shapes = {INPUT: self.shape}
        self.layers: list[Layer] = []
        self.name = f"graph{seed}"

    def append(self, layer: Layer) -> str:
        self.shapes[layer.name] = layer.output_shape(*(self.shapes[tensor] for tensor in layer.inputs))
        self.layers.append(layer)
        return layer.name

    def new(self, kind: str) -> str:
        return f"{kind}{len(self.layers)}"

    def often(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def conv(self, tensor: str, filters: int, kernel: int, stride: int = 1, **also: bool | int) -> str:
        geometry = ConvGeometry((stride, stride), (kernel // 2, kernel // 2))
        fields = {"bias": self.often(), "relu": False, **also}
        return self.append(
            Conv2d(
                name=self.new("conv"), inputs=(tensor,), in_channels=self.shapes[tensor][0], filters=filters,
                kernel=(kernel, kernel), geometry=geometry, **fields,
            )
        )  # fmt: skip

    def norm(self, tensor: str, relu: bool) -> str:
        return self.append(BatchNorm(name=self.new("norm"), inputs=(tensor,), channels=self.shapes[tensor][0], relu=relu))

    def conv_norm(self, tensor: str, filters: int, kernel: int, stride: int = 1, relu: bool = False) -> str:
        return self.norm(self.conv(tensor, filters, kernel, stride, out_bits=WIDE_BITS), relu)

    def block(self, tensor: str) -> str:
        """Two convolutions and a shortcut: the tensor itself, a projection, or every n-th pixel and more channels."""
        channels, stride = self.shapes[tensor][0], int(self.rng.choice([1, 1, 2]))
        filters = channels if stride == 1 and self.often(0.7) else channels + int(self.rng.integers(0, 4))
        inner = self.conv_norm(tensor, int(self.rng.integers(1, 8)), int(self.rng.choice([1, 3])), stride, relu=True)
        inner = self.conv_norm(inner, filters, 3) if self.often(0.8) else self.conv(inner, filters, 3)
        shortcut = tensor
        if stride > 1 or filters != channels:
            shortcut = self.project(tensor, filters, stride) if self.often() else self.pick(tensor, filters, stride)
        return self.append(Add(name=self.new("add"), inputs=(inner, shortcut), relu=self.often(0.7)))

    def project(self, tensor: str, filters: int, stride: int) -> str:
        return self.conv_norm(tensor, filters, 1, stride)

    def pick(self, tensor: str, filters: int, stride: int) -> str:
        if stride > 1:
            geometry = ConvGeometry((stride, stride))
            tensor = self.append(SlidingMaxPool2d(name=self.new("pick"), inputs=(tensor,), window=(1, 1), geometry=geometry))
        more = filters - self.shapes[tensor][0]
        return self.append(PadChannels(name=self.new("pad"), inputs=(tensor,), before=more // 2, behind=more - more // 2))

    def pool(self, tensor: str) -> str:
        kind, name = int(self.rng.integers(6)), self.new("pool")
        if min(self.shapes[tensor][1:]) < 3:
            return tensor
        overlapping = ConvGeometry((2, 2), (1, 1))
        pools: list[Callable[[], Layer]] = [
            lambda: SlidingMaxPool2d(name=name, inputs=(tensor,), window=(3, 3), geometry=overlapping),
            lambda: MaxPool2d(name=name, inputs=(tensor,), window=(2, 2)),
            lambda: AvgPool2d(name=name, inputs=(tensor,), window=(2, 2), geometry=ConvGeometry((2, 2))),
            lambda: AvgPool2d(name=name, inputs=(tensor,), window=(3, 3), geometry=overlapping),
            lambda: AdaptiveAvgPool2d(name=name, inputs=(tensor,), output=self.equal_parts(tensor)),
        ]
        return self.append(pools[kind]()) if kind < len(pools) else tensor

    def equal_parts(self, tensor: str) -> tuple[int, int]:
        """Pixels of an adaptive average whose windows are of one size and equally far apart; they may overlap."""
        rows, columns = (next(n for n in (3, 2, 1) if self.fits(size, n)) for size in self.shapes[tensor][1:])
        return rows, columns

    @staticmethod
    def fits(size: int, parts: int) -> bool:
        ends = [(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]
        return len({stop - start for start, stop in ends}) == 1 and len({b[0] - a[0] for a, b in pairwise(ends)}) <= 1

    def fork(self, tensor: str) -> str:
        """Two ways that are joined one behind the other."""
        ways = [self.conv(tensor, 3, 3, relu=True), self.append(ReLU(name=self.new("relu"), inputs=(tensor,)))]
        if self.often(0.3):
            ways.append(self.conv(ways.pop(), 2, 1, relu=self.often()))
            ways.append(ways[0])
        return self.append(Concat(name=self.new("both"), inputs=tuple(ways)))

    def finished(self, tensor: str) -> Network:
        if self.often(0.7):
            tensor = self.append(AdaptiveAvgPool2d(name="average", inputs=(tensor,)))
        return self.finished_vector(self.append(Flatten(name="flat", inputs=(tensor,))))

    def hidden(self, tensor: str) -> str:
        """A linear layer that is normalised, and now and then added to another one."""
        features, size = self.shapes[tensor][0], int(self.rng.integers(1, 12))
        ways = []
        for _ in range(int(self.rng.integers(1, 3))):
            fields = {"in_features": features, "out_features": size, "bias": self.often(), "out_bits": WIDE_BITS}
            linear = Linear(name=self.new("hidden"), inputs=(tensor,), **fields)
            ways.append(self.norm(self.append(linear), relu=self.often()))
        return ways[0] if len(ways) == 1 else self.append(Add(name=self.new("add"), inputs=tuple(ways), relu=self.often()))

    def finished_vector(self, tensor: str) -> Network:
        tensor = self.hidden(tensor) if self.often(0.3) else tensor
        features = self.shapes[tensor][0]
        self.append(Linear(name="head", inputs=(tensor,), in_features=features, out_features=4, out_bits=16))
        return Network(self.name, self.shape, 6, tuple(self.layers))


def random_graph(seed: int) -> Network:
    """A few blocks of every kind, in random order."""
    drawn = Drawn(seed)
    first = int(drawn.rng.integers(5))
    tensor = INPUT
    if first == 0:
        tensor = drawn.norm(INPUT, relu=drawn.often())
    elif first == 1:
        tensor = drawn.pool(INPUT)
    tensor = drawn.conv_norm(tensor, int(drawn.rng.integers(1, 9)), 3, relu=True)
    for _ in range(int(drawn.rng.integers(1, 4))):
        make = [drawn.block, drawn.block, drawn.pool, drawn.fork][int(drawn.rng.integers(4))]
        tensor = make(tensor)
    return drawn.finished(tensor)


def prepared(
    network: Network, recipe: Recipe, batch: int, seed: int, density: float = 1.0, zero: bool = False
) -> tuple[State, dict, Batches]:
    """A calibrated state with random parameters and masks, and batches."""
    rng = np.random.default_rng([seed, 7])
    weights = {name: rng.normal(size=shape) * 0.4 for name, shape in network.parameters.items()}
    weights |= {layer.gamma: (0 if zero else 1) * (1 + weights[layer.gamma]) for layer in network.batch_norms}
    state = initial_state(network, weights, recipe)
    masks = {}
    for layer in network.mac_layers if density < 1 else ():
        name = f"{layer.name}.weight"
        masks[name] = rng.random(layer.weight_shape[:2]) < density
        state.parameters[name].prune(masks[name])
    batches = [
        (rng.integers(-127, 128, (batch, *network.input_shape)).astype(np.int8), rng.integers(0, network.classes, batch))
        for _ in range(STEPS)
    ]
    ReferenceExecutor(network, state, recipe, STEPS).calibrate(*batches[0])
    return state, masks, batches


def check_equal(
    network: Network,
    batch: int,
    seed: int,
    *,
    density: float = 1.0,
    recipe: Recipe | None = None,
    machine: Machine = MACHINE,
) -> None:
    """Two steps on the reference and on the functional simulator, with units in program order and in random order."""
    recipe = recipe or Recipe(learning_rate=0.05, error_rounding=Rounding.STOCHASTIC)
    state, masks, batches = prepared(network, recipe, batch, seed, density)
    program = compile_step(network, masks, machine, batch, recipe)
    copy = state_from_arrays(network, *state_to_arrays(state))
    subjects = [
        reference_subject(ReferenceExecutor(network, copy, recipe, STEPS)),
        functional_subject(FunctionalExecutor(program, state, STEPS)),
        functional_subject(FunctionalExecutor(program, state, STEPS, Order(seed=seed))),
    ]
    result = verify(network, subjects, batches)
    assert result.equal, str(result.first_mismatch)
    assert result.compared["running"] == 4 * STEPS * len(network.batch_norms)


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_train_with_the_same_bits(seed: int) -> None:
    batch = (1, 4, 6, 9)[seed % 4]
    check_equal(random_graph(seed), batch, seed, density=(1.0, 0.6)[seed % 2])


@pytest.mark.parametrize("machine", ["kcu1500-graph", "u280"])
def test_every_machine_with_the_unit_computes_the_same_bits(machine: str) -> None:
    check_equal(random_graph(1), 5, 1, machine=preset(machine))


def double() -> Network:
    """A tensor that is added to itself, one that two sums read, a bias whose errors nobody adds up on the way, pools of both kinds."""
    drawn = Drawn(5)
    drawn.shape = drawn.shapes[INPUT] = (2, 9, 9)
    first = drawn.conv(INPUT, 4, 3, relu=True, bias=True)
    pooled = drawn.append(SlidingMaxPool2d(name="pool", inputs=(first,), window=(3, 3), geometry=ConvGeometry((2, 2), (1, 1))))
    twice = drawn.append(Add(name="twice", inputs=(pooled, pooled)))
    second = drawn.conv(twice, 4, 3, relu=False, bias=True)
    both = drawn.append(Add(name="both", inputs=(second, twice), relu=True))
    small = drawn.append(MaxPool2d(name="small", inputs=(both,), window=(2, 2)))
    joined = drawn.append(Concat(name="joined", inputs=(small, small)))
    features = drawn.append(Flatten(name="features", inputs=(joined,)))
    hidden = Linear(name="hidden", inputs=(features,), in_features=drawn.shapes[features][0], out_features=7, out_bits=WIDE_BITS)
    return drawn.finished_vector(drawn.norm(drawn.append(hidden), relu=True))


@pytest.mark.parametrize("rounding", list(Rounding))
def test_tensors_that_are_read_twice(rounding: Rounding) -> None:
    check_equal(double(), 6, 5, recipe=Recipe(learning_rate=0.05, stored_bits=16, error_rounding=rounding, update_rounding=rounding))


def test_missing_waits_would_show_in_extreme_orders() -> None:
    network, recipe = random_graph(2), Recipe(learning_rate=0.05)
    state, masks, batches = prepared(network, recipe, 6, 2)
    program = compile_step(network, masks, MACHINE, 6, recipe)
    copy = state_from_arrays(network, *state_to_arrays(state))
    subjects = [reference_subject(ReferenceExecutor(network, copy, recipe, STEPS))]
    subjects += [functional_subject(FunctionalExecutor(program, state, STEPS, order)) for order in list(extreme_orders())[::5]]
    result = verify(network, subjects, batches[:1])
    assert result.equal, str(result.first_mismatch)


@pytest.mark.parametrize("seed", range(4))
def test_range_registers_are_stored_and_used_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With banks of 16 registers, many times a step; of whatever is measured nothing is lost or mixed."""
    for module in (register_banks, context):
        monkeypatch.setattr(module, "BANK", 16)
    network = random_graph(seed)
    numbers = register_banks.register_numbers(build_graph(network))
    assert max(numbers.values()) >= 16
    check_equal(network, 5, seed)
    program = compile_step(network, None, MACHINE, 5)
    assert len(program.positions["STATISTICS"]) == max(numbers.values()) // 16 + 1
    assert max(program.columns("POST")["statistics"]) < 16


def test_a_network_of_more_measurements_than_registers() -> None:
    b = NetworkBuilder("deep", (2, 4, 4), 6)
    tensor = b.conv_norm("conv", "norm", INPUT, 3, 3, relu=True)
    for block in range(18):
        inner = b.conv_norm(f"first{block}", f"norm_first{block}", tensor, 3, 1, relu=True)
        inner = b.conv_norm(f"second{block}", f"norm_second{block}", inner, 3, 3)
        tensor = b.add(f"add{block}", inner, tensor, relu=True)
    network = b.classifier("head", tensor, 3)
    numbers = register_banks.register_numbers(build_graph(network))
    assert len(numbers) > 256
    assert len(set(numbers.values())) == len(numbers)
    program = compile_step(network, None, MACHINE, 3)
    assert len(program.positions["STATISTICS"]) == 2
    check_equal(network, 3, 0)


@pytest.mark.parametrize("seed", [0, 2, 7])
def test_errors_share_memory_where_there_is_too_little(seed: int) -> None:
    """No error is overwritten before it has been read for the last time, in whatever order the units run."""
    network, batch = random_graph(seed), 9
    whole = compile_step(network, None, MACHINE, batch).layout.table
    assert not whole.shares_errors
    short = MACHINE.with_changes(memory=replace(MACHINE.memory, bytes_total=whole.bytes - 4096))
    program = compile_step(network, None, short, batch)
    assert program.layout.table.shares_errors
    assert program.layout.bytes <= short.memory.bytes_total
    recipe = program.recipe
    state, _, batches = prepared(network, recipe, batch, seed)
    copy = state_from_arrays(network, *state_to_arrays(state))
    subjects = [reference_subject(ReferenceExecutor(network, copy, recipe, STEPS))]
    orders = [None, Order(seed=seed), *list(extreme_orders())[::17]]
    subjects += [functional_subject(FunctionalExecutor(program, state, STEPS, order)) for order in orders]
    result = verify(network, subjects, batches[:1])
    assert result.equal, str(result.first_mismatch)


@pytest.mark.parametrize("seed", range(8))
def test_errors_that_share_memory_never_live_at_the_same_time(seed: int) -> None:
    graph = build_graph(random_graph(seed))
    lifetimes, sizes = error_lifetimes(graph), {item.name: item.words for item in graph.errors}
    assert lifetimes.keys() == sizes.keys()
    assert all(life.written < life.read for life in lifetimes.values())
    places = shared_places(lifetimes, sizes, 16)
    for one, other in combinations(sizes, 2):
        together = lifetimes[one].written <= lifetimes[other].read and lifetimes[other].written <= lifetimes[one].read
        apart = places[one] + sizes[one] <= places[other] or places[other] + sizes[other] <= places[one]
        assert apart or not together
    assert max(places[name] + sizes[name] for name in sizes) < sum(-(-size // 16) * 16 for size in sizes.values())


def test_factors_that_begin_at_zero() -> None:
    """As in residual networks whose last normalisation of each block is 0 at first: outputs and errors of zeros."""
    network = random_graph(3)
    recipe = Recipe(learning_rate=0.05)
    state, masks, batches = prepared(network, recipe, 6, 3, zero=True)
    program = compile_step(network, masks, MACHINE, 6, recipe)
    copy = state_from_arrays(network, *state_to_arrays(state))
    subjects = [
        reference_subject(ReferenceExecutor(network, copy, recipe, STEPS)),
        functional_subject(FunctionalExecutor(program, state, STEPS)),
    ]
    result = verify(network, subjects, batches)
    assert result.equal, str(result.first_mismatch)


def test_a_first_difference_names_the_instruction_that_wrote_it() -> None:
    network, recipe = random_graph(0), Recipe(learning_rate=0.05)
    state, masks, batches = prepared(network, recipe, 6, 0)
    program = compile_step(network, masks, MACHINE, 6, recipe)
    copy = state_from_arrays(network, *state_to_arrays(state))
    norm = network.batch_norms[0].name

    def step(x, labels):
        trace = reference.step(x, labels)
        trace.activations[norm] = trace.activations[norm] + 1
        return trace

    reference = ReferenceExecutor(network, copy, recipe, STEPS)
    wrong = replace(reference_subject(reference), step=step)
    found = verify(network, [wrong, functional_subject(FunctionalExecutor(program, state, STEPS))], batches).first_mismatch
    assert found is not None
    assert (found.layer, found.kind) == (norm, "activation")
    assert found.instruction is not None
    assert "ELEMENTWISE" in found.instruction


@pytest.mark.slow
def test_resnet20_trains_with_the_same_bits() -> None:
    check_equal(model("resnet20"), 1, 0, machine=preset("kcu1500-graph"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 40))
def test_more_random_graphs(seed: int) -> None:
    check_equal(random_graph(seed), (1, 4, 6, 9)[seed % 4], seed, density=(1.0, 0.6)[seed % 2])
