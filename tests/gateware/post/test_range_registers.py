"""The range registers against a dictionary."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from amaranth.hdl import ResetInserter, Signal

from fixgrad.gateware.pe.sharing import converted
from fixgrad.gateware.post.range_registers import RANGE_REPORT, RangeRegisters
from fixgrad.machine.presets import KCU1500, TINY

Register = tuple[int, int, int]
SOURCES = 3
#: One of them twice: the second time it is clear.
TAKEN = (0, 1, 7, 255, 1, 254)


def merged(old: Register, report: dict[str, int]) -> Register:
    return (
        old[0] | report["magnitudes"],
        (old[1] + report["saturated"]) & 0xFFFFFFFF,
        old[2] | report["overflow"],
    )


def a_report(random: Random) -> dict[str, int]:
    bits = random.choice((4, 32))
    return {
        "register": random.choice((0, 1, 7, 255)),
        "magnitudes": random.getrandbits(bits),
        "saturated": random.getrandbits(bits),
        "overflow": random.getrandbits(1),
    }


async def send(ctx: Any, port: Any, payload: Any, random: Random, stalls: float) -> None:
    while random.random() < stalls:
        await ctx.tick()
    ctx.set(port.payload, payload)
    ctx.set(port.valid, 1)
    await ctx.tick().until(port.ready)
    ctx.set(port.valid, 0)


async def take(ctx: Any, dut: RangeRegisters, register: int) -> Register:
    ctx.set(dut.take.payload, register)
    ctx.set(dut.take.valid, 1)
    await ctx.tick().until(dut.take.ready)
    ctx.set(dut.take.valid, 0)
    ctx.set(dut.taken.ready, 1)
    (value,) = await ctx.tick().sample(dut.taken.payload).until(dut.taken.valid)
    ctx.set(dut.taken.ready, 0)
    return value.magnitudes, value.saturated, value.overflow


@pytest.mark.parametrize("stalls", [0.0, 0.6])
def test_reports_of_all_sources_add_up(simulate: Callable[..., None], stalls: float) -> None:
    dut, random = RangeRegisters(TINY, SOURCES), Random(5)
    rounds = [[[a_report(random) for _ in range(20)] for _ in range(SOURCES)] for _ in range(3)]
    left, found, expected = [0], [], []
    for jobs in rounds:
        registers: dict[int, Register] = {}
        for report in (report for of_source in jobs for report in of_source):
            registers[report["register"]] = merged(registers.get(report["register"], (0, 0, 0)), report)
        expected += [registers.pop(register, (0, 0, 0)) for register in TAKEN]

    def feeder(number: int) -> Callable[[Any], Any]:
        async def feed(ctx: Any) -> None:
            rng = Random(number)
            for turn, jobs in enumerate(rounds):
                for report in jobs[number]:
                    await send(ctx, dut.reports[number], report, rng, stalls)
                left[0] += 1
                while len(found) < len(TAKEN) * (turn + 1):
                    await ctx.tick()

        return feed

    async def collect(ctx: Any) -> None:
        for turn in range(3):
            while left[0] < SOURCES * (turn + 1):
                await ctx.tick()
            found.extend([await take(ctx, dut, register) for register in TAKEN])

    simulate(dut, collect, *(feeder(number) for number in range(SOURCES)))
    assert found == expected


def test_a_report_takes_two_cycles_and_no_source_waits_for_ever(simulate: Callable[..., None]) -> None:
    dut, accepted = RangeRegisters(TINY, SOURCES), []

    async def bench(ctx: Any) -> None:
        for port in dut.reports:
            ctx.set(port.valid, 1)
        for _ in range(24):
            accepted.append([ctx.get(port.ready) for port in dut.reports])
            await ctx.tick()

    simulate(dut, bench)
    assert [sum(column) for column in zip(*accepted, strict=True)] == [4, 4, 4]


def test_a_reset_clears_all(simulate: Callable[..., None]) -> None:
    dut, reset, found = RangeRegisters(TINY, 1), Signal(), []

    async def bench(ctx: Any) -> None:
        report = {"register": 9, "magnitudes": 5, "saturated": 6, "overflow": 1}
        await send(ctx, dut.reports[0], report, Random(0), 0)
        await ctx.tick().repeat(2)
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        await send(ctx, dut.reports[0], report | {"magnitudes": 8}, Random(0), 0)
        await ctx.tick().repeat(2)
        found.append(await take(ctx, dut, 9))

    simulate(ResetInserter(reset)(dut), bench)
    assert found == [(8, 6, 1)]


def test_its_memory_is_one_module_with_a_report_for_each_source() -> None:
    text = converted(RangeRegisters(KCU1500, 19), "top")
    assert f"wire width {RANGE_REPORT.size} input " in text
    assert "memory width 65 size 256" in text
