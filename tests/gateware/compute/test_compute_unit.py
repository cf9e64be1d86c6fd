"""The unit COMPUTE of a group: instructions in, accumulators, completions, flags and activity out."""

from collections.abc import Callable
from typing import Any

import pytest
from amaranth.hdl import Module, Signal

from fixgrad.gateware.compute import ComputeUnit
from fixgrad.gateware.control.checks import checks
from fixgrad.gateware.control.layouts import HEADER_BITS
from fixgrad.gateware.pe.group import GROUP_DRAIN_LATENCY, Group
from fixgrad.gateware.pe.sharing import converted
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.presets import PRESETS, TINY

MACHINE = TINY.with_changes(groups=1, lanes=2, input_words=64, lane_words=32, kernel_words=16, gradient_words=64)
PES = range(MACHINE.pes_per_group)
#: Pixels of a PE.
PIXELS = 4


def a_compute(statistics: int, *, clear: int = 1) -> Instruction:
    """FF of one kernel of 1 x 1 on four pixels in each PE, side by side."""
    rectangles = {}
    for pe in PES:
        for prefix in ("in", "out"):
            sides = {"top": 0, "bottom": 1, "left": PIXELS * pe, "right": PIXELS * pe + PIXELS}
            rectangles |= {f"{prefix}{pe}_{side}": value for side, value in sides.items()}
    ones = ("kernel_rows", "kernel_columns", "stride_rows", "stride_columns", "dilation_rows", "dilation_columns", "in_rows")
    sizes = {"in_columns": PIXELS * len(PES), "slot_words": PIXELS, "lane_slot_words": PIXELS}
    return Instruction("COMPUTE", **dict.fromkeys(ones, 1), **sizes, **rectangles, clear=clear, statistics=statistics)


def issue(ctx: Any, dut: ComputeUnit, index: int, instruction: Instruction) -> None:
    word = int.from_bytes(instruction.encode(), "little")
    ctx.set(dut.instructions.payload, {"index": index, "opcode": word & 0xFF, "body": word >> HEADER_BITS})


async def load(ctx: Any, dut: ComputeUnit, codes: list[list[int]]) -> None:
    for address in range(PIXELS):
        for pe, port in enumerate(dut.input_writes):
            data = sum((codes[pe][address] & 0xFF) << 8 * lane for lane in range(MACHINE.lanes))
            ctx.set(port, {"enable": 1, "address": address, "data": data})
        await ctx.tick()
    for port in dut.input_writes:
        ctx.set(port.enable, 0)


async def push_kernel(ctx: Any, dut: ComputeUnit, weight: int) -> None:
    ctx.set(dut.kernel_pes, (1 << len(PES)) - 1)
    ctx.set(dut.kernels.valid, 1)
    for entry in ({"weights": weight & 0xFF, "last": 1, "end": 0}, {"weights": 0, "last": 0, "end": 1}):
        ctx.set(dut.kernels.payload, {"out": 0, "in_": 0, **entry})
        await ctx.tick().until(dut.kernels.ready)
    ctx.set(dut.kernels.valid, 0)


async def drained(ctx: Any, dut: ComputeUnit, pe: int, address: int) -> int:
    ctx.set(dut.drain, 1 << pe)
    ctx.set(dut.drain_address, address)
    await ctx.tick()
    ctx.set(dut.drain, 0)
    await ctx.tick().repeat(GROUP_DRAIN_LATENCY - 1)
    word = ctx.get(dut.drained) & 0xFFFFFFFF
    return word - (word >> 31 << 32)


