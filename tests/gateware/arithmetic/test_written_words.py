# amaranth: UnusedElaboratable=no
"""The marks equal a plain set of addresses."""

from random import Random

import pytest
from amaranth.sim import Simulator

from fixgrad.gateware.arithmetic.written_words import WrittenWords


@pytest.mark.parametrize("words", [4, 8, 32, 128])
def test_marks_equal_a_set(words: int) -> None:
    dut, random, marked = WrittenWords(words), Random(words), set()

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        for _ in range(12 * words):
            address = random.randrange(words)
            clear = random.choice([0] * 40 + [1, 2, 3])
            action = random.choice(["mark", "mark", "unmark", "none"])
            ctx.set(dut.clear, clear)
            ctx.set(dut.address, address)
            ctx.set(dut.mark, action == "mark")
            ctx.set(dut.unmark, action == "unmark")
            marked.difference_update(a for a in list(marked) if clear >> (a >= words // 2) & 1)
            assert ctx.get(dut.marked) == (address in marked)
            if action == "mark":
                marked.add(address)
            elif action == "unmark":
                marked.discard(address)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert marked, "the last operations left something to compare"


def test_a_clear_of_one_half_leaves_the_other() -> None:
    dut = WrittenWords(16)

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        for address in range(16):
            ctx.set(dut.address, address)
            ctx.set(dut.mark, 1)
            await ctx.tick()
        ctx.set(dut.mark, 0)
        ctx.set(dut.clear, 0b10)
        await ctx.tick()
        ctx.set(dut.clear, 0)
        found = []
        for address in range(16):
            ctx.set(dut.address, address)
            found.append(ctx.get(dut.marked))
        assert found == [1] * 8 + [0] * 8

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("words", [0, 2, 12, 100])
def test_other_sizes_are_refused(words: int) -> None:
    with pytest.raises(ValueError, match=f"words is {words}: choose a power of two from 4"):
        WrittenWords(words)
