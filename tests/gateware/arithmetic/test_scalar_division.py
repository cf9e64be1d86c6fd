"""Division and root of single numbers: every value at small widths, random ones at the widths of the elementwise unit."""

import math
from collections.abc import Callable
from itertools import product
from random import Random
from typing import Any

from fixgrad.gateware.arithmetic.scalar_division import ShortDivider, SquareRoot


def quotients(simulate: Callable[..., None], widths: tuple[int, int], cases: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(quotient, cycles) of each."""
    dut, found = ShortDivider(*widths), []

    async def bench(ctx: Any) -> None:
        for dividend, divisor in cases:
            ctx.set(dut.dividend, dividend)
            ctx.set(dut.divisor, divisor)
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            cycles = 1
            while not ctx.get(dut.done):
                cycles += 1
                await ctx.tick()
            found.append((ctx.get(dut.quotient), cycles))

    simulate(dut, bench, limit=2_000_000)
    return found


def test_every_quotient_of_six_by_four_bits(simulate: Callable[..., None]) -> None:
    cases = list(product(range(64), range(1, 16)))
    found = quotients(simulate, (6, 4), cases)
    assert [quotient for quotient, _ in found] == [dividend // divisor for dividend, divisor in cases]
    assert max(cycles for _, cycles in found) <= 3 + 6 // 2


def test_wide_quotients_and_their_time(simulate: Callable[..., None]) -> None:
    random = Random(4)
    cases = [(random.getrandbits(random.randint(0, 63)), 1 + random.getrandbits(random.randint(0, 42))) for _ in range(400)]
    cases += [((1 << 63) - 1, 1), (0, 1), ((1 << 63) - 1, (1 << 43) - 1), (1 << 40, (1 << 24) - 1)]
    found = quotients(simulate, (63, 43), cases)
    for (dividend, divisor), (quotient, cycles) in zip(cases, found, strict=True):
        assert quotient == dividend // divisor
        assert cycles <= 4 + (max(dividend.bit_length() - divisor.bit_length(), 0) + 1) / 2


def roots(simulate: Callable[..., None], bits: int, values: list[int]) -> list[int]:
    dut, found = SquareRoot(bits), []

    async def bench(ctx: Any) -> None:
        for value in values:
            ctx.set(dut.value, value)
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            for _ in range(bits // 2):
                assert not ctx.get(dut.done)
                await ctx.tick()
            assert ctx.get(dut.done)
            found.append(ctx.get(dut.root))

    simulate(dut, bench, limit=2_000_000)
    return found


def test_every_root_of_ten_bits(simulate: Callable[..., None]) -> None:
    assert roots(simulate, 10, list(range(1024))) == [math.isqrt(value) for value in range(1024)]


def test_wide_roots_at_squares(simulate: Callable[..., None]) -> None:
    random = Random(5)
    squares = [random.getrandbits(24) ** 2 for _ in range(60)] + [((1 << 24) - 1) ** 2, 1 << 46]
    values = [max(square + step, 0) for square in squares for step in (-1, 0, 1)] + [(1 << 48) - 1]
    assert roots(simulate, 48, values) == [math.isqrt(value) for value in values]
