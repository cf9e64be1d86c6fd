"""Some groups and the memory engine that they share."""

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.client import ReadPort, WritePort
from fixgrad.gateware.axi.streams import Arbiter, connect_payload
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.update.block_cutter import BlockCutter
from fixgrad.gateware.update.block_reader import BlockReader
from fixgrad.gateware.update.block_writer import BlockWriter
from fixgrad.gateware.update.group import UpdateGroup
from fixgrad.gateware.update.shape import TENSORS, UpdateShape
from fixgrad.machine import Machine

#: Members of a group's unit that its cluster passes on, array by array.
_INTERFACES = ("instructions", "table", "report")
OF_GROUP = (*_INTERFACES, "done", "busy", "memory", "blocked", "take_gradient", "gradient_address")


class UpdateCluster(wiring.Component):
    """Members, to the machine: as of `UpdateGroup`, arrays over the groups. Members, to the memory: as of `Update`, with one
    engine: base, limit, stop, quiet, fault, read_port, write_port."""

    def __init__(self, machine: Machine, shape: UpdateShape) -> None:
        self.machine, self.shape = machine, shape
        ports, count = shape.ports, shape.groups
        self.groups = [UpdateGroup(machine, shape) for _ in range(count)]
        of_group = {name: self.groups[0].signature.members[name].array(count) for name in OF_GROUP}
        super().__init__(
            {
                **of_group,
                "gradients": In(32).array(count, machine.pes_per_group),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "quiet": Out(1),
                "fault": Out(stream.Signature(UNIT_FAULT, always_ready=True)),
                "read_port": Out(ReadPort(ports)).array(ports.channels),
                "write_port": Out(WritePort(ports)).array(ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = reader = BlockReader(self.shape)
        m.submodules.writer = writer = BlockWriter(self.shape)
        for number, group in enumerate(self.groups):
            m.submodules[f"group_{number}"] = shared(group, platform)
            for name in OF_GROUP:
                mine, inner = getattr(self, name)[number], getattr(group, name)
                if name in _INTERFACES:
                    wiring.connect(m, wiring.flipped(mine), inner)
                else:
                    m.d.comb += mine.eq(inner)
            for mine, inner in zip(self.gradients[number], group.gradients, strict=True):
                m.d.comb += inner.eq(mine)
            connect_payload(m, reader.o[number], group.beats_read)
            connect_payload(m, writer.runs[number], group.runs)
            connect_payload(m, group.beats_written, writer.beats[number])
        read_cut = self._cut(m, "reads", reader.blocks)
        write_cut = self._cut(m, "writes", writer.blocks)
        for number, group in enumerate(self.groups):
            streams = [self.shape.stream(number, tensor) for tensor in range(TENSORS)]
            m.d.comb += [
                group.words.eq(read_cut.words),
                group.read_cut.eq(Cat(read_cut.valid & (read_cut.stream == each) for each in streams)),
                group.write_cut.eq(Cat(write_cut.valid & (write_cut.stream == each) for each in streams)),
                group.written.eq(Cat(writer.done[each] for each in streams)),
            ]
        self._memory(m, reader, writer)
        return m

    def _cut(self, m: Module, name: str, blocks: stream.Interface) -> Value:
        """Transfers of all groups into blocks; returns what is cut in this cycle."""
        shape = self.shape
        m.submodules[f"{name}_cutter"] = cutter = BlockCutter(shape)
        m.submodules[f"{name}_turn"] = turn = Arbiter(shape.transfer(), shape.groups)
        for number, (group, i) in enumerate(zip(self.groups, turn.i, strict=True)):
            asked, may = getattr(group, name), getattr(group, f"may_{name[:-1]}")
            m.d.comb += [
                i.valid.eq(asked.valid),
                asked.ready.eq(i.ready),
                *(i.payload[field].eq(asked.payload[field]) for field in ("address", "length", "index")),
                i.payload.stream.eq((asked.payload.tensor << shape.group_bits) | number),
            ]
            m.d.comb += [cutter.may[shape.stream(number, tensor)].eq(may[tensor]) for tensor in range(TENSORS)]
        connect_payload(m, turn.o, cutter.open)
        connect_payload(m, cutter.o, blocks)
        cut: Value = cutter.cut
        return cut

    def _memory(self, m: Module, reader: BlockReader, writer: BlockWriter) -> None:
        for name in ("base", "limit", "stop"):
            m.d.comb += [getattr(engine, name).eq(getattr(self, name)) for engine in (reader, writer)]
        m.d.comb += [self.quiet.eq(reader.quiet & writer.quiet), self.fault.valid.eq(reader.fault.valid | writer.fault.valid)]
        m.d.comb += self.fault.payload.eq(reader.fault.payload)
        with m.If(writer.fault.valid):
            m.d.comb += self.fault.payload.eq(writer.fault.payload)
        for name, engine in (("read_port", reader), ("write_port", writer)):
            for mine, inner in zip(getattr(self, name), engine.port, strict=True):
                wiring.connect(m, wiring.flipped(mine), inner)
