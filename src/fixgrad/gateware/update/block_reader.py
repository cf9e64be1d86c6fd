"""Reads the blocks of all streams; hands their beats to the lanes."""

from amaranth.hdl import Array, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import FaultKind
from fixgrad.gateware.axi.client import ReadPort
from fixgrad.gateware.axi.streams import Fifo, SkidBuffer, connect_payload
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.update.shape import UpdateShape

#: Beats of each channel that may be asked for and not yet handed over.
BEATS_AHEAD = 32


def is_inside(block: Value, base: Value, limit: Value) -> Value:
    """Whether a block lies within [base, limit)."""
    inside: Value = (block.address >= base) & (block.address + block.length <= limit)
    return inside


class BlockReader(wiring.Component):
    """A beat a cycle, in the order of the blocks.

    Members:
        blocks: in, stream; whoever asks has room for all words of the block.
        o: out, array, for each lane a stream of beats.
        base, limit, stop: see `BurstSplitter`; a block that does not lie in [base, limit) is dropped with a fault.
        fault: out, stream: such a block, or a burst that the memory answered with an error.
        quiet: out: no burst is outstanding.
        port: out, to the interconnect, one for each channel.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self.shape = shape
        ports = shape.ports
        super().__init__(
            {
                "blocks": In(stream.Signature(shape.block())),
                "o": Out(stream.Signature(shape.beat())).array(shape.lanes),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(UNIT_FAULT, always_ready=True)),
                "quiet": Out(1),
                "port": Out(ReadPort(ports)).array(ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ports, block = self.shape.ports, self.blocks.payload
        shift = ports.offset_bits
        entry = data.StructLayout({"channel": max(ports.channel_bits, 1), "block": self.shape.block()})
        m.submodules.order = order = Fifo(entry, BEATS_AHEAD, patient=True)
        last_beat = Signal(range(ports.burst_beats))
        inside, takes = Signal(), Signal()
        channel = Signal(max(ports.channel_bits, 1))
        rooms = self._channels(m, channel, last_beat, takes)
        m.d.comb += [
            channel.eq(ports.channel(block.address)),
            last_beat.eq((block.address[:shift] + block.length - 1) >> shift),
            inside.eq(is_inside(block, self.base, self.limit)),
            self.blocks.ready.eq(~self.stop & (~inside | (rooms[channel] & order.i.ready))),
            takes.eq(self.blocks.valid & self.blocks.ready & inside),
            order.i.valid.eq(takes),
            order.i.payload.channel.eq(channel),
            Value.cast(order.i.payload.block).eq(Value.cast(block)),
        ]
        refused = self.blocks.valid & self.blocks.ready & ~inside
        self._hand_over(m, order, refused)
        return m

    def _channels(self, m: Module, channel: Value, last_beat: Value, takes: Value) -> "Array[Value]":
        """Requests and data of each channel; returns which of them have room for the longest burst."""
        ports = self.shape.ports
        beat = data.StructLayout({"data": 8 * ports.port_bytes, "error": 1, "last": 1})
        rooms, waits, self._beats = [], Signal(ports.channels), []
        most = self.shape.block_bytes // ports.port_bytes
        for index, port in enumerate(self.port):
            m.submodules[f"request_{index}"] = request = SkidBuffer(port.ar.payload.shape())
            m.submodules[f"data_{index}"] = fifo = Fifo(beat, BEATS_AHEAD, patient=True)
            connect_payload(m, request.o, port.ar)
            taken = Signal(range(BEATS_AHEAD + 1), name=f"taken_{index}")
            waiting = Signal(range(BEATS_AHEAD + 1), name=f"waiting_{index}")
            mine = Signal(name=f"mine_{index}")
            m.d.comb += [
                mine.eq(takes & (channel == index)),
                request.i.valid.eq(mine),
                request.i.payload.address.eq(ports.local(self.blocks.payload.address)),
                request.i.payload.beats.eq(last_beat),
                Value.cast(fifo.i.payload).eq(Value.cast(port.r.payload)),
                fifo.i.valid.eq(port.r.valid),
                waits[index].eq(waiting != 0),
            ]
            asked = Mux(mine, last_beat + 1, 0)
            m.d.sync += [
                taken.eq(taken + asked - (fifo.o.valid & fifo.o.ready)),
                waiting.eq(waiting + asked - port.r.valid),
            ]
            rooms.append((taken <= BEATS_AHEAD - most) & request.i.ready)
            self._beats.append(fifo.o)
        m.d.comb += self.quiet.eq(~waits.any())
        return Array(rooms)

    def _hand_over(self, m: Module, order: Fifo, refused: Value) -> None:
        """Beats in the order of the blocks to their lanes; errors become faults."""
        shape, ports, block = self.shape, self.shape.ports, order.o.payload.block
        word = shape.word_bytes.bit_length() - 1
        begins, moves, has_beat = Signal(init=1), Signal(), Signal()
        beat = Signal(self._beats[0].payload.shape())
        out = Signal(shape.beat())
        lane, tensor = block.stream[: shape.lane_bits], block.stream[shape.lane_bits :]
        last_byte = Signal(ports.offset_bits)
        with m.Switch(order.o.payload.channel):
            for index, of_channel in enumerate(self._beats):
                with m.Case(index):
                    m.d.comb += [
                        beat.eq(of_channel.payload),
                        has_beat.eq(of_channel.valid & order.o.valid),
                        of_channel.ready.eq(moves),
                    ]
        m.d.comb += [
            last_byte.eq(block.address + block.length - 1),
            out.data.eq(beat.data),
            out.tensor.eq(tensor),
            out.first.eq(Mux(begins, block.address[word : ports.offset_bits], 0)),
            out.last.eq(Mux(beat.last, last_byte[word:], shape.beat_words - 1)),
            order.o.ready.eq(moves & beat.last),
        ]
        with m.If(moves):
            m.d.sync += begins.eq(beat.last)
        for number, to in enumerate(self.o):
            mine = lane == number if shape.lanes > 1 else Value.cast(1)
            m.d.comb += [Value.cast(to.payload).eq(Value.cast(out)), to.valid.eq(has_beat & mine)]
            with m.If(has_beat & mine & to.ready):
                m.d.comb += moves.eq(1)
        fault, at = self.fault.payload, self.blocks.payload
        m.d.comb += [
            self.fault.valid.eq(refused | (moves & beat.error)),
            fault.fault.kind.eq(Mux(refused, FaultKind.OUTSIDE, FaultKind.READ)),
            fault.fault.address.eq(Mux(refused, at.address, block.address)),
            fault.index.eq(Mux(refused, at.index, block.index)),
        ]
