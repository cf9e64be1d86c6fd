"""Where the taps of a window lie on one axis of the first operand, counted up without a product or a division.

    forward      place = pixel stride + tap - pad
    transposed   place = (pixel + pad - tap) / stride, where that is whole

Both are the same walk: from pixel to pixel and from tap to tap the place moves by a whole number and a rest.
"""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.elementwise.plan import AXIS, PLACE_BITS


class AxisWalk(wiring.Component):
    """One axis.

    Args:
        word_bits: width of an address in words, 0: the axis has none, since a place is a word.

    Members:
        axis: in, see `AXIS`, steady. start_words, pixel_words, tap_words, row_words: in, the same moves in words, and a place.
        begin: in, the first tap of the first pixel. next_pixel: in, the first tap of the next one. next_tap: in. first_tap: in,
            back to the pixel's first tap. At most one in a cycle.
        inside: out, the tap at hand meets a place of the operand. place: out, signed; words: out, modulo 2**word_bits.
    """

    def __init__(self, word_bits: int) -> None:
        self.word_bits = word_bits
        steps = ("start_words", "pixel_words", "tap_words", "row_words")
        super().__init__(
            {
                "axis": In(AXIS),
                **({name: In(word_bits) for name in steps} if word_bits else {}),
                **dict.fromkeys(("begin", "next_pixel", "next_tap", "first_tap"), In(1)),
                "inside": Out(1),
                "place": Out(signed(PLACE_BITS)),
                **({"words": Out(word_bits)} if word_bits else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axis = self.axis
        layout = data.StructLayout({"place": signed(PLACE_BITS), "rest": len(axis.modulus), "words": max(self.word_bits, 1)})
        pixel, tap = Signal(layout), Signal(layout)
        start = Signal(layout)
        m.d.comb += [start.place.eq(axis.start.whole), start.rest.eq(axis.start.rest)]
        if self.word_bits:
            m.d.comb += start.words.eq(self.start_words)
        next_pixel = self._moved(m, pixel, axis.by_pixel, "pixel")
        next_tap = self._moved(m, tap, axis.by_tap, "tap")
        with m.If(self.begin):
            m.d.sync += [pixel.eq(start), tap.eq(start)]
        with m.Elif(self.next_pixel):
            m.d.sync += [pixel.eq(next_pixel), tap.eq(next_pixel)]
        with m.Elif(self.next_tap):
            m.d.sync += tap.eq(next_tap)
        with m.Elif(self.first_tap):
            m.d.sync += tap.eq(pixel)
        below = tap.place.as_unsigned() < axis.limit  # one below 0 is far above as an unsigned number
        m.d.comb += [self.place.eq(tap.place), self.inside.eq((tap.rest == 0) & (axis.endless | below))]
        if self.word_bits:
            m.d.comb += self.words.eq(tap.words)
        return m

    def _moved(self, m: Module, at: data.View, move: data.View, name: str) -> data.View:
        """A place further on by a move."""
        moved = Signal(at.shape(), name=f"next_{name}")
        rest, carries = Signal(len(at.rest) + 1, name=f"rest_of_{name}"), Signal(name=f"carry_of_{name}")
        m.d.comb += [
            rest.eq(at.rest + move.rest),
            carries.eq(rest >= self.axis.modulus),
            moved.rest.eq(Mux(carries, rest - self.axis.modulus, rest)),
            moved.place.eq(at.place + move.whole + carries),
        ]
        if self.word_bits:
            step: Value = self.pixel_words if name == "pixel" else self.tap_words
            m.d.comb += moved.words.eq(at.words + step + Mux(carries, self.row_words, 0))
        return moved
