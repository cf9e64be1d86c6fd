"""Where the taps of a window lie on one axis of the first operand, counted up without a product or a division.

    forward      place = pixel stride + tap - pad
    transposed   place = (pixel + pad - tap) / stride, where that is whole

From pixel to pixel the place moves by a whole number and a rest. A transposed window's tap lies at a place where its number and
the pixel's rest differ by whole strides: so the first one is the rest's, and only every `stride`-th one is gone through.
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.elementwise.plan import AXIS, COORDINATE_BITS, OF_ROWS, PLACE_BITS, TAP_BITS


class AxisWalk(wiring.Component):
    """One axis.

    Args:
        word_bits: width of an address in words, 0: the axis has neither words nor numbers, since a place is a word and a tap its
            own number.

    Members:
        axis: in, see `AXIS`, steady. of_words, of_numbers: in, see `OF_ROWS`, steady.
        begin: in, the first tap of the first pixel. next_pixel: in, the first tap of the next one. next_tap: in. first_tap: in,
            back to the pixel's first tap. At most one in a cycle.
        inside: out, the tap at hand meets a place of the operand. last: out, none of the pixel follows.
        place: out, signed; tap: out; words: out, modulo 2**word_bits; number: out, modulo 2**TAP_BITS.
    """

    def __init__(self, word_bits: int) -> None:
        self.word_bits = word_bits
        rows = {
            "of_words": In(data.StructLayout(dict.fromkeys(OF_ROWS, word_bits))),
            "of_numbers": In(data.StructLayout(dict.fromkeys(OF_ROWS, TAP_BITS))),
            "words": Out(word_bits),
            "number": Out(TAP_BITS),
        }
        super().__init__(
            {
                "axis": In(AXIS),
                **dict.fromkeys(("begin", "next_pixel", "next_tap", "first_tap"), In(1)),
                "inside": Out(1),
                "last": Out(1),
                "place": Out(signed(PLACE_BITS)),
                "tap": Out(COORDINATE_BITS + 1),
                **(rows if word_bits else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        axis = self.axis
        # `tap`: of a pixel, its rest, which is its first tap.
        at = data.StructLayout(
            {
                "place": signed(PLACE_BITS),
                "tap": COORDINATE_BITS + 1,
                **({"words": self.word_bits, "number": TAP_BITS} if self.word_bits else {}),
            }
        )
        pixel, tap, start = Signal(at, name="pixel"), Signal(at, name="tap_at"), Signal(at, name="start")
        next_pixel, next_tap = Signal(at, name="next_pixel_at"), Signal(at, name="next_tap_at")
        rest, carries = Signal(COORDINATE_BITS + 1), Signal()
        m.d.comb += [
            start.place.eq(axis.start.whole),
            start.tap.eq(axis.start.rest),
            rest.eq(pixel.tap + axis.by_pixel.rest),
            carries.eq(rest >= axis.modulus),
            next_pixel.place.eq(pixel.place + axis.by_pixel.whole + carries),
            next_pixel.tap.eq(Mux(carries, rest - axis.modulus, rest)),
            next_tap.place.eq(tap.place + Mux(axis.backward, -1, 1)),
            next_tap.tap.eq(tap.tap + axis.tap_step),
        ]
        if self.word_bits:
            words, numbers = self.of_words, self.of_numbers
            m.d.comb += [
                start.words.eq(words.start),
                start.number.eq(numbers.start),
                next_pixel.words.eq(pixel.words + words.by_pixel + Mux(carries, words.more, 0)),
                # A rest grows by one tap at most, and ends with 0.
                next_pixel.number.eq(Mux(carries, 0, pixel.number + Mux(axis.by_pixel.rest != 0, numbers.more, 0))),
                next_tap.words.eq(tap.words + words.by_tap),
                next_tap.number.eq(tap.number + numbers.by_tap),
                self.words.eq(tap.words),
                self.number.eq(tap.number),
            ]
        with m.If(self.begin):
            m.d.sync += [pixel.eq(start), tap.eq(start)]
        with m.Elif(self.next_pixel):
            m.d.sync += [pixel.eq(next_pixel), tap.eq(next_pixel)]
        with m.Elif(self.next_tap):
            m.d.sync += tap.eq(next_tap)
        with m.Elif(self.first_tap):
            m.d.sync += tap.eq(pixel)
        below = tap.place.as_unsigned() < axis.limit  # one below 0 is far above as an unsigned number
        m.d.comb += [
            self.place.eq(tap.place),
            self.tap.eq(tap.tap),
            self.inside.eq((tap.tap < axis.taps) & (axis.endless | below)),
            self.last.eq(tap.tap + axis.tap_step >= axis.taps),
        ]
        return m
