"""Runs of a component in Amaranth's simulator; a POST unit with lane memories and a step table on the test bench."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from fixgrad.gateware.axi import Interconnect, MemoryPorts
from fixgrad.gateware.control.layouts import HEADER_BITS, INDEX_BITS
from fixgrad.gateware.control.step_table import StepTable, table_write_layout
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.pe.group import GROUP_DRAIN_LATENCY
from fixgrad.gateware.post.post_unit import PostUnit
from fixgrad.gateware.simulation import Bench, DramTiming, Hostility, Netlist, netlist
from fixgrad.gateware.simulation.bench import Sink, Source
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction
from fixgrad.machine.presets import TINY
from fixgrad.simulate.functional.chip import Chip

Run = Callable[[Any], Any]
MEMORY_BYTES = 1 << 19


class PostChip(wiring.Component):
    """The unit, its interconnect, a step table and lane memories that answer as a group does."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.unit = PostUnit(machine)
        self.interconnect = Interconnect(MemoryPorts.of(machine), len(self.unit.read_ports), len(self.unit.write_ports))
        address = (machine.groups * machine.pes_per_group * machine.lane_words - 1).bit_length()
        ports = MemoryPorts.of(machine)
        super().__init__(
            {
                "m_axi": self.interconnect.signature.members["m_axi"],
                "instructions": self.unit.signature.members["instructions"],
                "done": Out(stream.Signature(1)),
                "fault": Out(stream.Signature(UNIT_FAULT)),
                "busy": Out(1),
                "blocked": Out(1),
                "memory_waits": Out(1),
                "quiet": Out(1),
                "stop": In(1),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "lanes": In(stream.Signature(data.StructLayout({"address": address, "data": 32 * machine.lanes}))),
                "entries": In(stream.Signature(table_write_layout())),
                "drains": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        machine, unit = self.machine, self.unit
        m.submodules.unit, m.submodules.interconnect = unit, self.interconnect
        m.submodules.table = table = StepTable(machine, 1)
        for mine, inner in zip(self.m_axi, self.interconnect.m_axi, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        wiring.connect(m, wiring.flipped(self.instructions), unit.instructions)
        for engines, ports in ((unit.read_ports, self.interconnect.readers), (unit.write_ports, self.interconnect.writers)):
            for engine, port in zip(engines, ports, strict=True):
                for mine, inner in zip(engine, port, strict=True):
                    wiring.connect(m, mine, inner)
        wiring.connect(m, unit.table, table.readers[0])
        m.d.comb += [
            self.done.valid.eq(unit.done),
            self.fault.valid.eq(unit.fault.valid),
            self.fault.payload.eq(unit.fault.payload),
            self.quiet.eq(unit.quiet),
            self.busy.eq(unit.activity.busy),
            self.blocked.eq(unit.activity.blocked),
            self.memory_waits.eq(unit.activity.memory),
            unit.stop.eq(self.stop),
            unit.base.eq(self.base),
            unit.limit.eq(self.limit),
            self.lanes.ready.eq(1),
            self.entries.ready.eq(1),
            table.write.eq(self.entries.payload),
            table.write.enable.eq(self.entries.valid),
        ]
        asked = Signal(range(machine.groups + 1))
        m.d.comb += asked.eq(sum((ask.any() for ask in unit.drain), 0))
        m.d.sync += self.drains.eq(self.drains + asked)
        for group in range(machine.groups):
            self._group(m, group)
        return m

    def _group(self, m: Module, group: int) -> None:
        pes, words, unit = self.machine.pes_per_group, self.machine.lane_words, self.unit
        found, value = Signal(range(max(pes, 2)), name=f"pe_of_{group}"), None
        for pe in range(pes):
            m.submodules[f"lanes_{group}_{pe}"] = memory = Memory(shape=32 * self.machine.lanes, depth=words, init=[])
            write, read = memory.write_port(), memory.read_port()
            first = (group * pes + pe) * words
            m.d.comb += [
                write.addr.eq(self.lanes.payload.address - first),
                write.data.eq(self.lanes.payload.data),
                write.en.eq(
                    self.lanes.valid & (self.lanes.payload.address >= first) & (self.lanes.payload.address < first + words)
                ),
                read.addr.eq(unit.drain_address[group]),
                read.en.eq(1),
            ]
            with m.If(unit.drain[group][pe]):
                m.d.sync += found.eq(pe)
            value = read.data if value is None else Mux(found == pe, read.data, value)
        # What nobody asked for is not the word of before.
        asked = Signal(name=f"asked_{group}")
        m.d.sync += asked.eq(unit.drain[group].any())
        word = Mux(asked, value, ~value)
        for cycle in range(GROUP_DRAIN_LATENCY - 1):
            later = Signal(32 * self.machine.lanes, name=f"word_{group}_{cycle}")
            m.d.sync += later.eq(word)
            word = later
        m.d.comb += unit.drained[group].eq(word)


@dataclass
class PostBench:
    """A chip on the bench and the functional simulator's chip, with the same memory, lanes and step table."""

    machine: Machine
    bench: Bench
    hostility: Hostility
    oracle: Chip
    given: int = field(default=0)

    def __post_init__(self) -> None:
        bench = self.bench
        self.instructions: Source = bench.source("instructions", self.hostility)
        self.lanes, self.entries = bench.source("lanes"), bench.source("entries")
        self.dones: Sink = bench.sink("done")
        self.faults: Sink = bench.sink("fault")

    def load(self, accumulators: NDArray[np.int32], entries: NDArray[np.uint8]) -> None:
        """Fills the lane memories and the step table, here and there."""
        machine = self.machine
        self.oracle.lanes[...] = accumulators
        self.oracle.params[: len(entries)] = entries
        self.oracle.loaded_params[: len(entries)] = True
        flat = accumulators.reshape(-1, machine.lanes)
        records = np.zeros(len(flat), self.lanes.dtype)
        records["address"] = np.arange(len(flat))
        if self.lanes.dtype["data"].shape:
            records["data"] = flat.view(np.uint8).reshape(len(flat), -1)
        else:
            records["data"] = flat.view(f"<u{4 * machine.lanes}").reshape(-1)
        self.lanes.push(records)
        table = np.zeros(len(entries), self.entries.dtype)
        table["index"] = np.arange(len(entries))
        table["entry"] = entries
        self.entries.push(table)
        self.bench.step(len(flat) + len(entries) + 4)

    def give(self, *instructions: Instruction) -> None:
        """Pushes instructions; their places count from 0."""
        records = np.zeros(len(instructions), self.instructions.dtype)
        for record, instruction in zip(records, instructions, strict=True):
            body = int.from_bytes(instruction.encode(), "little") >> HEADER_BITS
            record["index"], record["opcode"] = self.given, instruction.opcode
            record["body"] = np.frombuffer(body.to_bytes(record["body"].nbytes, "little"), np.uint8)
            self.given += 1
        assert self.given < 1 << INDEX_BITS
        self.instructions.push(records)

    def share_memory(self) -> None:
        """The oracle's memory is a copy of the bench's from here on."""
        self.oracle.image[...] = self.bench.memory


@pytest.fixture(scope="session")
def post_designs() -> dict[str, Netlist]:
    """Netlists by name of the machine, made when first needed."""
    return {}


@pytest.fixture(scope="session")
def post_bench(post_designs: dict[str, Netlist]) -> Callable[..., PostBench]:
    """Makes benches: machine, timing, hostility; memory of random bytes."""

    def make(machine: Machine = TINY, timing: DramTiming | None = None, hostility: Hostility | None = None) -> PostBench:
        if machine.name not in post_designs:
            post_designs[machine.name] = netlist(PostChip(machine))
        bench = Bench(post_designs[machine.name], quick=True)
        bench.allocate(MEMORY_BYTES)[:] = np.random.default_rng(1).integers(0, 256, MEMORY_BYTES, np.uint8)
        for channel in range(machine.memory.channels):
            bench.attach_memory(
                f"m_axi_{channel}",
                channel=channel,
                channels=machine.memory.channels,
                interleave=machine.memory.interleave,
                timing=timing or DramTiming(),
                hostility=hostility or Hostility(),
            )
        made = PostBench(machine, bench, hostility or Hostility(), Chip(machine, np.zeros(MEMORY_BYTES, np.uint8)))
        bench.set("limit", MEMORY_BYTES)
        bench.reset()
        return made

    return make
