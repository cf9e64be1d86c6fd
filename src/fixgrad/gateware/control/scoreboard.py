"""Counts of issued and completed instructions: what waits are compared with."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.control.layouts import INDEX_BITS, WAIT_UNITS, waits_layout
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit


class SlowestCount(wiring.Component):
    """Counts events of several sources, and how many every one of them has had.

    Each source keeps only by how much it is ahead of the slowest one. That one is ahead by 0, so the common count goes up, by
    1, exactly when every source is ahead or has an event now.

    Members:
        events: a bit for each source.
        count: events that every source has had.
    """

    def __init__(self, sources: int) -> None:
        self.sources = sources
        super().__init__({"events": In(sources), "count": Out(INDEX_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ahead = [Signal(INDEX_BITS, name=f"ahead_{index}") for index in range(self.sources)]
        step = Signal()
        m.d.comb += step.eq(Cat(*((each != 0) | event for each, event in zip(ahead, self.events, strict=True))).all())
        m.d.sync += self.count.eq(self.count + step)
        m.d.sync += [each.eq(each + event - step) for each, event in zip(ahead, self.events, strict=True)]
        return m


class Scoreboard(wiring.Component):
    """Counts completions of each unit since its reset, and issues, which a wait may not exceed.

    Members:
        load_done, post_done: an instruction of LOAD, POST has completed. compute_done, update_done: likewise, for each group.
        load_issued, compute_issued, post_issued: an instruction joins its queue. update_issued: likewise, for each group.
        completed: counts by the slowest group. issued: counts by the group that has been given fewest.
        all_done: everything issued has completed.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        groups = machine.groups
        super().__init__(
            {
                "load_done": In(1),
                "compute_done": In(groups),
                "post_done": In(1),
                "update_done": In(groups),
                "load_issued": In(1),
                "compute_issued": In(1),
                "post_issued": In(1),
                "update_issued": In(groups),
                "completed": Out(waits_layout()),
                "issued": Out(waits_layout()),
                "all_done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        outstanding = []
        for unit in WAIT_UNITS:
            for what, events in (("completed", f"{unit}_done"), ("issued", f"{unit}_issued")):
                pulses = getattr(self, events)
                counter = SlowestCount(len(pulses))
                m.submodules[f"{unit}_{what}"] = counter
                m.d.comb += [
                    counter.events.eq(pulses),
                    getattr(self, what)[str(unit)].eq(counter.count),
                ]
            outstanding.append(self._outstanding(m, unit))
        m.d.comb += self.all_done.eq(~Cat(*outstanding).any())
        return m

    def _outstanding(self, m: Module, unit: Unit) -> Value:
        """Whether an instruction of the unit has been issued and not completed."""
        done, issued = getattr(self, f"{unit}_done"), getattr(self, f"{unit}_issued")
        waiting = []
        for index in range(len(done)):
            count = Signal(INDEX_BITS, name=f"{unit}_{index}_outstanding")
            begins = issued[index] if len(issued) > 1 else issued
            m.d.sync += count.eq(count + begins - done[index])
            waiting.append(count != 0)
        return Cat(*waiting).any()


def meets(waits: Value, counts: Value) -> Value:
    """Whether every count is at least what is waited for."""
    return Cat(*(counts[str(unit)] >= waits[str(unit)] for unit in WAIT_UNITS)).all()
