"""One narrow read engine and one narrow write engine for all that POST, LOSS and STATISTICS move besides feature maps."""

from amaranth.hdl import Array, Cat, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi import MemoryPorts, Reader, Writer
from fixgrad.gateware.axi.burst import FAULT
from fixgrad.gateware.axi.client import ReadPort, WritePort
from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.axi.window import element_layout
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS

#: Bytes of an element, and bits of the length of a transfer: the most are the range registers, 256 of 16 bytes.
ELEMENT_BYTES = 4
LENGTH_BITS = 13
#: Transfers read whose last element is still to come.
_TRANSFERS = 8

TRANSFER = data.StructLayout({"address": ADDRESS_BITS, "length": LENGTH_BITS})


class NarrowEngines(wiring.Component):
    """Engines of four bytes a cycle, for several clients each.

    Args:
        machine: gives the memory. readers, writers: clients.

    Members:
        reads: in, for each reader a stream of transfers; a lower number goes first. values: out, their elements
            (`element_layout` of 4 bytes).
        writes: in, for each writer a stream of transfers. elements: in, for each a stream of 32-bit elements, those of a
            transfer after it.
        settled: out, all that has been written is acknowledged.
        base, limit, stop, quiet; read_fault, write_fault; read_port, write_port: of the engines.
    """

    def __init__(self, machine: Machine, readers: int, writers: int) -> None:
        self.machine, self.memory = machine, MemoryPorts.of(machine)
        ports = self.memory
        super().__init__(
            {
                "reads": In(stream.Signature(TRANSFER)).array(readers),
                "values": Out(stream.Signature(element_layout(ELEMENT_BYTES))).array(readers),
                "writes": In(stream.Signature(TRANSFER)).array(writers),
                "elements": In(stream.Signature(8 * ELEMENT_BYTES)).array(writers),
                "settled": Out(1),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "quiet": Out(1),
                "read_fault": Out(stream.Signature(FAULT, always_ready=True)),
                "write_fault": Out(stream.Signature(FAULT, always_ready=True)),
                "read_port": Out(ReadPort(ports)).array(ports.channels),
                "write_port": Out(WritePort(ports)).array(ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The elementwise unit reads many short ones: a record for each channel.
        ahead = {"bursts": 8, "transfers": 8} if self.machine.elementwise_lanes else {"bursts": 2}
        m.submodules.reader = reader = Reader(self.memory, ELEMENT_BYTES, length_bits=LENGTH_BITS, in_block_ram=True, **ahead)
        m.submodules.writer = writer = Writer(self.memory, ELEMENT_BYTES, length_bits=LENGTH_BITS)
        for engine, port, fault in ((reader, self.read_port, self.read_fault), (writer, self.write_port, self.write_fault)):
            m.d.comb += [
                engine.base.eq(self.base),
                engine.limit.eq(self.limit),
                engine.stop.eq(self.stop),
                fault.valid.eq(engine.fault.valid),
                fault.payload.eq(engine.fault.payload),
            ]
            for mine, inner in zip(port, engine.port, strict=True):
                wiring.connect(m, wiring.flipped(mine), inner)
        m.d.comb += self.quiet.eq(reader.quiet & writer.quiet)
        self._read(m, reader)
        self._write(m, writer)
        return m

    def _read(self, m: Module, reader: Reader) -> None:
        """Elements go to the client whose transfer they are of."""
        m.submodules.readers = readers = Fifo(range(max(len(self.reads), 2)), _TRANSFERS)
        chosen = Signal(readers.shape)
        for index, client in reversed(list(enumerate(self.reads))):
            with m.If(client.valid):
                m.d.comb += chosen.eq(index)
        command = Array([client.payload for client in self.reads])[chosen]
        wants, ready = Cat(client.valid for client in self.reads).any(), Signal()
        m.d.comb += [
            ready.eq(reader.commands.ready & readers.i.ready),
            reader.commands.valid.eq(wants & readers.i.ready),
            reader.commands.payload.address.eq(command.address),
            reader.commands.payload.length.eq(command.length),
            reader.commands.payload.size.eq(ELEMENT_BYTES),
            readers.i.valid.eq(wants & ready & (command.length != 0)),
            readers.i.payload.eq(chosen),
            reader.o.ready.eq(Array([value.ready for value in self.values])[readers.o.payload] & readers.o.valid),
            readers.o.ready.eq(reader.o.valid & reader.o.ready & reader.o.payload.last),
        ]
        for index, (client, value) in enumerate(zip(self.reads, self.values, strict=True)):
            m.d.comb += [
                client.ready.eq((chosen == index) & ready),
                value.valid.eq(reader.o.valid & readers.o.valid & (readers.o.payload == index)),
                value.payload.eq(reader.o.payload),
            ]

    def _write(self, m: Module, writer: Writer) -> None:
        """One transfer with all its elements after the other."""
        chosen, owner = (Signal(range(max(len(self.writes), 2)), name=name) for name in ("chosen_writer", "owner"))
        left = Signal(LENGTH_BITS)
        for index, client in reversed(list(enumerate(self.writes))):
            with m.If(client.valid):
                m.d.comb += chosen.eq(index)
        command, moves = Array([client.payload for client in self.writes])[chosen], Signal()
        begins, unanswered = Signal(), Signal(8)
        may_begin = (left == 0) & ~unanswered[-1]
        m.d.comb += [
            writer.commands.valid.eq(Cat(client.valid for client in self.writes).any() & may_begin),
            writer.commands.payload.address.eq(command.address),
            writer.commands.payload.length.eq(command.length),
            writer.commands.payload.size.eq(ELEMENT_BYTES),
            begins.eq(writer.commands.valid & writer.commands.ready),
            writer.i.valid.eq((left != 0) & Array([element.valid for element in self.elements])[owner]),
            writer.i.payload.eq(Array([element.payload for element in self.elements])[owner]),
            moves.eq(writer.i.valid & writer.i.ready),
            self.settled.eq((unanswered == 0) & (left == 0)),
        ]
        with m.If(begins):
            m.d.sync += [owner.eq(chosen), left.eq((command.length + ELEMENT_BYTES - 1) // ELEMENT_BYTES)]
        with m.Elif(moves):
            m.d.sync += left.eq(left - 1)
        m.d.sync += unanswered.eq(unanswered + (begins & (command.length != 0)) - writer.done)
        for index, (client, element) in enumerate(zip(self.writes, self.elements, strict=True)):
            m.d.comb += [
                client.ready.eq((chosen == index) & may_begin & writer.commands.ready),
                element.ready.eq((left != 0) & (owner == index) & writer.i.ready),
            ]


def connected(m: Module, source: stream.Interface, sink: stream.Interface, length: Value) -> None:
    """A stream of `turn_command` as one of transfers."""
    m.d.comb += [
        sink.valid.eq(source.valid),
        source.ready.eq(sink.ready),
        sink.payload.address.eq(source.payload.address),
        sink.payload.length.eq(length),
    ]

