"""Codes of one or two bytes out of elements of four bytes, and 8-bit codes into them."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.window import element_layout

#: Bytes of an element.
ELEMENT_BYTES = 4


class Unpack(wiring.Component):
    """A code a cycle.

    Members:
        wide: in, codes are of 16 bits, else of 8, sign-extended. i: in, stream of elements. o: out, stream of codes.
    """

    def __init__(self) -> None:
        super().__init__(
            {"wide": In(1), "i": In(stream.Signature(element_layout(ELEMENT_BYTES))), "o": Out(stream.Signature(16))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        element, place, after, moves = self.i.payload, Signal(range(ELEMENT_BYTES)), Signal(range(ELEMENT_BYTES + 1)), Signal()
        narrow = element.data.word_select(place, 8).as_signed()
        m.d.comb += [
            after.eq(place + Mux(self.wide, 2, 1)),
            self.o.valid.eq(self.i.valid),
            self.o.payload.eq(Mux(self.wide, element.data.word_select(place[1], 16), narrow)),
            moves.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(moves & (after >= element.count)),
        ]
        with m.If(moves):
            m.d.sync += place.eq(Mux(self.i.ready, 0, after))
        return m


class Pack(wiring.Component):
    """Four codes to an element; `last` ends one early.

    Members:
        i: in, stream of {code, last}, as a stream of 9 bits. o: out, stream of elements.
    """

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(9)), "o": Out(stream.Signature(8 * ELEMENT_BYTES))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        place, moves = Signal(range(ELEMENT_BYTES)), Signal()
        code, last = self.i.payload[:8], self.i.payload[8]
        ends = last | (place == ELEMENT_BYTES - 1)
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready), moves.eq(self.i.valid & self.i.ready)]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(moves):
            m.d.sync += [place.eq(Mux(ends, 0, place + 1)), self.o.valid.eq(ends)]
            m.d.sync += self.o.payload.word_select(place, 8).eq(code)
        return m
