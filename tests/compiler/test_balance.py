"""The order of channels: a permutation that balances the queues of all phases, and through it the kernels of each COMPUTE."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fixgrad.compiler import Program, compile_step
from fixgrad.compiler.balance import Deal, _snake, balanced_order
from fixgrad.machine import preset
from fixgrad.network.models import model
from fixgrad.simulate.bounds import random_masks

Ints = NDArray[Any]


def deviation(deal: Deal, order: Ints) -> float:
    """Squared deviations of the cells from the mean of their tile, in units of the mean cell."""
    cell = deal.cells()
    loads = np.bincount(cell, deal.loads[order]) / max(float(deal.loads.mean()), 1e-9) / deal.channels
    total = 0.0
    for first in range(0, len(loads), deal.queues):
        tile = loads[first : first + deal.queues]
        # A tile that is not full has queues without channels: the balance asks only that its mean be met.
        total += float((tile**2).sum() - tile.sum() ** 2 / deal.queues)
    return total


@st.composite
def deals(draw: st.DrawFn) -> list[Deal]:
    count = draw(st.integers(1, 60))

    def one() -> Deal:
        loads = draw(st.lists(st.integers(0, 40), min_size=count, max_size=count))
        return Deal(np.array(loads, np.float64), draw(st.integers(1, 9)), draw(st.integers(1, 8)))

    return [one() for _ in range(draw(st.integers(1, 3)))]


@settings(max_examples=150, deadline=None)
@given(deals())
def test_every_channel_has_one_place(found: list[Deal]) -> None:
    order = balanced_order(found)
    assert sorted(order.tolist()) == list(range(len(order)))
    assert np.array_equal(balanced_order(found), order)


def total(found: list[Deal], order: Ints) -> float:
    return sum(deviation(deal, order) for deal in found if -(-len(deal.loads) // deal.channels) > 1 and np.ptp(deal.loads))


@settings(max_examples=80, deadline=None)
@given(deals())
def test_swapping_never_makes_it_worse_than_dealing_out(found: list[Deal]) -> None:
    assert total(found, balanced_order(found)) <= total(found, _snake(found[0])) + 1e-6


def test_swaps_that_undo_each_other_are_not_made_together() -> None:
    """Two single channels that should share a tile of two queues."""
    loads = np.array([0, 0, 0, 1, 0, 1], np.float64)
    found = [Deal(np.zeros(6), channels=1, queues=1), Deal(loads, channels=1, queues=2)]
    assert total(found, balanced_order(found)) == pytest.approx(0)


@pytest.mark.parametrize("seed", range(6))
def test_no_swap_of_two_channels_helps_any_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = ((3, 4), (2, 8), (6, 2))
    found = [Deal(rng.binomial(40, 0.4, 24).astype(np.float64), channels, queues) for channels, queues in sizes]
    order = balanced_order(found)
    least = total(found, order)
    for a, b in combinations(range(24), 2):
        swapped = order.copy()
        swapped[[a, b]] = swapped[[b, a]]
        assert total(found, swapped) >= least - 1e-6


def test_loads_that_can_be_equal_are() -> None:
    """Eight queues of four channels each, from loads that pair up."""
    loads = np.array([*range(16), *reversed(range(16))], np.float64)
    deal = Deal(loads, channels=4, queues=8)
    cells = np.bincount(deal.cells(), loads[balanced_order([deal])])
    assert cells.tolist() == [loads.sum() / 8] * 8


def program(density: float, machine: str = "kcu1500") -> Program:
    network = model("digits")
    masks = random_masks(network, {layer.name: density for layer in network.mac_layers}, 5)
    return compile_step(network, {f"{name}.weight": mask for name, mask in masks.items()}, preset(machine), 32)


@pytest.mark.parametrize("density", [0.3, 1.0])
def test_each_phase_computes_every_live_kernel_as_often_as_it_has_tiles(density: float) -> None:
    found = program(density)
    labels = [found.labels[index] for index in found.positions["COMPUTE"]]
    for phase in found.schedule.phases:
        stage = next(stage for stage in found.layout.stages if stage.name == phase.layer)
        rows, columns = ((axis.in_size if phase.phase == "ng" else axis.out_size) for axis in (stage.rows, stage.columns))
        tiles = -(-rows // phase.tiling.rows) * -(-columns // phase.tiling.columns)
        mine = [number for number, label in enumerate(labels) if (label.layer, label.phase) == (phase.layer, phase.phase)]
        pes = found.machine.pes_per_group // phase.tiling.split.channels  # that share a kernel
        kernels = found.kernel_counts[mine].sum() / pes
        live = int(found.masks[f"{phase.layer}.weight"].sum()) if f"{phase.layer}.weight" in found.masks else None
        expected = live if live is not None else int(np.prod(stage.layer.weight_shape[:2]))
        assert kernels == tiles * expected, phase


def test_the_queues_of_a_layer_are_balanced() -> None:
    """All COMPUTEs of a layer and phase together: no group has a fifth more kernels than the mean of the groups."""
    found = program(0.35)
    labels = [found.labels[index] for index in found.positions["COMPUTE"]]
    for layer in ("conv2", "conv3"):
        for phase in ("ff", "ng", "wg"):
            mine = [number for number, label in enumerate(labels) if (label.layer, label.phase) == (layer, phase)]
            groups = found.kernel_counts[mine].sum(axis=(0, 2))
            assert groups.max() <= 1.2 * groups.mean(), (layer, phase, groups)


def test_inputs_and_logits_keep_their_order() -> None:
    orders = program(0.4).layout.table.orders
    names = list(orders)
    for name in (names[0], names[1]):  # the network's input and its logits
        assert np.array_equal(orders[name], np.arange(len(orders[name])))
    for order in orders.values():
        assert sorted(order.tolist()) == list(range(len(order)))
    assert any(not np.array_equal(order, np.arange(len(order))) for order in orders.values())
