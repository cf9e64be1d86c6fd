"""Counters in one memory, against sums."""

import random

import pytest
from amaranth.sim import Simulator

from fixgrad.gateware.control.counter_bank import CounterBank

#: Cycles from what is added until `value` shows it: it is in the value that is shown so many cycles later.
LAG = 2


@pytest.mark.parametrize("most", [[1, 1, 1], [1, 7, 64, 1, 32], [1] * 22 + [256], [1 << 60, 1, 3]])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_counter_is_the_sum_of_what_was_added(most: list[int], share: float) -> None:
    """`share` of the cycles add the most that is allowed. In a few cycles all counters are cleared. The last of the banks wraps."""
    source = random.Random(len(most))
    names = [f"C{place}" for place in range(len(most))]
    bank = CounterBank(dict(zip(names, most, strict=True)))
    cycles = 60 * len(most)
    clears = {0, *source.sample(range(cycles), 4)}
    seen = dict.fromkeys(names, 0)

    async def run(context: object) -> None:
        totals = {name: [0] for name in names}
        for cycle in range(cycles):
            clear = cycle in clears
            context.set(bank.clear, clear)
            for name, limit in zip(names, most, strict=True):
                added = limit if source.random() < share else source.randrange(limit + 1)
                context.set(getattr(bank, f"add_{name}"), added)
                totals[name].append(0 if clear else totals[name][-1] + added)
            turn, value = names[context.get(bank.turn)], context.get(bank.value)
            if not {cycle - 1, cycle - 2} & clears and cycle >= LAG:
                assert value == totals[turn][cycle - LAG + 1] % (1 << 64), (cycle, turn)
                seen[turn] += 1
            await context.tick()

    simulator = Simulator(bank)
    simulator.add_clock(1e-6)
    simulator.add_testbench(run)
    simulator.run()
    assert min(seen.values()) > 20
