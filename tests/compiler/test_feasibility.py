"""What does not fit is explained: always, by true numbers, and with remedies that work."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fixgrad.compiler import Infeasible, InfeasibleError, check, compile_step
from fixgrad.errors import FixgradError
from fixgrad.machine import PRESETS, Machine, preset
from fixgrad.network import INPUT, Conv2d, Flatten, Linear, MaxPool2d, Network, Recipe
from fixgrad.numbers.convolution import ConvGeometry

RandomNetwork = Callable[[int], Network]
TINY = preset("tiny")


def cramped(seed: int, bytes_total: int = 1 << 23) -> Machine:
    """A machine of random sizes, most of them very small."""
    rng = np.random.default_rng([seed, 12])
    groups = int(rng.choice([1, 2, 4]))
    sizes = {name: int(2 ** rng.integers(4, 8)) for name in ("input_words", "lane_words", "kernel_words", "param_words")}
    return TINY.with_changes(
        groups=groups,
        pes_per_group=int(rng.choice([1, 2, 4])),
        gradient_words=int(2 ** rng.integers(5, 9)),
        memory=replace(TINY.memory, bytes_total=bytes_total),
        **sizes,
    )


def with_memory(machine: Machine, size: int) -> Machine:
    return machine.with_changes(memory=replace(machine.memory, bytes_total=size))


def one_convolution(kernel: int, window: int = 1, size: int = 30) -> Network:
    geometry = ConvGeometry(padding=(kernel // 2, kernel // 2))
    conv = Conv2d(name="conv", inputs=(INPUT,), in_channels=2, filters=3, kernel=(kernel, kernel), geometry=geometry)
    side = conv.output_shape((2, size, size))[1] // window
    pool = (MaxPool2d(name="pool", inputs=("conv",), window=(window, window)),) if window > 1 else ()
    flat = Flatten(name="flat", inputs=("pool" if pool else "conv",))
    head = Linear(name="head", inputs=("flat",), in_features=3 * side * side, out_features=4, out_bits=16)
    return Network("one", (2, size, size), 6, (conv, *pool, flat, head))


def remedy(reasons: Iterable[Infeasible], pattern: str) -> str:
    """What the brackets of `pattern` match in the first remedy that it fits."""
    matches = (re.fullmatch(pattern, text) for item in reasons for text in item.remedies)
    return next(match.group(1) for match in matches if match)


@pytest.mark.parametrize("seed", range(24))
def test_there_is_a_reason_exactly_where_compiling_fails(random_network: RandomNetwork, seed: int) -> None:
    network, machine = random_network(seed), cramped(seed, 1 << (15 + seed % 8))
    mode: Any = ("train", "forward")[seed % 2]
    reasons = check(network, machine, 5, mode=mode)
    if not reasons:
        assert compile_step(network, None, machine, 5, mode=mode).layout.bytes <= machine.memory.bytes_total
        return
    with pytest.raises(InfeasibleError) as caught:
        compile_step(network, None, machine, 5, mode=mode)
    assert list(caught.value.reasons) == reasons
    assert isinstance(caught.value, FixgradError)
    names = {network.name, *(layer.name for layer in network)}
    for reason in reasons:
        assert reason.layer in names
        assert reason.needed > reason.available >= 0
        assert reason.remedies
        assert str(reason) in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_deeper_memories_make_a_layer_fit(random_network: RandomNetwork, seed: int) -> None:
    network, machine = random_network(seed), cramped(seed, 1 << 40)
    reasons = check(network, machine, 3)
    depths = dict[str, int]()
    for reason in reasons:
        name, value = re.fullmatch(r"(\w+) of (\d+)", reason.remedies[0]).groups()  # type: ignore[union-attr]
        depths[name] = max(depths.get(name, 0), int(value))
    if depths:
        assert check(network, machine.with_changes(**depths), 3) == []
        for name in depths:
            halved = {other: depth // 2 if other == name else depth for other, depth in depths.items()}
            assert check(network, machine.with_changes(**halved), 3), f"{name} of {depths[name]} is more than is needed"


def test_some_of_those_machines_were_too_small(random_network: RandomNetwork) -> None:
    found = [reason for seed in range(40) for reason in check(random_network(seed), cramped(seed, 1 << 40), 3)]
    short = {text.partition(" ")[0] for reason in found for text in reason.remedies}
    assert {"input_words", "lane_words", "gradient_words"} <= short


def test_each_memory_of_a_tile_is_named() -> None:
    wide = one_convolution(15)
    queues = [item for item in check(wide, TINY.with_changes(kernel_words=16), 2) if "queue" in item.what]
    (queue,) = queues  # WG takes coordinates alone
    assert (queue.layer, queue.phase, queue.needed, queue.available) == ("conv", "ff", 225 // 9 + 1, 16)
    assert queue.remedies[0] == "kernel_words of 32"
    (gradients,) = [item for item in check(wide, TINY, 2) if item.what == "gradients of one kernel"]
    assert (gradients.layer, gradients.phase, gradients.needed, gradients.available) == ("conv", "wg", 225, 128)
    assert gradients.remedies[0] == "gradient_words of 512"
    assert gradients.remedies[-1] == "machine kcu1500"
    pooled = check(one_convolution(3, window=7), TINY.with_changes(lane_words=16), 2)
    (lanes,) = [item for item in pooled if item.what == "accumulators in half of a lane memory"]
    assert "a smaller pooling window" in lanes.remedies


def test_a_named_preset_fits() -> None:
    reasons = check(one_convolution(15), TINY, 2)
    assert check(one_convolution(15), PRESETS[remedy(reasons, r"machine (.*)")], 2) == []


def test_remedies_for_memory_work() -> None:
    network = one_convolution(3, size=9)
    whole = compile_step(network, None, TINY, 40).layout.bytes
    board = with_memory(TINY, whole * 2 // 3)
    reasons = check(network, board, 40)
    (reason,) = reasons
    assert (reason.layer, reason.phase, reason.available) == (network.name, "memory", board.memory.bytes_total)
    batch = int(remedy(reasons, r"a batch of at most (\d+)"))
    assert 0 < batch < 40
    assert check(network, board, batch) == []
    larger = with_memory(board, int(remedy(reasons, r"memory.bytes_total of (\d+)")))
    assert check(network, larger, 40) == []
    assert check(network, PRESETS[remedy(reasons, r"machine (.*)")], 40) == []


def many_weights() -> Network:
    layers = (
        Flatten(name="flat", inputs=(INPUT,)),
        Linear(name="a", inputs=("flat",), in_features=64, out_features=4000, relu=True),
        Linear(name="head", inputs=("a",), in_features=4000, out_features=10, out_bits=16),
    )
    return Network("wide", (64, 1, 1), 6, layers)


def test_pruning_and_narrower_weights_make_room() -> None:
    network, machine = many_weights(), preset("kcu1500")
    recipe = Recipe(stored_bits=32)
    whole = compile_step(network, None, machine, 8, recipe).layout.bytes
    reasons = check(network, with_memory(machine, whole - whole // 20), 8, recipe=recipe)
    assert check(network, with_memory(machine, whole - whole // 20), 8, recipe=Recipe(stored_bits=16)) == []
    assert remedy(reasons, r"(16) stored bits") == "16"
    smaller = with_memory(machine, whole * 4 // 5)
    share = float(remedy(check(network, smaller, 8, recipe=recipe), r"keeping at most ([\d.]+) % of .*")) / 100
    assert 0.1 < share < 0.8
    rng = np.random.default_rng(0)
    masks = {f"{layer.name}.weight": rng.random(layer.weight_shape) < 0.95 * share for layer in network.mac_layers}
    assert check(network, smaller, 8, masks, recipe) == []


def test_the_limits_of_the_instructions_are_named() -> None:
    kcu1500 = preset("kcu1500")
    (reason,) = check(one_convolution(1, size=4), kcu1500, 70_000)
    assert (reason.phase, reason.what, reason.needed, reason.available) == ("program", "images of a batch", 70_000, 65_535)
    assert reason.remedies == ("a smaller batch: at most 65,535",)
    (wide,) = check(one_convolution(3, size=1024), kcu1500, 1)
    assert (wide.layer, wide.what, wide.available) == ("conv", "pixels along an edge", 1023)


def test_the_program_itself_needs_room() -> None:
    network = one_convolution(3, size=9)
    program = compile_step(network, None, TINY, 6)
    exact = with_memory(TINY, program.layout.bytes)
    assert check(network, exact, 6) == []
    (reason,) = check(network, with_memory(TINY, program.layout.bytes - 1), 6)
    assert (reason.phase, reason.needed) == ("memory", program.layout.bytes)


@pytest.mark.parametrize("optimiser", ["adam", "adamw"])
def test_an_optimiser_that_the_update_unit_does_not_know_is_named(optimiser: str) -> None:
    network, recipe = one_convolution(3, size=9), Recipe(optimiser=optimiser)
    (reason,) = check(network, TINY, 6, recipe=recipe)
    assert (reason.layer, reason.phase, reason.needed, reason.available) == (network.name, "update", 2, 1)
    assert str(reason) == (
        f"{network.name} (update) needs 2 moments of a weight for {optimiser}, available are 1: momentum SGD (--optimizer sgd)"
    )
    with pytest.raises(InfeasibleError) as caught:
        compile_step(network, None, TINY, 6, recipe)
    assert caught.value.reasons == (reason,)
    assert check(network, TINY, 6, recipe=recipe, mode="forward") == []
    assert compile_step(network, None, TINY, 6, recipe, mode="forward").recipe == recipe
