"""Joins what leaves the DMA engine in several cycles: words wider than a port, beats of the kernel path."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.load.sizes import Kind


class Join(wiring.Component):
    """Collects parts, first one lowest. A single part goes straight through.

    Members:
        i: parts: `data`, `kind`, `last` of its transfer. A transfer's end completes a whole; its other parts mean nothing.
        o: wholes: `data`, `kind`.
    """

    def __init__(self, part_bytes: int, parts: int) -> None:
        self.part_bits, self.parts = 8 * part_bytes, parts
        part = data.StructLayout({"data": self.part_bits, "kind": Kind, "last": 1})
        whole = data.StructLayout({"data": self.part_bits * parts, "kind": Kind})
        super().__init__({"i": In(stream.Signature(part)), "o": Out(stream.Signature(whole))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.parts == 1:
            m.d.comb += [
                self.o.payload.data.eq(self.i.payload.data),
                self.o.payload.kind.eq(self.i.payload.kind),
                self.o.valid.eq(self.i.valid),
                self.i.ready.eq(self.o.ready),
            ]
            return m
        place = Signal(range(self.parts))
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.o.payload.data.word_select(place, self.part_bits).eq(self.i.payload.data),
                self.o.payload.kind.eq(self.i.payload.kind),
                place.eq(place + 1),
            ]
            with m.If(self.i.payload.last | (place == self.parts - 1)):
                m.d.sync += [place.eq(0), self.o.valid.eq(1)]
        return m
