"""Runs in Amaranth's simulator; and a chip of the unit UPDATE with gradients that its groups would have, on the test bench."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out
from numpy.typing import NDArray

from fixgrad.compiler.step_entries import encode_entry
from fixgrad.gateware.axi import Interconnect
from fixgrad.gateware.axi.streams import connect_payload
from fixgrad.gateware.control.layouts import HEADER_BITS
from fixgrad.gateware.control.step_table import StepTable
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.pe.pe import GRADIENT_LATENCY
from fixgrad.gateware.post.range_registers import RANGE_REPORT
from fixgrad.gateware.simulation import Bench, DramTiming, Hostility, Netlist, netlist
from fixgrad.gateware.update.update import Update
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.parameters import Memory
from fixgrad.machine.presets import ECP5_85F, TINY
from fixgrad.simulate.functional.chip import Chip as FunctionalChip
from fixgrad.simulate.functional.update import run_update

MULTIPLIER, SALT = 0x9E3779B1, 0x7F4A7C15
MEMORY_BYTES, LIMIT = 1 << 16, 400_000


def gradient(group: int, pe: int, address: int, pes: int) -> int:
    """What a PE's gradient memory holds: of every magnitude."""
    value = ((address + 1) * MULTIPLIER + (group * pes + pe) * SALT) & 0xFFFFFFFF
    return (value - (value >> 31 << 32)) >> ((address % 8) * 3)


