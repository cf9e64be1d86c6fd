"""Counters of cycles, bytes, and where cycles go: in every cycle of a program each unit (of COMPUTE, each PE) counts one cause."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import MemoryPorts
from fixgrad.gateware.control.counter_bank import COUNTER_BITS, CounterBank
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit
from fixgrad.machine.registers import CAUSES, COUNTERS, Cause, counter_name

#: Causes that dispatch knows; a unit tells the others while it executes an instruction.
OF_DISPATCH = (Cause.DEPENDENCY, Cause.IDLE)


def activity_layout(unit: Unit, machine: Machine) -> data.StructLayout:
    """What a unit says in each cycle: how much of it has each cause. All zero: it executes nothing.

    COMPUTE says it for each group, in PEs; of the others one bit is set.
    """
    width = machine.pes_per_group.bit_length() if unit is Unit.COMPUTE else 1
    return data.StructLayout({str(cause): width for cause in CAUSES[unit] if cause not in OF_DISPATCH})


class Counters(wiring.Component):
    """64-bit counters: cycles, bytes moved, and one for each unit and cause. They lag behind by a few cycles.

    Members:
        clear, running: a program begins; a program runs.
        load, post, update: activities (`activity_layout`). compute: likewise, an array of groups.
        *_waiting: of each queue, an instruction waits for others.
        read_beats, written_beats: moved in this cycle.
        turn, value: a counter, by its place in `COUNTERS`, and its value; each in turn, see `CounterBank`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, MemoryPorts.of(machine)
        groups = machine.groups
        bytes_a_cycle = self.memory.channels * self.memory.port_bytes
        most = {"CYCLES": 1, "READ_BYTES": bytes_a_cycle, "WRITTEN_BYTES": bytes_a_cycle}
        for unit, causes in CAUSES.items():
            most |= {counter_name(unit, cause): machine.pes if unit is Unit.COMPUTE else 1 for cause in causes}
        self.bank = CounterBank({name: most[name] for name in COUNTERS})
        members = {"clear": In(1), "running": In(1), "turn": Out(range(len(COUNTERS))), "value": Out(COUNTER_BITS)}
        members |= {f"{what}_beats": In(range(self.memory.channels + 1)) for what in ("read", "written")}
        for unit in CAUSES:
            activity = In(activity_layout(unit, machine))
            members[str(unit)] = activity.array(groups) if unit is Unit.COMPUTE else activity
            members[f"{unit}_waiting"] = In(groups if unit in (Unit.COMPUTE, Unit.UPDATE) else 1)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bank = bank = self.bank
        m.d.comb += [bank.clear.eq(self.clear), self.turn.eq(bank.turn), self.value.eq(bank.value)]
        beat = self.memory.port_bytes
        added: dict[str, Value] = {"CYCLES": Value.cast(1)}
        added |= {"READ_BYTES": self.read_beats * beat, "WRITTEN_BYTES": self.written_beats * beat}
        for unit, causes in CAUSES.items():
            increments = self._of_compute(m) if unit is Unit.COMPUTE else self._of_unit(m, unit)
            added |= {counter_name(unit, cause): increments[cause] for cause in causes}
        for name, increment in added.items():
            # A register between the sum over groups and the bank.
            now = Signal.like(getattr(bank, f"add_{name}"), name=f"{name}_now")
            m.d.sync += now.eq(Mux(self.running, increment, 0))
            m.d.comb += getattr(bank, f"add_{name}").eq(now)
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
