"""Writes the blocks of all streams."""

from dataclasses import replace

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.burst import FaultKind, burst_layout
from fixgrad.gateware.axi.client import WritePort
from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.axi.window import byte_mask
from fixgrad.gateware.axi.writer import BurstSender
from fixgrad.gateware.control.layouts import INDEX_BITS
from fixgrad.gateware.control.supervisor import UNIT_FAULT
from fixgrad.gateware.update.block_reader import is_inside
from fixgrad.gateware.update.shape import UpdateShape

#: Blocks whose beats are awaited; beats on their way to the memory; bursts that wait for their responses.
BLOCKS, BEATS, BURSTS = 16, 32, 32


class BlockWriter(wiring.Component):
    """A beat a cycle, in the order of the blocks.

    Members:
        blocks: in, stream; all words of a block are here.
        runs: out, array, for each lane a stream of what it is to assemble. beats: in, array, what it has assembled.
        base, limit, stop: see `BurstSplitter`; a block that does not lie in [base, limit) is dropped with a fault.
        fault: out, stream: such a block, or a burst that the memory answered with an error.
        done: out, a bit for each stream: a transfer of it has been acknowledged.
        quiet: out: every burst has been answered.
        port: out, to the interconnect, one for each channel.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self.shape = shape
        ports = shape.ports
        super().__init__(
            {
                "blocks": In(stream.Signature(shape.block())),
                "runs": Out(stream.Signature(shape.run())).array(shape.lanes),
                "beats": In(stream.Signature(8 * ports.port_bytes)).array(shape.lanes),
                "base": In(ports.address_bits),
                "limit": In(ports.address_bits + 1),
                "stop": In(1),
                "fault": Out(stream.Signature(UNIT_FAULT, always_ready=True)),
                "done": Out(shape.streams),
                "quiet": Out(1),
                "port": Out(WritePort(ports)).array(ports.channels),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, ports, block = self.shape, self.shape.ports, self.blocks.payload
        shift, word = ports.offset_bits, shape.word_bytes.bit_length() - 1
        # An instruction's place travels above the address, so that a failing burst can name it.
        wide = replace(ports, address_bits=ports.address_bits + INDEX_BITS)
        burst = burst_layout(wide)
        ends = dict.fromkeys(("first", "last_byte"), ports.offset_bits)
        awaited = data.StructLayout({"lane": range(max(shape.lanes, 2)), "beats": 8, **ends})
        m.submodules.awaited = order = Fifo(awaited, BLOCKS)
        m.submodules.bursts = bursts = Fifo(burst, BLOCKS, patient=True)
        m.submodules.sender = sender = BurstSender(ports, BEATS, BURSTS, burst)
        m.submodules.ends = transfers = Fifo(shape.stream_bits, BLOCKS + BURSTS)
        inside, takes, room = Signal(), Signal(), Signal()
        lane, last_byte = block.stream[: shape.lane_bits], Signal(ports.address_bits)
        m.d.comb += [
            inside.eq(is_inside(block, self.base, self.limit)),
            last_byte.eq(block.address[: shape.block_bits] + block.length - 1),
            self.blocks.ready.eq(~self.stop & (~inside | room)),
            takes.eq(self.blocks.valid & self.blocks.ready & inside),
            order.i.valid.eq(takes),
            order.i.payload.lane.eq(lane),
            order.i.payload.beats.eq((last_byte >> shift) - (block.address[: shape.block_bits] >> shift)),
            order.i.payload.first.eq(block.address[:shift]),
            order.i.payload.last_byte.eq(last_byte[:shift]),
            bursts.i.valid.eq(takes),
            bursts.i.payload.address.eq(Cat(block.address, block.index)),
            bursts.i.payload.beats.eq(order.i.payload.beats),
            bursts.i.payload.last.eq(block.last),
            transfers.i.valid.eq(takes & block.last),
            transfers.i.payload.eq(block.stream),
        ]
        free = Signal()
        for number, runs in enumerate(self.runs):
            mine = lane == number if shape.lanes > 1 else Value.cast(1)
            with m.If(mine):
                m.d.comb += free.eq(runs.ready)
            m.d.comb += [
                runs.valid.eq(takes & mine),
                runs.payload.tensor.eq(block.stream[shape.lane_bits :]),
                runs.payload.first.eq(block.address[word:shift]),
                runs.payload.words.eq(block.words),
            ]
        m.d.comb += room.eq(free & order.i.ready & bursts.i.ready & transfers.i.ready)
        self._collect(m, order, sender)
        self._send(m, bursts, sender, transfers)
        refused = self.blocks.valid & self.blocks.ready & ~inside
        fault, failed = self.fault.payload, sender.failed_address
        m.d.comb += [
            self.fault.valid.eq(refused | sender.failed),
            fault.fault.kind.eq(Mux(refused, FaultKind.OUTSIDE, FaultKind.WRITE)),
            fault.fault.address.eq(Mux(refused, block.address, failed[: ports.address_bits])),
            fault.index.eq(Mux(refused, block.index, failed[ports.address_bits :])),
        ]
        return m

    def _collect(self, m: Module, order: Fifo, sender: BurstSender) -> None:
        """Beats of the lanes in the order of the blocks, with their strobes."""
        port_bytes, block = self.shape.ports.port_bytes, order.o.payload
        begins, ends, moves, count = Signal(init=1), Signal(), Signal(), Signal(8)
        before, until = Signal(port_bytes), Signal(port_bytes)
        out = sender.beats
        m.d.comb += [
            ends.eq(count == block.beats),
            before.eq(byte_mask(block.first, port_bytes)),
            until.eq(byte_mask(block.last_byte + 1, port_bytes)),
            out.payload.strobe.eq(~Mux(begins, before, 0) & Mux(ends, until, -1)),
            moves.eq(out.valid & out.ready),
            order.o.ready.eq(moves & ends),
        ]
        with m.Switch(block.lane):
            for number, beat in enumerate(self.beats):
                with m.Case(number):
                    m.d.comb += [
                        out.payload.data.eq(beat.payload),
                        out.valid.eq(beat.valid & order.o.valid),
                        beat.ready.eq(order.o.valid & out.ready),
                    ]
        with m.If(moves):
            m.d.sync += [count.eq(Mux(ends, 0, count + 1)), begins.eq(ends)]

    def _send(self, m: Module, bursts: Fifo, sender: BurstSender, transfers: Fifo) -> None:
        """To the memory; acknowledgements to the streams."""
        m.d.comb += [
            Value.cast(sender.bursts.payload).eq(Value.cast(bursts.o.payload)),
            sender.bursts.valid.eq(bursts.o.valid & ~self.stop),
            bursts.o.ready.eq(sender.bursts.ready & ~self.stop),
            self.quiet.eq(sender.quiet),
            transfers.o.ready.eq(sender.done),
            self.done.eq(Mux(sender.done, 1 << transfers.o.payload, 0)),
        ]
        for mine, inner in zip(self.port, sender.port, strict=True):
            wiring.connect(m, wiring.flipped(mine), inner)


