"""Joins rows that follow one another in memory to transfers that fill bursts."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.load.sizes import transfer_layout


class Coalescer(wiring.Component):
    """Holds a transfer as long as rows go on where it ends, until it reaches an aligned block of the size of a burst.

    A row a cycle. Nothing is cut, so a transfer consists of whole rows.

    Args:
        block: bytes of the longest burst, a power of two.

    Members:
        i: rows (`transfer_layout`), at least one byte each; `last` closes the transfer.
        o: transfers.
        empty: none is held.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        super().__init__(
            {
                "i": In(stream.Signature(transfer_layout())),
                "o": Out(stream.Signature(transfer_layout())),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        row, held, full = self.i.payload, Signal(transfer_layout()), Signal()
        end = Signal.like(held.address)
        goes_on, reached, joins = Signal(), Signal(), Signal()
        low = ceil_log2(self.block)
        m.d.comb += [
            goes_on.eq(row.address == end),
            reached.eq(held.length[low:].any() | (held.address[low] != end[low])),
            self.o.valid.eq(full & (held.last | reached | (self.i.valid & ~goes_on))),
            Value.cast(self.o.payload).eq(Value.cast(held)),
            joins.eq(full & ~self.o.valid),
            self.i.ready.eq(~self.o.valid | self.o.ready),
            self.empty.eq(~full),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                full.eq(1),
                held.eq(row),
                held.address.eq(Mux(joins, held.address, row.address)),
                held.length.eq(Mux(joins, held.length, 0) + row.length),
                end.eq(row.address + row.length),
            ]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += full.eq(0)
        return m
