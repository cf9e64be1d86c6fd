"""The memory image: regions apart from each other, inside memory, aligned, and large enough for all that is written there."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fixgrad.compiler import compile_step
from fixgrad.compiler.layout import ALIGNMENT, MAP_ALIGNMENT, micro_batches
from fixgrad.machine import preset
from fixgrad.machine.instructions import INSTRUCTION_BYTES, STEP_ENTRY_BYTES
from fixgrad.network import Network, Recipe

RandomNetwork = Callable[[int], Network]


@pytest.mark.parametrize("seed", range(12))
def test_regions_are_apart_and_inside_memory(random_network: RandomNetwork, seed: int) -> None:
    mode: Any = ("train", "forward")[seed % 2]
    machine = preset(("tiny", "kcu1500", "ecp5-85f")[seed % 3])
    program = compile_step(random_network(seed), None, machine, 1 + 3 * seed, Recipe(stored_bits=(16, 24, 32)[seed % 3]), mode=mode)
    regions = sorted(program.layout.regions.values(), key=lambda region: region.address)
    for region in regions:
        assert region.bytes > 0
        aligned = MAP_ALIGNMENT if region.name.startswith(("activation/", "error/", "argmax/", "program")) else ALIGNMENT
        assert region.address % aligned == 0
    assert all(before.end <= after.address for before, after in pairwise(regions))
    assert regions[0].address >= 0
    assert regions[-1].end == program.layout.bytes <= machine.memory.bytes_total
    for region in regions:
        assert program.layout.table.region_at(region.address) == region
        assert program.layout.table.region_at(region.end - 1) == region
    assert program.layout.table.region_at(program.layout.bytes) is None


def test_regions_hold_what_they_say(random_network: RandomNetwork) -> None:
    network, machine, batch = random_network(4), preset("tiny"), 7
    live = np.random.default_rng(2).random(network.mac_layers[-1].weight_shape) < 0.5
    name = network.mac_layers[-1].name
    program = compile_step(network, {f"{name}.weight": live}, machine, batch, Recipe(stored_bits=24, momentum_bits=16))
    sizes = {region.name: region.bytes for region in program.layout.regions.values()}
    words = micro_batches(batch, machine.lanes) * machine.lanes
    kernels = int(live.sum())
    assert sizes[f"index/{name}"] == 2 * kernels
    assert sizes[f"operand/{name}"] == kernels
    assert sizes[f"stored/{name}"] == 3 * kernels
    assert sizes[f"momentum/{name}"] == 2 * kernels
    assert sizes[f"error/{name}"] == live.shape[0] * words
    assert sizes["labels"] == 2 * words
    assert sizes["program"] == INSTRUCTION_BYTES * len(program.instructions)
    assert sizes["step_table"] == STEP_ENTRY_BYTES * len(program.layout.table.entries)
    logits = next(item for item in sizes if item.startswith("activation/") and sizes[item] == 2 * live.shape[0] * words)
    assert name in logits


def test_a_forward_program_has_no_place_for_training(random_network: RandomNetwork) -> None:
    program = compile_step(random_network(4), None, preset("tiny"), 3, mode="forward")
    kinds = {name.partition("/")[0] for name in program.layout.regions}
    assert kinds == {"step_table", "activation", "index", "operand", "bias", "program"}
