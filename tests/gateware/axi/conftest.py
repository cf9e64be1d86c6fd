"""A chip of DMA engines alone, and a bench around it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from fixgrad.gateware.axi import Interconnect, MemoryPorts, Reader, Writer
from fixgrad.gateware.axi.burst import FAULT
from fixgrad.gateware.simulation import Bench, DramTiming, Hostility, Netlist, netlist
from fixgrad.gateware.simulation.bench import Sink, Source

Bytes = NDArray[np.uint8]


class DmaChip(wiring.Component):
    """A reader and a writer for each element size, on one interconnect."""

    def __init__(self, ports: MemoryPorts, element_bytes: tuple[int, ...]) -> None:
        self.memory, self.element_bytes = ports, element_bytes
        self.readers = [Reader(ports, size) for size in element_bytes]
        self.writers = [Writer(ports, size) for size in element_bytes]
        self.interconnect = Interconnect(ports, len(element_bytes), len(element_bytes))
        members = {
            "m_axi": self.interconnect.signature.members["m_axi"],
            "base": In(ports.address_bits),
            "limit": In(ports.address_bits + 1),
            "stop": In(1),
            "quiet": Out(1),
        }
        for index, (reader, writer) in enumerate(zip(self.readers, self.writers, strict=True)):
            members |= {
                f"read{index}": reader.signature.members["commands"],
                f"out{index}": reader.signature.members["o"],
                f"read_fault{index}": Out(stream.Signature(FAULT)),
                f"write{index}": writer.signature.members["commands"],
                f"in{index}": writer.signature.members["i"],
                f"write_fault{index}": Out(stream.Signature(FAULT)),
                f"done{index}": Out(stream.Signature(1)),
            }
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.interconnect = interconnect = self.interconnect
        for mine, inner in zip(self.m_axi, interconnect.m_axi, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        for index, (reader, writer) in enumerate(zip(self.readers, self.writers, strict=True)):
            m.submodules[f"reader{index}"], m.submodules[f"writer{index}"] = reader, writer
            for engine in (reader, writer):
                m.d.comb += [engine.base.eq(self.base), engine.limit.eq(self.limit), engine.stop.eq(self.stop)]
            for name, inner in (("read", reader.commands), ("out", reader.o), ("write", writer.commands), ("in", writer.i)):
                wiring.connect(m, wiring.flipped(getattr(self, f"{name}{index}")), inner)
            for name, fault in (("read", reader.fault), ("write", writer.fault)):
                out = getattr(self, f"{name}_fault{index}")
                m.d.comb += [out.payload.eq(fault.payload), out.valid.eq(fault.valid)]
            m.d.comb += getattr(self, f"done{index}").valid.eq(writer.done)
            for channel in range(self.memory.channels):
                wiring.connect(m, reader.port[channel], interconnect.readers[index][channel])
                wiring.connect(m, writer.port[channel], interconnect.writers[index][channel])
        m.d.comb += self.quiet.eq(Cat(*(e.quiet for e in (*self.readers, *self.writers))).all())
        return m


@dataclass
class DmaBench:
    """A bench with a source or sink on every stream of a `DmaChip`."""

    chip: DmaChip
    bench: Bench
    hostility: Hostility

    def __post_init__(self) -> None:
        bench, hostility = self.bench, self.hostility
        engines = range(len(self.chip.element_bytes))
        self.reads: list[Source] = [bench.source(f"read{i}", hostility) for i in engines]
        self.outs: list[Sink] = [bench.sink(f"out{i}", hostility) for i in engines]
        self.writes: list[Source] = [bench.source(f"write{i}", hostility) for i in engines]
        self.ins: list[Source] = [bench.source(f"in{i}", hostility) for i in engines]
        self.dones: list[Sink] = [bench.sink(f"done{i}") for i in engines]
        self.read_faults: list[Sink] = [bench.sink(f"read_fault{i}") for i in engines]
        self.write_faults: list[Sink] = [bench.sink(f"write_fault{i}") for i in engines]

    def push_elements(self, engine: int, data: Bytes, size: int, filler: int = 0) -> None:
        """The elements of a transfer; bytes that the engine must not write hold `filler`."""
        count = -(-len(data) // size)
        padded = np.full(count * size, filler, np.uint8)
        padded[: len(data)] = data
        records = np.full((count, self.ins[engine].dtype.itemsize), filler, np.uint8)
        records[:, self.chip.element_bytes[engine] :] = 0
        records[:, :size] = padded.reshape(count, size)
        self.ins[engine].push(records.view(self.ins[engine].dtype).reshape(-1))

    def pop_elements(self, engine: int) -> tuple[list[bytes], list[bool]]:
        """The elements that a reader gave, without the bytes that do not count, and which of them was a transfer's last."""
        records, _ = self.outs[engine].pop()
        elements = [record["data"].tobytes() for record in records]
        counts = [int(count) for count in records["count"]]
        assert all(not any(element[count:]) for element, count in zip(elements, counts, strict=True))
        return [element[:count] for element, count in zip(elements, counts, strict=True)], [bool(x) for x in records["last"]]


MakeBench = Callable[..., DmaBench]
CHIPS = {
    # name: ports, element sizes of the engines
    "one": (MemoryPorts(8, 1, 4096, 16), (8, 3)),
    "two": (MemoryPorts(16, 2, 256, 4), (3, 16)),
}
MEMORY_BYTES = 1 << 17


@pytest.fixture(scope="session")
def dma_designs() -> dict[str, tuple[DmaChip, Netlist]]:
    chips = {name: DmaChip(*parameters) for name, parameters in CHIPS.items()}
    return {name: (chip, netlist(chip)) for name, chip in chips.items()}


@pytest.fixture(scope="session")
def dma(dma_designs: dict[str, tuple[DmaChip, Netlist]]) -> MakeBench:
    """Makes benches: name of the chip, timing, hostility; memory of random bytes."""

    def make(name: str, timing: DramTiming | None = None, hostility: Hostility | None = None) -> DmaBench:
        chip, design = dma_designs[name]
        bench = Bench(design, quick=True)
        bench.allocate(MEMORY_BYTES)[:] = np.random.default_rng(1).integers(0, 256, MEMORY_BYTES, np.uint8)
        for channel in range(chip.memory.channels):
            bench.attach_memory(
                f"m_axi_{channel}",
                channel=channel,
                channels=chip.memory.channels,
                interleave=chip.memory.interleave,
                timing=timing or DramTiming(),
                hostility=hostility or Hostility(),
            )
        ends = DmaBench(chip, bench, hostility or Hostility())
        bench.set("limit", MEMORY_BYTES)
        bench.reset()
        return ends

    return make
