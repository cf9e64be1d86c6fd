"""Evaluation of combinational logic on many values."""

from collections.abc import Callable, Iterable, Sequence

import pytest
from amaranth.hdl import Module, Shape, Signal, Value
from amaranth.sim import Simulator

Build = Callable[..., Value]
Evaluate = Callable[[Build, Sequence[Shape], Iterable[tuple[int, ...]]], list[int]]


@pytest.fixture
def evaluate() -> Evaluate:
    """evaluate(build, shapes, cases): the value of build(*signals) for each case of inputs."""

    def run(build: Build, shapes: Sequence[Shape], cases: Iterable[tuple[int, ...]]) -> list[int]:
        m = Module()
        inputs = [Signal(shape, name=f"input_{number}") for number, shape in enumerate(shapes)]
        result = build(*inputs)
        output = Signal(result.shape())
        m.d.comb += output.eq(result)
        found: list[int] = []

        async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
            for case in cases:
                for signal, value in zip(inputs, case, strict=True):
                    ctx.set(signal, value)
                found.append(ctx.get(output))

        simulator = Simulator(m)
        simulator.add_testbench(bench)
        simulator.run()
        return found

    return run
