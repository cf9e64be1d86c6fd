"""The bits do not depend on the pace of the units, as long as the waits are kept; without a wait they do."""

from typing import Any

import numpy as np
import pytest

from fixgrad.machine.instructions import Unit
from fixgrad.simulate.functional import IllegalInstruction, Order, extreme_orders

WAITS = ("wait_load", "wait_compute", "wait_post", "wait_update")


def test_extreme_orders_are_all_of_them() -> None:
    orders = list(extreme_orders())
    assert len(orders) == len({(tuple(order.units), order.groups) for order in orders}) == 48


def test_a_unit_that_is_urgent_goes_first() -> None:
    ready = [(Unit.LOAD, 0), (Unit.COMPUTE, 0), (Unit.COMPUTE, 1)]
    units = (Unit.COMPUTE, Unit.LOAD, Unit.POST, Unit.UPDATE)
    assert Order(units, "first").choose(ready) == (Unit.COMPUTE, 0)
    assert Order(units, "last").choose(ready) == (Unit.COMPUTE, 1)
    assert Order((Unit.LOAD, *units[2:], Unit.COMPUTE)).choose(ready) == (Unit.LOAD, 0)
    assert {Order(seed=seed).choose(ready) for seed in range(30)} == set(ready)


def test_extreme_orders_give_the_same_bits(step: Any) -> None:
    expected = step.memory_after()
    assert not np.array_equal(expected, step.image[: len(expected)])
    for order in extreme_orders():
        assert np.array_equal(step.memory_after(order=order), expected), order


@pytest.mark.parametrize("seed", range(6))
def test_random_orders_give_the_same_bits(step: Any, seed: int) -> None:
    assert np.array_equal(step.memory_after(order=Order(seed=seed)), step.memory_after())


def is_noticed(step: Any, index: int, wait: str) -> bool:
    """Whether an instruction that no longer waits for a unit gives other bits, or a fault, in some order."""
    instructions = step.changed(index, **{wait: 0})
    expected = step.memory_after()
    waited_for = Unit(wait.removeprefix("wait_"))
    own = step.program.instructions[index].unit
    others = [unit for unit in (Unit.LOAD, Unit.COMPUTE, Unit.POST, Unit.UPDATE) if unit not in (waited_for, own)]
    for groups in ("first", "last"):
        try:
            after = step.memory_after(instructions, Order((own, *others, waited_for), groups))
        except IllegalInstruction:
            return True
        if not np.array_equal(after, expected):
            return True
    return False


@pytest.mark.parametrize("wait", WAITS)
def test_most_waits_that_are_missing_are_noticed(step: Any, wait: str) -> None:
    """Not all: an instruction may wait for what one before it on its own unit has waited for already.

    A COMPUTE that waits for a COMPUTE is left out: it keeps the groups together, and each group executes in order anyway.
    """
    own = wait.removeprefix("wait_")
    items = step.program.instructions
    waiting = [index for index, item in enumerate(items) if getattr(item, wait) and item.name != "HALT" and item.unit.value != own]
    assert waiting, f"no instruction has a {wait}: the network is too small"
    first = [index for index in waiting if is_first_of_its_count(step, index, wait)]
    picked = first[:: max(1, len(first) // 8)]
    noticed = [index for index in picked if is_noticed(step, index, wait)]
    assert 2 * len(noticed) > len(picked), (wait, picked, noticed)


def is_first_of_its_count(step: Any, index: int, wait: str) -> bool:
    """Whether nothing before it on its unit has waited for as many completions."""
    instructions = step.program.instructions
    mine = instructions[index]
    return all(getattr(item, wait) < getattr(mine, wait) for item in instructions[:index] if item.unit is mine.unit)


def test_an_instruction_that_waits_for_itself_is_named(step: Any) -> None:
    index = step.first("COMPUTE")
    instructions = step.changed(index, wait_compute=5)
    for order in (None, Order(seed=1)):
        with pytest.raises(IllegalInstruction, match="it waits for instructions") as caught:
            step.memory_after(instructions, order)
        assert caught.value.index == index
        assert caught.value.text.startswith("COMPUTE")
