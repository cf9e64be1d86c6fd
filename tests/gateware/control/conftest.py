"""The front end with units that only take time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi import Interconnect, MemoryPorts
from fixgrad.gateware.control import FrontEnd
from fixgrad.gateware.control.layouts import INDEX_BITS, issued_layout
from fixgrad.gateware.simulation import Bench, DramTiming, Hostility, Netlist, netlist
from fixgrad.gateware.simulation.bench import Sink
from fixgrad.machine import Machine, identity, preset
from fixgrad.machine.encoding import Instruction, encode_program
from fixgrad.machine.instructions import Unit
from fixgrad.machine.registers import ErrorCode, register


class Dawdler(wiring.Component):
    """A unit that does nothing, for a time that depends on the instruction's place in the program and on who it is.

    Members:
        i: instructions. began, ended: their places, each for a cycle. done: pulses with `ended`.
        hang: the unit ends nothing any more.
    """

    def __init__(self, unit: Unit, salt: int) -> None:
        self.unit, self.salt = unit, salt
        super().__init__(
            {
                "i": In(stream.Signature(issued_layout(unit))),
                "began": Out(stream.Signature(INDEX_BITS, always_ready=True)),
                "ended": Out(stream.Signature(INDEX_BITS, always_ready=True)),
                "done": Out(1),
                "works": Out(1),
                "hang": In(1),
                "speed": In(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        index, left = Signal(INDEX_BITS), Signal(8)
        m.d.comb += [
            self.i.ready.eq(~self.works),
            self.began.valid.eq(self.i.valid & self.i.ready),
            self.began.payload.eq(self.i.payload.index),
            self.done.eq(self.works & (left == 0) & ~self.hang),
            self.ended.valid.eq(self.done),
            self.ended.payload.eq(index),
        ]
        mixed = self.i.payload.index * (2 * self.salt + 37) + (self.i.payload.index >> 3) * 11 + self.salt
        with m.If(self.began.valid):
            m.d.sync += [index.eq(self.i.payload.index), self.works.eq(1), left.eq(mixed[:8] & self.speed)]
        with m.Elif(self.done):
            m.d.sync += self.works.eq(0)
        with m.Elif(self.works):
            m.d.sync += left.eq(Mux(left == 0, 0, left - 1))
        return m


def queues(machine: Machine) -> list[tuple[Unit, int]]:
    """Who takes instructions: (unit, group)."""
    groups = range(machine.groups)
    return [(Unit.LOAD, 0), *((Unit.COMPUTE, g) for g in groups), (Unit.POST, 0), *((Unit.UPDATE, g) for g in groups)]


class FrontEndChip(wiring.Component):
    """Front end, interconnect, and a `Dawdler` for each queue."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.front = FrontEnd(machine)
        self.interconnect = Interconnect(MemoryPorts.of(machine), 1, 1)
        members = {
            "s_axi": self.front.signature.members["s_axi"],
            "m_axi": self.interconnect.signature.members["m_axi"],
            "irq": Out(1),
            "hang": In(1),
            "speed": In(8, init=255),
            "fault": In(1),
        }
        for unit, group in queues(machine):
            members |= {f"{what}_{unit}{group}": Out(stream.Signature(INDEX_BITS)) for what in ("began", "ended")}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.front, m.submodules.interconnect = self.front, self.interconnect
        front, interconnect = self.front, self.interconnect
        wiring.connect(m, wiring.flipped(self.s_axi), front.s_axi)
        for channel, mine in enumerate(self.m_axi):
            wiring.connect(m, wiring.flipped(mine), interconnect.m_axi[channel])
            wiring.connect(m, front.fetch[channel], interconnect.readers[0][channel])
        m.d.comb += [
            self.irq.eq(front.irq),
            front.quiet.eq(1),
            front.read_beats.eq(interconnect.read_beats),
            front.written_beats.eq(interconnect.written_beats),
        ]
        for number, (unit, group) in enumerate(queues(self.machine)):
            dawdler = Dawdler(unit, number)
            m.submodules[f"{unit}{group}"] = ResetInserter(self.front.reset)(dawdler)
            self._attach(m, dawdler, unit, group)
        return m

    def _attach(self, m: Module, dawdler: Dawdler, unit: Unit, group: int) -> None:
        front = self.front
        issued, activity = getattr(front, str(unit)), getattr(front, f"{unit}_activity")
        wiring.connect(m, issued[group] if unit in (Unit.COMPUTE, Unit.UPDATE) else issued, dawdler.i)
        m.d.comb += getattr(front, f"{unit}_done")[group].eq(dawdler.done)
        if unit is Unit.COMPUTE:
            m.d.comb += activity[group].busy.eq(Mux(dawdler.works, self.machine.pes_per_group, 0))
        elif group == 0:
            m.d.comb += activity.busy.eq(dawdler.works)
        if unit is Unit.LOAD:
            m.d.comb += [
                front.load_fault.valid.eq(self.fault & dawdler.works),
                front.load_fault.payload.index.eq(dawdler.ended.payload),
                front.load_fault.payload.fault.address.eq(0x1234),
                front.load_fault.payload.fault.kind.eq(2),
            ]
        m.d.comb += [dawdler.hang.eq(self.hang), dawdler.speed.eq(self.speed)]
        for what in ("began", "ended"):
            out, inner = getattr(self, f"{what}_{unit}{group}"), getattr(dawdler, what)
            m.d.comb += [out.valid.eq(inner.valid), out.payload.eq(inner.payload)]


