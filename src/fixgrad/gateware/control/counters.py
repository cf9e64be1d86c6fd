"""Counters of where cycles go: in every cycle of a program each unit (of COMPUTE, each PE) counts one of its causes."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.machine.registers import CAUSES, Cause, counter_name

#: Causes that dispatch knows; a unit tells the others while it executes an instruction.
OF_DISPATCH = (Cause.DEPENDENCY, Cause.IDLE)


def activity_layout(unit: Unit, machine: Machine) -> data.StructLayout:
    """What a unit says in each cycle: how much of it has each cause. All zero: it executes nothing.

    COMPUTE says it for each group, in PEs; of the others one bit is set.
    """
    width = machine.pes_per_group.bit_length() if unit is Unit.COMPUTE else 1
    return data.StructLayout({str(cause): width for cause in CAUSES[unit] if cause not in OF_DISPATCH})


class Counters(wiring.Component):
    """64-bit counters, one for each unit and cause.

    Members:
        clear, running: a program begins; a program runs.
        load, post, update: activities (`activity_layout`). compute: likewise, an array of groups.
        *_waiting: of each queue, an instruction waits for others.
        `UNIT_CAUSE`: the counters.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        groups = machine.groups
        members = {"clear": In(1), "running": In(1)}
        for unit, causes in CAUSES.items():
            activity = In(activity_layout(unit, machine))
            members[str(unit)] = activity.array(groups) if unit is Unit.COMPUTE else activity
            members[f"{unit}_waiting"] = In(groups if unit in (Unit.COMPUTE, Unit.UPDATE) else 1)
            members |= {counter_name(unit, cause): Out(64) for cause in causes}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for unit, causes in CAUSES.items():
            increments = self._of_compute(m) if unit is Unit.COMPUTE else self._of_unit(m, unit)
            for cause in causes:
                # A register between the sum over groups and the counter; the counters lag by a cycle.
                increment = Signal.like(increments[cause], name=f"{unit}_{cause}_now")
                counter = getattr(self, counter_name(unit, cause))
                m.d.sync += [
                    increment.eq(Mux(self.running, increments[cause], 0)),
                    counter.eq(Mux(self.clear, 0, counter + increment)),
                ]
        return m

    def _of_unit(self, m: Module, unit: Unit) -> dict[Cause, Signal]:
        activity, waiting = getattr(self, str(unit)), getattr(self, f"{unit}_waiting")
        works = Value.cast(activity).any()
        found = {cause: Signal(name=f"{unit}_{cause}") for cause in CAUSES[unit]}
        for cause, signal in found.items():
            if cause not in OF_DISPATCH:
                m.d.comb += signal.eq(activity[str(cause)])
        m.d.comb += [
            found[Cause.DEPENDENCY].eq(~works & waiting.any()),
            found[Cause.IDLE].eq(~works & ~waiting.any()),
        ]
        return found

    def _of_compute(self, m: Module) -> dict[Cause, Signal]:
        pes = self.machine.pes_per_group
        sums: dict[Cause, Value] = {cause: Value.cast(0) for cause in CAUSES[Unit.COMPUTE]}
        for group, activity in enumerate(self.compute):
            works, waits = Value.cast(activity).any(), self.compute_waiting[group]
            for cause in sums:
                if cause not in OF_DISPATCH:
                    sums[cause] = sums[cause] + activity[str(cause)]
            sums[Cause.DEPENDENCY] = sums[Cause.DEPENDENCY] + Mux(~works & waits, pes, 0)
            sums[Cause.IDLE] = sums[Cause.IDLE] + Mux(~works & ~waits, pes, 0)
        found = {cause: Signal(range(self.machine.pes + 1), name=f"compute_{cause}") for cause in sums}
        m.d.comb += [found[cause].eq(total) for cause, total in sums.items()]
        return found
