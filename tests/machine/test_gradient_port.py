"""What WG and UPDATE cost each other at a gradient memory, against the port cycle by cycle."""

import numpy as np
import pytest

from fixgrad.machine.gradient_port import GRADIENTS_IN_A_ROW, gradient_holds


def rates(tap: int, cycles: int = 60_000) -> tuple[float, float]:
    """Cycles that a PE loses, and that UPDATE rests, for each gradient taken. Every `tap`-th step reads a gradient."""
    step, wanted, in_a_row, taken, steps = 0, False, 0, 0, 0
    for _ in range(cycles):
        rests = wanted and in_a_row >= GRADIENTS_IN_A_ROW
        in_a_row = 0 if rests else in_a_row + 1
        taken += not rests
        held = step == tap - 1 and not rests
        wanted = held and tap > 1  # a register between the PE and UPDATE
        if not held:
            step, steps = (step + 1) % tap, steps + 1
    return (cycles - steps) / taken, (cycles - taken) / taken


@pytest.mark.parametrize("tap", [1, 2, 3, 4, 5, 9, 16, 64])
def test_one_pe_or_several_that_keep_step(tap: int) -> None:
    found = gradient_holds(np.array(float(tap)), np.array(1))
    compute, update = rates(tap)
    assert float(found.compute) == pytest.approx(compute, abs=2e-3)
    assert float(found.update) == pytest.approx(update, abs=2e-3)


def test_pes_apart_rest_more_often_but_never_in_a_row() -> None:
    taps = np.array([2.0, 4.0, 16.0, 64.0])
    one, four = (gradient_holds(taps, np.array(apart)) for apart in (1, 4))
    assert (four.update >= one.update).all()
    assert (four.update <= 1 / GRADIENTS_IN_A_ROW + 1e-12).all()