@dataclass
class Host:
    """A bench around a `FrontEndChip`, and what a host does with it."""

    machine: Machine
    bench: Bench

    def __post_init__(self) -> None:
        kinds = ("began", "ended")
        self.sinks: dict[tuple[str, Unit, int], Sink] = {
            (what, unit, group): self.bench.sink(f"{what}_{unit}{group}")
            for unit, group in queues(self.machine)
            for what in kinds
        }

    def write(self, name: str, value: int) -> int:
        """Writes a register; returns the response."""
        return self.bench.write_register(0, register(name).offset, value)

    def write_wide(self, name: str, value: int) -> None:
        """Writes a pair of registers."""
        assert self.write(f"{name}_LOW", value & 0xFFFF_FFFF) == 0
        assert self.write(f"{name}_HIGH", value >> 32) == 0

    def read(self, name: str) -> int:
        """Reads a register."""
        value, response = self.bench.read_register(0, register(name).offset)
        assert response == 0
        return value

    def read_wide(self, name: str) -> int:
        """Reads a pair of registers."""
        return self.read(f"{name}_LOW") | self.read(f"{name}_HIGH") << 32

    def prepare(self, program: bytes, length: int | None = None, address: int = 0x1000) -> None:
        """Puts a program into memory and sets everything but CONTROL."""
        self.bench.memory[address : address + len(program)] = np.frombuffer(program, np.uint8)
        self.write_wide("EXPECTED_IDENTITY", int(identity(self.machine), 16))
        self.write_wide("MEMORY_BASE", 0)
        self.write_wide("MEMORY_LIMIT", len(self.bench.memory))
        self.write_wide("PROGRAM", address)
        self.write("PROGRAM_LENGTH", len(program) // 128 if length is None else length)
        self.write("INTERRUPT_ENABLE", 3)
        self.write("TIMEOUT", 2000)

    def start(self) -> None:
        """Starts the program."""
        assert self.write("CONTROL", 1) == 0

    def run(self, program: bytes | Iterable[Instruction], limit: int = 400_000) -> ErrorCode:
        """Runs a program to its end; returns the error."""
        self.prepare(program if isinstance(program, bytes) else encode_program(program))
        self.start()
        return self.finish(limit)

    def finish(self, limit: int = 400_000) -> ErrorCode:
        """Waits for the interrupt and clears it; returns the error."""
        assert self.bench.run_until("irq", 1, limit)
        status, error = self.read("STATUS"), ErrorCode(self.read("ERROR"))
        assert status == (2 if error is ErrorCode.NONE else 4)
        assert self.read("INTERRUPT_STATUS") == (1 if error is ErrorCode.NONE else 2)
        self.write("INTERRUPT_STATUS", 3)
        assert self.bench.get("irq") == 0
        self.bench.check()
        return error

    def times(self, what: str, unit: Unit, group: int) -> dict[int, int]:
        """Place in the program -> cycle, in the order of the events."""
        places, cycles = self.sinks[what, unit, group].pop()
        return dict(zip(places["payload"].tolist(), cycles.tolist(), strict=True))


MakeHost = Callable[..., Host]


@pytest.fixture(scope="session")
def front_end_design() -> Netlist:
    return netlist(FrontEndChip(preset("tiny")))


@pytest.fixture(scope="session")
def host(front_end_design: Netlist) -> MakeHost:
    """Makes hosts: timing and hostility of the memory and of the control port."""

    def make(timing: DramTiming | None = None, hostility: Hostility | None = None) -> Host:
        bench = Bench(front_end_design, quick=True)
        bench.allocate(1 << 20)
        bench.attach_memory("m_axi_0", timing=timing or DramTiming(), hostility=hostility or Hostility())
        bench.attach_registers("s_axi", hostility or Hostility())
        made = Host(preset("tiny"), bench)
        bench.set("speed", 255)
        bench.reset()
        return made

    return make
