"""A lane: every product, accumulation with memory, 32-bit overflow; the adder tree; a gradient's overflow."""

from collections.abc import Callable
from itertools import product
from random import Random
from typing import Any

import pytest

from fixgrad.gateware.pe.gradients import GradientMemory
from fixgrad.gateware.pe.lane import ACCUMULATE_CYCLE, OPERAND_CYCLE, Lane
from fixgrad.gateware.pe.lane_sum import LaneSum
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.machine.presets import FORMAL, TINY

SHAPE = PeShape.of(TINY)


def test_products_of_corner_codes_accumulate(simulate: Callable[..., None]) -> None:
    """A product a cycle; the register holds their sum three cycles after the operands."""
    dut = Lane(SHAPE)
    codes = [-128, -127, -64, -1, 0, 1, 63, 126, 127]
    pairs, totals = list(product(codes, repeat=2)), []

    async def bench(ctx: Any) -> None:
        for x, weight in [*pairs, (0, 0), (0, 0), (0, 0)]:
            ctx.set(dut.x, x)
            ctx.set(dut.weight, weight)
            ctx.set(dut.accumulate, 1)
            totals.append(ctx.get(dut.accumulator))
            await ctx.tick()

    simulate(dut, bench)
    delay = ACCUMULATE_CYCLE - OPERAND_CYCLE + 1
    expected = [sum(x * w for x, w in pairs[:count]) for count in range(1, len(pairs) + 1)]
    assert totals[delay:] == expected


def test_first_takes_the_accumulator_from_memory(simulate: Callable[..., None]) -> None:
    """Stored words come back with their sign; zeros where the PE says so; the register where it is not the first."""
    dut = Lane(SHAPE)

    async def bench(ctx: Any) -> None:
        for address, value in ((3, -1234567), (4, (1 << 31) - 1), (5, -(1 << 31))):
            ctx.set(dut.accumulator, value)
            ctx.set(dut.write_address, address)
            ctx.set(dut.store, 1)
            assert not ctx.get(dut.overflow)
            await ctx.tick()
        ctx.set(dut.store, 0)
        ctx.set(dut.accumulator, 99)
        for address, zero, first, expected in (
            (3, 0, 1, -1234567),
            (4, 0, 1, (1 << 31) - 1),
            (5, 0, 1, -(1 << 31)),
            (3, 1, 1, 0),
            (3, 0, 0, 0),
        ):
            ctx.set(dut.read_address, address)
            ctx.set(dut.read_zero, zero)
            await ctx.tick()
            ctx.set(dut.accumulate, 1)
            ctx.set(dut.first, first)
            await ctx.tick()
            ctx.set(dut.accumulate, 0)
            assert ctx.get(dut.accumulator) == expected

    simulate(dut, bench)


@pytest.mark.parametrize(
    ("value", "wraps"),
    [((1 << 31) - 1, 0), (1 << 31, 1), (-(1 << 31), 0), (-(1 << 31) - 1, 1), ((1 << 31) + 4_000_000, 1), (0, 0), (-1, 0)],
)
def test_overflow_is_beyond_32_bits(simulate: Callable[..., None], value: int, wraps: int) -> None:
    dut = Lane(SHAPE)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.accumulator, value)
        assert ctx.get(dut.overflow) == wraps

    simulate(dut, bench)


def test_the_register_holds_any_word_and_a_pixels_taps() -> None:
    """225 products of at most 2**14 on top of any 32-bit word, and any tap's sum over the lane memory and the lanes."""
    for machine in (TINY, FORMAL):
        shape = PeShape.of(machine)
        assert 1 << (shape.accumulator_bits - 1) > (1 << 31) + 225 * (1 << 14)
        assert 1 << (shape.sum_bits - 1) > machine.lanes * (1 << 14)
        assert 1 << (shape.tap_sum_bits - 1) > machine.lane_words * machine.lanes * (1 << 14)


