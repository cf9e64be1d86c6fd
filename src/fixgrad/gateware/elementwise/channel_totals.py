"""Adds up the sums of CHANNEL_SUMS and sends them to memory: two int64 into a channel's record, or one int32."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.elementwise.engine import channel_sum_layout
from fixgrad.gateware.elementwise.plan import CHANNEL_BITS
from fixgrad.gateware.post.narrow_engines import ELEMENT_BYTES, TRANSFER
from fixgrad.machine import Machine
from fixgrad.machine.elementwise_instructions import RECORD_BYTES
from fixgrad.machine.instructions import ADDRESS_BITS

#: Bits of the sums of a channel.
TOTAL_BITS, PRODUCT_BITS = 39, 54
#: Channels whose sums wait to be written, and those between the issue of a tap and its sum.
_CHANNELS, _ON_THE_WAY = 16, 8
_BOTH = data.StructLayout({"total": signed(TOTAL_BITS), "product": signed(PRODUCT_BITS)})


class ChannelTotals(wiring.Component):
    """The channels of one instruction at a time.

    Members:
        begin: in, a pulse. channels, products, target: in, steady, of the instruction.
        sums: in, see `channel_sum_layout`; room: out, the sums of a tap that is issued now will find room.
        writes, elements: out, see `NarrowEngines`. busy: out, not all of them have been handed on.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "begin": In(1),
                "channels": In(CHANNEL_BITS),
                "products": In(1),
                "target": In(ADDRESS_BITS),
                "sums": In(channel_sum_layout(machine)),
                "room": Out(1),
                "writes": Out(stream.Signature(TRANSFER)),
                "elements": Out(stream.Signature(8 * ELEMENT_BYTES)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = Fifo(_BOTH, _CHANNELS)
        before, now = Signal(_BOTH), Signal(_BOTH)
        m.d.comb += [
            now.total.eq(before.total + self.sums.first),
            now.product.eq(before.product + self.sums.product),
            queue.i.valid.eq(self.sums.valid & self.sums.ends_channel),
            queue.i.payload.eq(now),
            self.room.eq(queue.level <= _CHANNELS - _ON_THE_WAY),
        ]
        with m.If(self.sums.valid):
            m.d.sync += before.eq(Mux(self.sums.ends_channel, 0, now.as_value()))
        left, address, within, place = Signal(CHANNEL_BITS), Signal(ADDRESS_BITS), Signal(), Signal(2)
        is_last = place == Mux(self.products, 3, 0)
        words = [value for name in ("total", "product") for value in _halves(queue.o.payload[name])]
        m.d.comb += [
            self.writes.valid.eq(queue.o.valid & ~within),
            self.writes.payload.address.eq(address),
            self.writes.payload.length.eq(Mux(self.products, 4 * ELEMENT_BYTES, ELEMENT_BYTES)),
            self.elements.valid.eq(within),
            self.elements.payload.eq(Array(words)[place]),
            queue.o.ready.eq(within & self.elements.ready & is_last),
            self.busy.eq(left != 0),
        ]
        with m.If(self.writes.valid & self.writes.ready):
            m.d.sync += within.eq(1)
        with m.If(within & self.elements.ready):
            m.d.sync += [place.eq(Mux(is_last, 0, place + 1)), within.eq(~is_last)]
        with m.If(self.begin):
            m.d.sync += [left.eq(self.channels), address.eq(self.target)]
        with m.Elif(queue.o.ready):
            m.d.sync += [left.eq(left - 1), address.eq(address + Mux(self.products, RECORD_BYTES, ELEMENT_BYTES))]
        return m


def _halves(value: Value) -> tuple[Value, Value]:
    """A signed value as two words of 32 bits."""
    wide = Cat(value, value[-1].replicate(64 - len(value)))
    return wide[:32], wide[32:]
