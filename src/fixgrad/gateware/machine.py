"""The whole machine: front end, units, groups and memory ports, put together."""

from itertools import chain

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out

from fixgrad.gateware.axi import Interconnect, MemoryPorts
from fixgrad.gateware.axi.streams import connect_payload
from fixgrad.gateware.compute import ComputeUnit
from fixgrad.gateware.control import FrontEnd
from fixgrad.gateware.control.layouts import WAIT_UNITS
from fixgrad.gateware.control.step_table import StepTable
from fixgrad.gateware.load import LoadUnit
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.post.post_unit import PostUnit
from fixgrad.gateware.update.update import Update
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit

#: Clock domain of what is held in reset while no program runs; its clock is the machine's.
PROGRAM_DOMAIN = "program"


class Accelerator(wiring.Component):
    """A machine behind its ports.

        s_axi -- front end -- instructions --> LOAD --> inputs, kernels, errors --> groups (COMPUTE)
                     |                         LOAD --> step table                    |  ^
                     | fetch                   POST <-- accumulators -----------------+  |
                     |                         UPDATE <-- gradients ---------------------+
        m_axi -- interconnect -- engines of fetch, LOAD, POST (one for each post-processor and a narrow one), UPDATE

    Args:
        machine: gives every size. watched: with the members `completed_U`, for a test bench.

    Members:
        s_axi: AXI4-Lite control port, see `fixgrad.machine.registers`.
        m_axi: AXI4 ports, one for each memory channel.
        irq: interrupt, high until its cause is cleared.
        completed_U: out, of each unit U a stream without content that nothing holds up: an instruction has completed, of
            compute and update in the slowest group.
    """

    def __init__(self, machine: Machine, *, watched: bool = False) -> None:
        self.machine, self.watched = machine, watched
        self.front_end = FrontEnd(machine)
        self.load, self.post, self.update = LoadUnit(machine), PostUnit(machine), Update(machine)
        self.computes = [ComputeUnit(machine) for _ in range(machine.groups)]
        self.step_table = StepTable(machine, readers=1 + self.update.lanes)
        self._reads = [self.front_end.fetch, self.load.read, *self.post.read_ports, *self.update.read_ports]
        self._writes = [*self.post.write_ports, *self.update.write_ports]
        self.interconnect = Interconnect(MemoryPorts.of(machine), len(self._reads), len(self._writes))
        members = {
            "s_axi": self.front_end.signature.members["s_axi"],
            "m_axi": self.interconnect.signature.members["m_axi"],
            "irq": Out(1),
        }
        if watched:
            members |= {f"completed_{unit}": Out(stream.Signature(1)) for unit in WAIT_UNITS}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.front_end, m.submodules.interconnect = self.front_end, self.interconnect
        m.domains.program = ClockDomain(PROGRAM_DOMAIN, local=True)
        m.d.comb += [
            ClockSignal(PROGRAM_DOMAIN).eq(ClockSignal()),
            ResetSignal(PROGRAM_DOMAIN).eq(ResetSignal() | self.front_end.reset),
        ]
        in_program = DomainRenamer(PROGRAM_DOMAIN)
        for name in ("load", "post", "update"):
            m.submodules[name] = in_program(getattr(self, name))
        for number, compute in enumerate(self.computes):
            m.submodules[f"group_{number}"] = in_program(shared(compute, platform))
        m.submodules.step_table = in_program(self.step_table)
        self._ports(m)
        self._instructions(m)
        self._engines(m)
        self._load_side(m)
        self._drain_side(m)
        self._tables_and_reports(m)
        return m

    def _ports(self, m: Module) -> None:
        front, interconnect = self.front_end, self.interconnect
        wiring.connect(m, wiring.flipped(self.s_axi), front.s_axi)
        for mine, inner in zip(self.m_axi, interconnect.m_axi, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        m.d.comb += [
            self.irq.eq(front.irq),
            front.read_beats.eq(interconnect.read_beats),
            front.written_beats.eq(interconnect.written_beats),
        ]
        if self.watched:
            m.d.comb += [getattr(self, f"completed_{unit}").valid.eq(front.completes[str(unit)]) for unit in WAIT_UNITS]

    def _instructions(self, m: Module) -> None:
        """Between the front end and the units: instructions, completions, what cycles go to, faults."""
        front = self.front_end
        for unit, of in ((Unit.LOAD, self.load), (Unit.POST, self.post), (Unit.UPDATE, self.update)):
            issued = getattr(front, str(unit))
            if unit is Unit.UPDATE:
                for queue, taker in zip(issued, of.instructions, strict=True):
                    connect_payload(m, queue, taker)
            else:
                connect_payload(m, issued, of.instructions)
            fault = getattr(front, f"{unit}_fault")
            m.d.comb += [
                getattr(front, f"{unit}_done").eq(of.done),
                getattr(front, f"{unit}_activity").eq(of.activity),
                fault.valid.eq(of.fault.valid),
                fault.payload.eq(of.fault.payload),
            ]
        for group, compute in enumerate(self.computes):
            connect_payload(m, front.compute[group], compute.instructions)
            m.d.comb += [
                compute.head_valid.eq(front.compute_head_valid[group]),
                front.compute_done[group].eq(compute.done),
                front.compute_activity[group].eq(compute.activity),
            ]

    def _engines(self, m: Module) -> None:
        """Memory: what may be touched, and the ports of all engines."""
        front, units = self.front_end, (self.load, self.post, self.update)
        for unit in units:
            m.d.comb += [unit.base.eq(front.base), unit.limit.eq(front.limit), unit.stop.eq(front.stop)]
        m.d.comb += front.quiet.eq(Cat(unit.quiet for unit in units).all())
        for engines, ports in ((self._reads, self.interconnect.readers), (self._writes, self.interconnect.writers)):
            for engine, port in zip(engines, ports, strict=True):
                for channel, inner in zip(engine, port, strict=True):
                    wiring.connect(m, channel, inner)

    def _load_side(self, m: Module) -> None:
        """What LOAD puts away: input words to all groups alike, errors and kernels to each."""
        load = self.load
        for group, compute in enumerate(self.computes):
            for write, port in zip(load.input_writes, compute.input_writes, strict=True):
                m.d.comb += Value.cast(port).eq(Value.cast(write))
            for errors, port in zip(load.errors[group], compute.errors, strict=True):
                connect_payload(m, errors, port)
            connect_payload(m, load.kernels[group], compute.kernels)
            m.d.comb += compute.kernel_pes.eq(load.kernel_pes[group])

    def _drain_side(self, m: Module) -> None:
        """What POST takes of the accumulators, and UPDATE of the gradients."""
        post, update = self.post, self.update
        for group, compute in enumerate(self.computes):
            m.d.comb += [
                compute.drain.eq(post.drain[group]),
                compute.drain_address.eq(post.drain_address[group]),
                post.drained[group].eq(compute.drained),
                compute.take_gradient.eq(update.take_gradient[group]),
                compute.gradient_address.eq(update.gradient_address[group]),
                update.gradient_wanted[group].eq(compute.gradient_wanted),
                *(to.eq(value) for to, value in zip(update.gradients[group], compute.gradients, strict=True)),
            ]

    def _tables_and_reports(self, m: Module) -> None:
        """The step table, and the range registers, which are POST's."""
        table = self.step_table
        m.d.comb += Value.cast(table.write).eq(Value.cast(self.load.table_write))
        for asker, reader in zip((self.post.table, *self.update.table), table.readers, strict=True):
            wiring.connect(m, asker, reader)
        sources = chain((compute.report for compute in self.computes), self.update.report)
        for source, report in zip(sources, self.post.reports, strict=False):  # there may be fewer lanes of UPDATE than groups
            connect_payload(m, source, report)