def test_an_error_keeps_its_sign(simulate: Callable[..., None]) -> None:
    """WG multiplies by the low byte of the lane's memory, whatever the rest of the word is."""
    dut, found = Lane(SHAPE), []
    errors = [-128, -127, -1, 0, 1, 127]

    async def bench(ctx: Any) -> None:
        ctx.set(dut.accumulator, 0x55555555)
        ctx.set(dut.store, 1)
        for address in range(len(errors)):
            ctx.set(dut.write_address, address)
            await ctx.tick()
        ctx.set(dut.store, 0)
        ctx.set(dut.store_error, 1)
        for address, error in enumerate(errors):
            ctx.set(dut.write_address, address)
            ctx.set(dut.error, error & 255)
            await ctx.tick()
        ctx.set(dut.store_error, 0)
        ctx.set(dut.use_error, 1)
        ctx.set(dut.accumulate, 1)
        ctx.set(dut.x, 100)
        for address in range(len(errors)):
            ctx.set(dut.read_address, address)
            await ctx.tick().repeat(5)
            before = ctx.get(dut.accumulator)
            await ctx.tick()
            found.append(ctx.get(dut.accumulator) - before)

    simulate(dut, bench)
    assert found == [100 * error for error in errors]


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 8, 32])
def test_the_adder_tree(simulate: Callable[..., None], lanes: int) -> None:
    """Any number of lanes, a sum a cycle, modulo its width."""
    shape = PeShape.of(TINY.with_changes(lanes=lanes))
    random, dut, found = Random(lanes), LaneSum(shape), []
    rows = [[random.getrandbits(shape.sum_bits) for _ in range(lanes)] for _ in range(20)]

    async def bench(ctx: Any) -> None:
        for row in [*rows, *[[0] * lanes] * LaneSum.LATENCY]:
            for port, value in zip(dut.values, row, strict=True):
                ctx.set(port, value)
            found.append(ctx.get(dut.total))
            await ctx.tick()

    simulate(dut, bench)
    assert found[LaneSum.LATENCY :] == [sum(row) % (1 << shape.sum_bits) for row in rows]


def test_gradients_add_up_and_say_that_they_left_32_bits(simulate: Callable[..., None]) -> None:
    """Differences of running totals, modulo their width, a few for each tap, onto a word that goes beyond 32 bits."""
    dut, random = GradientMemory(SHAPE), Random(3)
    most = SHAPE.lanes << 14
    taps = [[-5], [most, -most, 7], [-most] * 3, [random.randint(-most, most) for _ in range(9)]]
    taps += [[most] * SHAPE.lane_words] * ((1 << 31) // (most * SHAPE.lane_words) + 2)
    word, total, overflows = 0, 12345, []

    async def bench(ctx: Any) -> None:
        nonlocal word, total
        ctx.set(dut.read_address, 7)
        ctx.set(dut.write_address, 7)
        ctx.set(dut.total, total)
        await ctx.tick()
        ctx.set(dut.begin, 1)
        await ctx.tick()
        ctx.set(dut.begin, 0)
        for number, tap in enumerate(taps):
            ctx.set(dut.read_zero, number == 0)
            for count, difference in enumerate(tap):
                await ctx.tick()
                total = (total + difference) % (1 << SHAPE.sum_bits)
                ctx.set(dut.total, total)
                ctx.set(dut.add, count == len(tap) - 1)
            await ctx.tick()
            ctx.set(dut.add, 0)
            exact = word + sum(tap)
            word = (exact + (1 << 31)) % (1 << 32) - (1 << 31)
            overflows.append(ctx.get(dut.overflow))
            assert overflows[-1] == (word != exact)
            await ctx.tick().repeat(2)
        ctx.set(dut.read_zero, 0)
        await ctx.tick()
        assert ctx.get(dut.read_data) == word % (1 << 32)

    simulate(dut, bench, limit=100_000)
    assert 1 in overflows
