"""Some lanes and the memory engine that they share."""

from typing import Any

from amaranth.hdl import Cat, Module, Value, ValueLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.client import ReadPort, WritePort
from fixgrad.gateware.axi.streams import Arbiter, connect_payload
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.pe.sharing import shared
from fixgrad.gateware.update.block_cutter import BlockCutter
from fixgrad.gateware.update.block_reader import BlockReader
from fixgrad.gateware.update.block_writer import BlockWriter
from fixgrad.gateware.update.lane import UpdateLane
from fixgrad.gateware.update.shape import TENSORS, UpdateShape
from fixgrad.machine import Machine

#: Members of a lane that its cluster passes on, array by array.
_TO_MACHINE = ("instructions", "table", "report", "done", "busy", "memory", "blocked")
FROM_GROUPS = ("gradients", "gradient_wanted")
OF_LANE = (*_TO_MACHINE, "take_gradient", "gradient_address", *FROM_GROUPS)


def pass_on(m: Module, outer: Any, inner: Any, *, is_input: bool = False) -> None:
    """Connects a member of a component with the same member of one of its parts: an interface, a value, or an array of those."""
    if isinstance(outer, list | tuple):
        for one, other in zip(outer, inner, strict=True):
            pass_on(m, one, other, is_input=is_input)
    elif isinstance(outer, ValueLike):
        to, value = (inner, outer) if is_input else (outer, inner)
        m.d.comb += Value.cast(to).eq(Value.cast(value))
    else:
        wiring.connect(m, wiring.flipped(outer), inner)


class UpdateCluster(wiring.Component):
    """Members, to the machine: as of `UpdateLane`, arrays over the lanes. Members, to the memory: as of `Update`, with one
    engine: base, limit, stop, quiet, fault, read_port, write_port."""

    def __init__(self, machine: Machine, shape: UpdateShape) -> None:
        self.machine, self.shape = machine, shape
        ports, count = shape.ports, shape.lanes
        self.lanes = [UpdateLane(machine, shape) for _ in range(count)]
        of_lane = {name: self.lanes[0].signature.members[name].array(count) for name in OF_LANE}
        super().__init__(
            {
                **of_lane,
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
        for number, lane in enumerate(self.lanes):
            m.submodules[f"lane_{number}"] = shared(lane, platform)
            for name in OF_LANE:
                pass_on(m, getattr(self, name)[number], getattr(lane, name), is_input=name in FROM_GROUPS)
            connect_payload(m, reader.o[number], lane.beats_read)
            connect_payload(m, writer.runs[number], lane.runs)
            connect_payload(m, lane.beats_written, writer.beats[number])
        read_cut = self._cut(m, "reads", reader.blocks)
        write_cut = self._cut(m, "writes", writer.blocks)
        for number, lane in enumerate(self.lanes):
            streams = [self.shape.stream(number, tensor) for tensor in range(TENSORS)]
            m.d.comb += [
                lane.words.eq(read_cut.words),
                lane.read_cut.eq(Cat(read_cut.valid & (read_cut.stream == each) for each in streams)),
                lane.write_cut.eq(Cat(write_cut.valid & (write_cut.stream == each) for each in streams)),
                lane.written.eq(Cat(writer.done[each] for each in streams)),
            ]
        self._memory(m, reader, writer)
        return m

    def _cut(self, m: Module, name: str, blocks: stream.Interface) -> Value:
        """Transfers of all lanes into blocks; returns what is cut in this cycle."""
        shape = self.shape
        m.submodules[f"{name}_cutter"] = cutter = BlockCutter(shape)
        m.submodules[f"{name}_turn"] = turn = Arbiter(shape.transfer(), shape.lanes)
        for number, (lane, i) in enumerate(zip(self.lanes, turn.i, strict=True)):
            asked, may = getattr(lane, name), getattr(lane, f"may_{name[:-1]}")
            free = Cat(cutter.free[shape.stream(number, tensor)] for tensor in range(TENSORS))
            m.d.comb += [
                i.valid.eq(asked.valid & free.bit_select(asked.payload.tensor, 1)),
                asked.ready.eq(i.ready),
                *(i.payload[field].eq(asked.payload[field]) for field in ("address", "length", "index")),
                i.payload.stream.eq((asked.payload.tensor << shape.lane_bits) | number),
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