class UpdateChip(wiring.Component):
    """The unit, an interconnect and a step table. A gradient that nobody asked for is noise."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.unit = Update(machine)
        engines = len(self.unit.clusters)
        self.interconnect = Interconnect(self.unit.clusters[0].ports, engines, engines)
        self.table = StepTable(machine, self.unit.lanes)
        unit, groups = self.unit.signature.members, machine.groups
        super().__init__(
            {
                "m_axi": self.interconnect.signature.members["m_axi"],
                **{name: unit[name] for name in ("instructions", "base", "limit", "stop", "quiet", "activity", "gradient_wanted")},
                "table_write": self.table.signature.members["write"],
                "report": Out(stream.Signature(RANGE_REPORT)).array(self.unit.lanes),
                "done": Out(stream.Signature(1)).array(groups),
                "fault": Out(stream.Signature(UNIT_FAULT)),
                "updates": Out(groups),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        unit, interconnect, table = self.unit, self.interconnect, self.table
        m.submodules.unit, m.submodules.interconnect, m.submodules.table = unit, interconnect, table
        for mine, inner in zip(self.m_axi, interconnect.m_axi, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        for name in ("read", "write"):
            engines = {"read": interconnect.readers, "write": interconnect.writers}[name]
            for ports, engine in zip(getattr(unit, f"{name}_ports"), engines, strict=True):
                for port, channel in zip(ports, engine, strict=True):
                    wiring.connect(m, port, channel)
        for lane in range(unit.lanes):
            connect_payload(m, unit.report[lane], self.report[lane])
            wiring.connect(m, unit.table[lane], table.readers[lane])
        for group in range(self.machine.groups):
            connect_payload(m, self.instructions[group], unit.instructions[group])
            m.d.comb += self.done[group].valid.eq(unit.done[group])
            m.d.comb += self.updates[group].eq(unit.take_gradient[group].any())
            for pe, to in enumerate(unit.gradients[group]):
                m.d.comb += to.eq(self._gradient(m, group, pe))
        m.d.comb += [
            *(getattr(unit, name).eq(getattr(self, name)) for name in ("base", "limit", "stop")),
            *(to.eq(mine) for mine, to in zip(self.gradient_wanted, unit.gradient_wanted, strict=True)),
            self.quiet.eq(unit.quiet),
            self.activity.eq(unit.activity),
            Value.cast(table.write).eq(Value.cast(self.table_write)),
            self.fault.valid.eq(unit.fault.valid),
            Value.cast(self.fault.payload).eq(Value.cast(unit.fault.payload)),
        ]
        return m

    def _gradient(self, m: Module, group: int, pe: int) -> Value:
        take, address = self.unit.take_gradient[group][pe], self.unit.gradient_address[group]
        value = Signal(32, name=f"value_{group}_{pe}")
        salt = ((group * self.machine.pes_per_group + pe) * SALT + MULTIPLIER) & 0xFFFFFFFF
        m.d.comb += value.eq(address * Const(MULTIPLIER, 32) + salt)
        right = Signal(5, name=f"right_{group}_{pe}")
        m.d.comb += right.eq(address[:3] * 3)
        word = Mux(take, value.as_signed() >> right, 0x55AA1234)[:32]
        line = [word, *(Signal(32, name=f"word_{group}_{pe}_{cycle}") for cycle in range(GRADIENT_LATENCY))]
        for before, after in pairwise(line):
            m.d.sync += after.eq(before)
        return line[-1]


@dataclass
class UpdateBench:
    """A bench around an `UpdateChip`, and the functional simulator's state beside it."""

    chip: UpdateChip
    design: Netlist
    timing: DramTiming = field(default_factory=DramTiming)
    hostility: Hostility = field(default_factory=Hostility)

    def __post_init__(self) -> None:
        machine = self.chip.machine
        self.bench = bench = Bench(self.design, quick=True)
        bench.allocate(MEMORY_BYTES)[:] = np.random.default_rng(5).integers(0, 256, MEMORY_BYTES, np.uint8)
        for channel in range(machine.memory.channels):
            bench.attach_memory(
                f"m_axi_{channel}",
                channel=channel,
                channels=machine.memory.channels,
                interleave=machine.memory.interleave,
                timing=self.timing,
                hostility=self.hostility,
            )
        groups = range(machine.groups)
        self.instructions = [bench.source(f"instructions_{group}", self.hostility) for group in groups]
        self.reports = [bench.sink(f"report_{lane}", self.hostility) for lane in range(self.chip.unit.lanes)]
        self.dones = [bench.sink(f"done_{group}") for group in groups]
        self.faults = bench.sink("fault")
        bench.set("limit", MEMORY_BYTES)
        bench.reset()
        self.entries: dict[int, NDArray[np.uint8]] = {}

    def set_entry(self, number: int, values: dict[str, int]) -> None:
        """Writes an entry of the step table."""
        self.entries[number] = encode_entry(values)
        for name, value in (("index", number), ("entry", int.from_bytes(self.entries[number].tobytes(), "little"))):
            self.bench.set(f"table_write_{name}", value)
        self.bench.set("table_write_enable", 1)
        self.bench.step(1)
        self.bench.set("table_write_enable", 0)

    def push(self, index: int, instruction: Instruction) -> None:
        """Gives an UPDATE to its group."""
        word = int.from_bytes(instruction.encode(), "little")
        source = self.instructions[instruction.group]
        record: Any = np.zeros(1, source.dtype)
        body = (word >> HEADER_BITS).to_bytes(source.dtype["body"].itemsize, "little")
        record["index"], record["opcode"] = index, word & 0xFF
        record["body"] = np.frombuffer(body, np.uint8)
        source.push(record)

    def expected(self, instructions: list[Instruction]) -> FunctionalChip:
        """What the functional simulator makes of the memory, and of the range registers."""
        machine = self.chip.machine
        chip = FunctionalChip(machine, self.bench.memory.copy())
        pes = machine.pes_per_group
        for number, entry in self.entries.items():
            chip.params[number] = entry
            chip.loaded_params[number] = True
        for group in range(machine.groups):
            for pe in range(pes):
                chip.gradients[group, pe] = [gradient(group, pe, a, pes) for a in range(machine.gradient_words)]
        for instruction in instructions:
            chip.unused[:] = True
            run_update(chip, instruction)
        return chip

    def registers(self) -> NDArray[np.uint32]:
        """The range registers that the reports make."""
        found = np.zeros((256, 4), np.uint32)
        for sink in self.reports:
            for report in sink.pop()[0]:
                assert report["saturated"] == 0
                found[report["register"], 0] |= report["magnitudes"]
                found[report["register"], 2] |= report["overflow"]
        return found


#: Machines whose memory differs: one lane and channel; two lanes, one of them of one group, on two channels; an engine a lane.
MACHINES = {
    "tiny": TINY,
    "wide": TINY.with_changes(name="wide", groups=3, memory=Memory("ddr4_2400", 2, 256, 32, 1 << 26)),
    "narrow": TINY.with_changes(name="narrow", groups=4, pes_per_group=1, memory=ECP5_85F.memory),
}
MakeBench = Callable[..., UpdateBench]


@pytest.fixture(scope="session")
def update_bench() -> MakeBench:
    """Makes benches: name of the machine, timing, hostility; memory of random bytes."""
    designs: dict[str, tuple[UpdateChip, Netlist]] = {}

    def make(name: str, *arguments: Any) -> UpdateBench:
        if name not in designs:
            chip = UpdateChip(MACHINES[name])
            designs[name] = chip, netlist(chip)
        return UpdateBench(*designs[name], *arguments)

    return make
