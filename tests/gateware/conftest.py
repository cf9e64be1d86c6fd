"""Runs of a component in Amaranth's simulator, for the tests of all blocks."""

from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator

Testbench = Callable[[Any], Any]


@pytest.fixture(scope="session")
def simulate() -> Callable[..., None]:
    """simulate(component, bench, *others, limit=...): until `bench` ends; the others stop then. Fails after `limit` cycles."""

    def run(component: Any, bench: Testbench, *others: Testbench, limit: int = 20_000) -> None:
        simulator = Simulator(component)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        for other in others:
            simulator.add_testbench(other, background=True)
        edges = 0
        while simulator.advance():
            edges += 1
            assert edges <= 2 * limit, f"no end after {limit} cycles"

    return run
