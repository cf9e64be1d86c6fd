"""Runs of a component in Amaranth's simulator, and the load unit on memory, with a sink on everything that it writes."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import Out

from fixgrad.gateware.axi import Interconnect, MemoryPorts
from fixgrad.gateware.control import UNIT_FAULT
from fixgrad.gateware.control.layouts import HEADER_BITS
from fixgrad.gateware.load import LoadUnit
from fixgrad.gateware.simulation import Bench, DramTiming, Hostility, Netlist, netlist
from fixgrad.gateware.simulation.bench import Sink, Source
from fixgrad.machine import Machine
from fixgrad.machine.encoding import Instruction, encode_program
from fixgrad.machine.parameters import Memory
from fixgrad.machine.presets import FORMAL, TINY

SimulatorBench = Callable[[Any], Any]
MEMORY_BYTES = 1 << 16
#: Machines by what is special about them.
MACHINES: dict[str, Machine] = {
    # several words a chunk
    "tiny": TINY.with_changes(kernel_words=32),
    # two words a beat, two channels: like the large machines, but short
    "wide": TINY.with_changes(
        groups=2, pes_per_group=4, lanes=16, memory=Memory("ddr4_2400", 2, 256, 32, MEMORY_BYTES), kernel_words=64
    ),
    # two chunks a word
    "narrow": TINY.with_changes(
        groups=3, pes_per_group=1, lanes=16, memory=Memory("sdr_133", 1, 4096, 8, MEMORY_BYTES), kernel_words=64
    ),
    "formal": FORMAL,
    # words that straddle beats and leave the engine in two parts of 12 bytes
    "odd": TINY.with_changes(lanes=24, kernel_words=64),
}


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The module `oracle.py` beside this file."""
    spec = spec_from_file_location("load_oracle", Path(__file__).with_name("oracle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class LoadChip(wiring.Component):
    """A load unit on its own, with streams in place of writes."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.memory = machine, MemoryPorts.of(machine)
        self.unit = LoadUnit(machine)
        self.interconnect = Interconnect(self.memory, 1, 1)
        unit = self.unit
        of = dict(unit.signature.members.items())
        write = unit.input_writes[0].shape()
        plain = {name: write[name].shape for name in ("address", "data")}
        entry = {"index": unit.table_write.shape()["index"].shape, "entry": 8 * 64}
        word = unit.kernels[0].payload.shape()
        members = {
            "m_axi": self.interconnect.signature.members["m_axi"],
            "instructions": of["instructions"],
            "done": Out(stream.Signature(1)),
            "fault": Out(stream.Signature(data.StructLayout({"kind": 2, "address": 40, "index": 24}))),
            "table": Out(stream.Signature(data.StructLayout(entry))),
            "activity": of["activity"],
            **{name: of[name] for name in ("base", "limit", "stop", "quiet")},
        }
        fields = {name: word[name].shape for name, _ in word}
        for group in range(machine.groups):
            members[f"kernel_{group}"] = Out(
                stream.Signature(data.StructLayout({**fields, "pes": machine.pes_per_group}))
            )
            for pe in range(machine.pes_per_group):
                members[f"error_{group}_{pe}"] = Out(unit.errors[group][pe].signature)
        for pe in range(machine.pes_per_group):
            members[f"input_{pe}"] = Out(stream.Signature(data.StructLayout(plain)))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit, m.submodules.interconnect = unit, interconnect = self.unit, self.interconnect
        for mine, inner in zip(self.m_axi, interconnect.m_axi, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        for mine, inner in zip(interconnect.readers[0], unit.read, strict=True):
            wiring.connect(m, mine, inner)
        wiring.connect(m, wiring.flipped(self.instructions), unit.instructions)
        fault = data.View(UNIT_FAULT, unit.fault.payload.as_value())
        m.d.comb += [
            *(getattr(unit, name).eq(getattr(self, name)) for name in ("base", "limit", "stop")),
            self.quiet.eq(unit.quiet),
            self.activity.eq(unit.activity),
            self.done.valid.eq(unit.done),
            self.fault.valid.eq(unit.fault.valid),
            self.fault.payload.index.eq(fault.index),
            self.fault.payload.kind.eq(fault.fault.kind),
            self.fault.payload.address.eq(fault.fault.address),
            self.table.valid.eq(unit.table_write.enable),
            self.table.payload.index.eq(unit.table_write.index),
            self.table.payload.entry.eq(unit.table_write.entry.as_value()),
        ]
        for group in range(self.machine.groups):
            kernel, of_unit = getattr(self, f"kernel_{group}"), unit.kernels[group]
            m.d.comb += [
                Value.cast(kernel.payload).eq(Cat(Value.cast(of_unit.payload), unit.kernel_pes[group])),
                kernel.valid.eq(of_unit.valid),
                of_unit.ready.eq(kernel.ready),
            ]
            for pe in range(self.machine.pes_per_group):
                wiring.connect(m, wiring.flipped(getattr(self, f"error_{group}_{pe}")), unit.errors[group][pe])
        for pe, write in enumerate(unit.input_writes):
            to = getattr(self, f"input_{pe}")
            m.d.comb += [to.valid.eq(write.enable), to.payload.address.eq(write.address), to.payload.data.eq(write.data)]
        return m


@dataclass
class LoadBench:
    """A bench with a source of instructions and a sink for everything else."""

    machine: Machine
    bench: Bench
    hostility: Hostility
    rests: Hostility
    source: Source = field(init=False)
    sinks: dict[str, Sink] = field(init=False)

    def __post_init__(self) -> None:
        groups, pes = range(self.machine.groups), range(self.machine.pes_per_group)
        waiting = [f"kernel_{g}" for g in groups] + [f"error_{g}_{p}" for g in groups for p in pes]
        taken = ["done", "fault", "table", *(f"input_{p}" for p in pes)]
        self.source = self.bench.source("instructions", self.hostility)
        self.sinks = {name: self.bench.sink(name, self.rests) for name in waiting}
        self.sinks |= {name: self.bench.sink(name) for name in taken}

    def push(self, program: list[Instruction]) -> None:
        """Instructions as dispatch hands them over; their places in the program count from 0."""
        records = np.zeros(len(program), self.source.dtype)
        body_bytes = records["body"].shape[1]
        for place, instruction in enumerate(program):
            body = int.from_bytes(encode_program([instruction]), "little") >> HEADER_BITS
            records[place]["index"], records[place]["opcode"] = place, instruction.opcode
            records[place]["body"] = np.frombuffer(body.to_bytes(body_bytes, "little"), np.uint8)
        self.source.push(records)


MakeBench = Callable[..., LoadBench]


@pytest.fixture(scope="session")
def designs() -> Callable[[str], Netlist]:
    made: dict[str, Netlist] = {}

    def design(name: str) -> Netlist:
        if name not in made:
            made[name] = netlist(LoadChip(MACHINES[name]))
        return made[name]

    return design


@pytest.fixture(scope="session")
def load(designs: Callable[[str], Netlist]) -> MakeBench:
    """Makes benches: name of the machine, timing, hostility of memory and streams, of the sinks; memory of random bytes."""

    def make(
        name: str,
        timing: DramTiming | None = None,
        hostility: Hostility | None = None,
        rests: Hostility | None = None,
    ) -> LoadBench:
        machine = MACHINES[name]
        bench = Bench(designs(name), quick=True)
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
        ends = LoadBench(machine, bench, hostility or Hostility(), rests or hostility or Hostility())
        bench.set("limit", MEMORY_BYTES)
        bench.reset()
        return ends

    return make


