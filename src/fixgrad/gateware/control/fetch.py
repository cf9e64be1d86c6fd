"""Fetches a program: instructions of 128 bytes, one after another."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import FAULT, MemoryPorts
from fixgrad.gateware.axi.client import ReadPort
from fixgrad.gateware.axi.reader import Reader
from fixgrad.gateware.axi.streams import connect_payload
from fixgrad.gateware.control.layouts import INDEX_BITS, INSTRUCTION_BITS
from fixgrad.machine.instructions import INSTRUCTION_BYTES

#: An instruction as it lies in memory, and its place in the program.
FETCHED = data.StructLayout({"index": INDEX_BITS, "word": INSTRUCTION_BITS})


class Fetch(wiring.Component):
    """Reads ahead as far as the engine's bursts reach. Bring it back to its start with a reset.

    Members:
        start: a pulse: read `count` instructions from byte `address` on.
        o: instructions in order.
        index: instructions that have been read so far.
        base, limit, stop, fault, quiet, port: see `Reader`.
    """

    def __init__(self, ports: MemoryPorts) -> None:
        self.memory = ports
        super().__init__(
            {
                "start": In(1),
                "address": In(ports.address_bits),
                "count": In(INDEX_BITS),
                "o": Out(stream.Signature(FETCHED)),
                "index": Out(INDEX_BITS),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(FAULT, always_ready=True)),
                "quiet": Out(1),
                "port": Out(ReadPort(ports)).array(ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port_bytes = min(self.memory.port_bytes, INSTRUCTION_BYTES)
        length_bits = INDEX_BITS + INSTRUCTION_BYTES.bit_length() - 1
        # A program begins at a multiple of an instruction, so no byte is moved.
        m.submodules.reader = reader = Reader(
            self.memory, port_bytes, length_bits=length_bits, granule=port_bytes, in_block_ram=True
        )
        for name in ("base", "limit", "stop"):
            m.d.comb += getattr(reader, name).eq(getattr(self, name))
        m.d.comb += [
            self.quiet.eq(reader.quiet),
            self.fault.valid.eq(reader.fault.valid),
            self.fault.payload.eq(reader.fault.payload),
            reader.commands.valid.eq(self.start),
            reader.commands.payload.address.eq(self.address),
            reader.commands.payload.length.eq(self.count << (INSTRUCTION_BYTES.bit_length() - 1)),
            reader.commands.payload.size.eq(port_bytes),
        ]
        for mine, inner in zip(self.port, reader.port, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)
        m.submodules.collector = collector = Collector(port_bytes)
        connect_payload(m, reader.o, collector.i)
        m.d.comb += [
            self.o.valid.eq(collector.o.valid),
            collector.o.ready.eq(self.o.ready),
            self.o.payload.word.eq(collector.o.payload),
            self.o.payload.index.eq(self.index),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.index.eq(self.index + 1)
        return m


class Collector(wiring.Component):
    """Collects elements to instructions."""

    def __init__(self, element_bytes: int) -> None:
        self.element_bytes = element_bytes
        element = data.StructLayout({"data": 8 * element_bytes, "count": range(element_bytes + 1), "last": 1})
        super().__init__({"i": In(stream.Signature(element)), "o": Out(stream.Signature(INSTRUCTION_BITS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts = INSTRUCTION_BYTES // self.element_bytes
        part = Signal(range(max(parts, 2)))
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += self.o.payload.eq(Cat(self.o.payload[8 * self.element_bytes :], self.i.payload.data))
            with m.If(part == parts - 1):
                m.d.sync += [part.eq(0), self.o.valid.eq(1)]
            with m.Else():
                m.d.sync += part.eq(part + 1)
        return m
