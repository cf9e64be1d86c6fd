"""The serial divider equals Python's division."""

from itertools import product

from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from fixgrad.gateware.arithmetic.divider import Divider


def divide(dut: Divider, cases: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Quotients and remainders; each division begins in the cycle in which the one before is done."""
    found: list[tuple[int, int]] = []

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        for dividend, divisor in cases:
            ctx.set(dut.dividend, dividend)
            ctx.set(dut.divisor, divisor)
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            for _ in range(dut.latency - 1):
                assert not ctx.get(dut.done)
                await ctx.tick()
            assert ctx.get(dut.done)
            found.append((ctx.get(dut.quotient), ctx.get(dut.remainder)))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def test_every_division_of_small_numbers() -> None:
    cases = [(n, d) for n, d in product(range(64), range(1, 8)) if n // d < 8]
    assert divide(Divider(3, 3), cases) == [divmod(n, d) for n, d in cases]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(1, 2**28 - 1), st.integers(0, 2**28 - 1)), max_size=6))
def test_wide_numbers(parts: list[tuple[int, int, int]]) -> None:
    cases = [(quotient * divisor + rest % divisor, divisor) for quotient, divisor, rest in parts]
    assert divide(Divider(16, 28), cases) == [divmod(n, d) for n, d in cases]


def test_division_by_zero_ends() -> None:
    assert len(divide(Divider(4, 4), [(9, 0), (9, 2)])) == 2
    assert divide(Divider(4, 4), [(9, 0), (9, 2)])[1] == (4, 1)
