"""Blocks of the elementwise unit by themselves: places of taps, runs of words, a lane."""

from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest

from fixgrad.gateware.elementwise.axis import AxisWalk
from fixgrad.gateware.elementwise.lane import ACCUMULATOR_CYCLE, PRODUCT_CYCLE, ElementwiseLane
from fixgrad.gateware.elementwise.operand_reader import RUN_WORDS, Runs
from fixgrad.machine import preset
from fixgrad.machine.elementwise_instructions import ERRORS_OF_MAXIMA, MAXIMUM, SUM
from fixgrad.numbers import saturate, shift_nearest
from fixgrad.simulate.functional.elementwise import Axis

MACHINE = preset("tiny-graph")


def an_axis(random: Random) -> Axis:
    transposed = bool(random.randrange(2))
    stride, pad = random.choice((1, 1, 2, 3, 7, 1023)), random.choice((0, 0, 1, 2, 9, 1023))
    return Axis(random.randint(1, 9), random.randint(1, 9), random.randint(1, 6), stride, pad, transposed)


def moves_of(axis: Axis) -> dict[str, Any]:
    """The fields of AXIS, as setup makes them."""
    if axis.transposed:
        whole, rest = divmod(axis.pad, axis.stride)
        moves = {
            "start": {"whole": whole, "rest": rest},
            "by_pixel": {"whole": int(axis.stride == 1), "rest": int(axis.stride != 1)},
            "modulus": axis.stride,
            "tap_step": axis.stride,
            "backward": 1,
        }
    else:
        moves = {
            "start": {"whole": -axis.pad, "rest": 0},
            "by_pixel": {"whole": axis.stride, "rest": 0},
            "modulus": 1,
            "tap_step": 1,
            "backward": 0,
        }
    return {**moves, "limit": axis.read, "taps": axis.kernel}