def test_an_instruction_begins_when_it_may_and_its_sums_are_right(simulate: Callable[..., None]) -> None:
    dut, codes, activity, ends = ComputeUnit(MACHINE), [[1, -2, 3, 127], [5, 6, -128, 8]], [], []

    async def watch(ctx: Any) -> None:
        while True:
            _, _, now, done = await ctx.tick().sample(dut.activity, dut.done)
            activity.append((now.busy, now.starved, now.blocked))
            ends.append(done)

    async def bench(ctx: Any) -> None:
        await load(ctx, dut, codes)
        issue(ctx, dut, 0, a_compute(3))
        ctx.set(dut.head_valid, 1)
        await ctx.tick().repeat(100)
        assert not any(ends)
        assert set(activity) == {(0, 0, 0)}, "what only may be planned is not executed"
        await push_kernel(ctx, dut, -7)
        ctx.set(dut.instructions.valid, 1)
        await ctx.tick().until(dut.instructions.ready)
        ctx.set(dut.instructions.valid, 0)
        ctx.set(dut.head_valid, 0)
        while not any(ends):
            await ctx.tick()
        await ctx.tick().repeat(5)
        for pe in PES:
            assert [await drained(ctx, dut, pe, pixel) for pixel in range(PIXELS)] == [-7 * code for code in codes[pe]]
        assert sum(ends) == 1
        assert not ctx.get(dut.report.valid)
        works = [entry for entry in activity if any(entry)]
        assert {sum(entry) for entry in works} == {len(PES)}
        assert sum(busy for busy, _, _ in works) == PIXELS * len(PES)

    simulate(dut, bench, watch)


class StubGroup(Group):
    """A group whose COMPUTEs take five cycles, and wrap where `clear` is set."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left, begins = Signal(3), Signal()
        m.d.comb += [
            self.done.eq(self.running & (left == 0)),
            begins.eq(self.computes.valid & self.go & (~self.running | self.done)),
            self.computes.ready.eq(begins),
        ]
        with m.If(begins):
            m.d.sync += [self.running.eq(1), left.eq(4)]
        with m.Elif(self.done):
            m.d.sync += self.running.eq(0)
        with m.Else():
            m.d.sync += left.eq(left - self.running)
        wraps = Signal()
        with m.If(begins):
            m.d.sync += wraps.eq(self.computes.payload.clear)
        m.d.comb += self.overflow.eq(wraps)
        return m


def test_a_report_comes_before_its_completion_and_in_order(simulate: Callable[..., None]) -> None:
    """The first of six instructions wraps, and its report is held up until no other one may begin."""
    dut, events = ComputeUnit(MACHINE), []
    dut.group = StubGroup(MACHINE)
    wraps = (0, 1, 0, 1, 0, 0)

    async def watch(ctx: Any) -> None:
        while True:
            names = (dut.done, dut.report.valid, dut.report.ready, dut.report.payload)
            _, _, done, valid, ready, report = await ctx.tick().sample(*names)
            if valid and ready:
                assert (report.magnitudes, report.saturated, report.overflow) == (0, 0, 1)
                events.append(report.register)
            if done:
                events.append("done")

    async def accept(ctx: Any) -> None:
        await ctx.tick().repeat(80)
        assert events == ["done"], "the second one waits for its report, and the others for the second one"
        ctx.set(dut.report.ready, 1)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.head_valid, 1)
        ctx.set(dut.instructions.valid, 1)
        for number, clear in enumerate(wraps):
            issue(ctx, dut, number, a_compute(10 + number, clear=clear))
            await ctx.tick().until(dut.instructions.ready)
        ctx.set(dut.head_valid, 0)
        ctx.set(dut.instructions.valid, 0)
        await ctx.tick().repeat(30)

    simulate(dut, bench, watch, accept)
    assert events == ["done", 11, "done", "done", 13, "done", "done", "done"]


@pytest.mark.parametrize("name", ["tiny", "formal"])
def test_presets_convert(name: str) -> None:
    assert "module \\compute_unit_top" in converted(ComputeUnit(PRESETS[name]), "compute_unit_top")


def test_a_walk_that_no_table_holds_is_refused_by_the_decoder() -> None:
    """Where taps in the padding are counted, an axis has up to 2 k + stride runs of pixels."""
    of_kind = checks(TINY)["COMPUTE"]
    for kernel, stride, counts, good in ((15, 2, 1, True), (15, 3, 1, False), (15, 15, 0, True), (9, 15, 1, False)):
        fields = Instruction("COMPUTE", kernel_rows=kernel, stride_rows=stride, count_padding=counts).to_dict()
        assert all(check.holds(fields) for check in of_kind) == good