def test_places_of_taps_are_those_of_the_definition(simulate: Callable[..., None]) -> None:
    """Every tap of every pixel that meets something, in order, forward and backward, twice over; between them none but those in
    the padding. Addresses are places times the words of a row, numbers are taps times those of a row."""
    dut, random, bits = AxisWalk(16), Random(2), 16

    async def bench(ctx: Any) -> None:
        async def move(name: str) -> None:
            ctx.set(getattr(dut, name), 1)
            await ctx.tick()
            ctx.set(getattr(dut, name), 0)

        for _ in range(60):
            axis, row_words, row_taps = an_axis(random), random.randrange(1 << 12), random.randint(1, 40)
            fields = moves_of(axis)
            ctx.set(dut.axis, fields)
            whole = {"start": fields["start"]["whole"], "by_pixel": fields["by_pixel"]["whole"], "by_tap": 1 - 2 * axis.transposed}
            ctx.set(dut.of_words, {name: value * row_words % (1 << bits) for name, value in {**whole, "more": 1}.items()})
            taps = {"start": fields["start"]["rest"], "by_tap": fields["tap_step"], "more": 1}
            ctx.set(dut.of_numbers, {name: value * row_taps % 256 for name, value in taps.items()})
            wanted = {}
            for tap in range(axis.kernel):
                wanted |= {(int(pixel), tap): int(place) for pixel, place in zip(*axis.meetings(tap), strict=True)}
            await move("begin")
            for pixel in range(axis.computed):
                mine = {tap: place for (of, tap), place in wanted.items() if of == pixel}
                for again in range(2):
                    found, visited = {}, 1
                    while True:
                        tap, place = ctx.get(dut.tap), ctx.get(dut.place)
                        if ctx.get(dut.inside):
                            found[tap] = place
                            assert ctx.get(dut.words) == place * row_words % (1 << bits)
                            assert ctx.get(dut.number) == tap * row_taps % 256
                        if ctx.get(dut.last):
                            break
                        visited += 1
                        await move("next_tap")
                    assert list(found.items()) == list(mine.items()), (axis, pixel)
                    assert visited <= max(-(-axis.kernel // fields["tap_step"]), 1)
                    if not again:
                        await move("first_tap")
                await move("next_pixel")

    simulate(dut, bench, limit=200_000)


@pytest.mark.parametrize("stalls", [0.0, 0.6])
def test_runs_hold_all_words_in_order_and_are_as_long_as_they_can(simulate: Callable[..., None], stalls: float) -> None:
    dut, random = Runs(MACHINE), Random(8)
    words: list[int] = []
    while len(words) < 400:
        first = random.randrange(1 << 20)
        words += range(first, first + random.choice((1, 1, 2, 20, 50)))
    found: list[tuple[int, int]] = []

    async def feed(ctx: Any) -> None:
        for word in words:
            ctx.set(dut.i.payload, word)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
        ctx.set(dut.flush, 1)

    async def bench(ctx: Any) -> None:
        held = None
        while sum(count for _, count in found) < len(words):
            ctx.set(dut.o.ready, random.random() >= stalls)
            sampled = (dut.o.valid, dut.o.ready, dut.o.payload.offset, dut.o.payload.count)
            _, _, valid, ready, offset, count = await ctx.tick().sample(*sampled)
            assert held is None or (valid and (offset, count) == held)
            held = (offset, count) if valid and not ready else None
            if valid and ready:
                found.append((offset, count))

    simulate(dut, bench, feed)
    assert [offset + step for offset, count in found for step in range(count)] == words
    for (offset, count), (following, _) in pairwise(found):
        assert count <= RUN_WORDS
        assert following != offset + count or following % RUN_WORDS == 0


@pytest.mark.parametrize("slices", [1, 3])
def test_a_lane_computes_accumulators_and_products(simulate: Callable[..., None], slices: int) -> None:
    """Random windows of each combination, one tap a cycle; the slices of a tap follow one another."""
    dut, random = ElementwiseLane(slices), Random(slices)
    for combine in (SUM, MAXIMUM, ERRORS_OF_MAXIMA):
        down, rectify, limit = random.choice((0, 1, 8, 31)), random.randrange(2), 1 << random.choice((7, 15))
        a, b, c = (random.randint(-1 << bits, (1 << bits) - 1) for bits in (random.choice((3, 31)), 37, random.choice((9, 55))))
        steps: list[dict[str, int]] = []
        wanted: dict[int, tuple[int, int]] = {}
        for _ in range(40):
            taps = random.choice((1, 1, 4, 9))
            kept: list[list[dict[str, int]]] = [[] for _ in range(slices)]
            for tap in range(taps):
                for number in range(slices):
                    step = {
                        "begins": int(tap == 0),
                        "inside": int(random.random() < 0.8),
                        "number": tap,
                        "slice": number,
                        "first": random.randint(-limit, limit - 1),
                        "argmax": random.randrange(taps),
                        "second": random.randint(-limit, limit - 1),
                    }
                    kept[number].append(step)
                    steps.append(step)
                    if tap == taps - 1:
                        value, winner = expected_window(combine, kept[number])
                        total = np.array([a * value + b * step["second"] + c])
                        rounded = int(saturate(shift_nearest(total, down), 32)[0])
                        wanted[len(steps) - 1] = (max(rounded, 0) if rectify else rounded, winner)

        async def bench(
            ctx: Any, steps: Any = steps, wanted: Any = wanted, settings: Any = (combine, down, rectify, a, b, c)
        ) -> None:
            for name, value in zip(("combine", "down", "rectify", "a", "b", "c"), settings, strict=True):
                ctx.set(getattr(dut, name), value)
            for cycle in range(len(steps) + ACCUMULATOR_CYCLE + 1):
                if (at := cycle - 1) in wanted and settings[0] == MAXIMUM:
                    assert ctx.get(dut.winner) == wanted[at][1]
                if (at := cycle - PRODUCT_CYCLE) >= 0 and at < len(steps):
                    factor = settings[4]
                    assert ctx.get(dut.product) == wrapped(steps[at]["second"] * factor)
                if (at := cycle - ACCUMULATOR_CYCLE) in wanted:
                    assert ctx.get(dut.accumulator) == wanted[at][0]
                step = steps[cycle] if cycle < len(steps) else None
                ctx.set(dut.take.valid, step is not None)
                if step is not None:
                    for name in ("begins", "inside", "number", "slice"):
                        ctx.set(dut.take[name], step[name])
                    for name in ("first", "argmax", "second"):
                        ctx.set(getattr(dut, name), step[name])
                await ctx.tick()

        simulate(dut, bench)


def expected_window(combine: int, steps: list[dict[str, int]]) -> tuple[int, int]:
    """What becomes of a window, and the tap of its maximum."""
    inside = [step for step in steps if step["inside"]]
    if combine == MAXIMUM:
        best = max(inside, key=lambda step: step["first"], default=None)
        return (best["first"], best["number"]) if best else (0, 0)
    return sum(step["first"] for step in inside if combine == SUM or step["argmax"] == step["number"]), 0


def wrapped(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)
