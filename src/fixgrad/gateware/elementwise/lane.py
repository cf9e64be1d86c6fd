"""One lane of the elementwise unit: a window of the first operand, and the accumulator that it makes with the second one.

    cycle 0   codes of both operands come
    1         sum or maximum so far
    2, 3      its product with a, and that of the second code with b (or, for sums of channels, with the first one)
    4         the sum of both and c
    5, 6      shifted right
    7         rounded, saturated to 32 bits, rectified
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import saturate
from fixgrad.gateware.elementwise.coefficients import FACTOR_BITS, OFFSET_BITS, OTHER_FACTOR_BITS
from fixgrad.gateware.elementwise.plan import TAP_BITS
from fixgrad.gateware.post.post_lane import CODE_BITS
from fixgrad.machine.elementwise_instructions import ERRORS_OF_MAXIMA, MAXIMUM
from fixgrad.numbers import ACCUMULATOR_BITS

#: Bits of what becomes of a window: the sum of 4,096 codes.
WINDOW_BITS = CODE_BITS + 12
#: Bits of a product of two codes.
PRODUCT_BITS = 2 * CODE_BITS
#: The cycles in which the product of two codes, and the accumulator, are there.
PRODUCT_CYCLE, ACCUMULATOR_CYCLE = 3, 7
_TOTAL_BITS = FACTOR_BITS + WINDOW_BITS + 2

#: A tap, the same for all lanes: whether it is taken at all, meets a code, is the first of its pixel; its number; which of the
#: words' slices the lane has.
TAKE = data.StructLayout({"valid": 1, "inside": 1, "begins": 1, "number": TAP_BITS, "slice": 6})


class ElementwiseLane(wiring.Component):
    """One lane, or one of each slice of the words.

    Args:
        slices: of a word.

    Members; the number is the cycle of a tap in which it is taken or given:
        combine, sums, down, rectify: in, steady, see `ARITHMETIC`.
        take (0), first (0), argmax (0), second (0): in. a, b (1), c (3): in, of the channel.
        winner (1): out, number of the maximum's tap. first_code (1): out. product (3): out, see above.
        accumulator (7): out.
    """

    def __init__(self, slices: int) -> None:
        self.slices = slices
        super().__init__(
            {
                "combine": In(2),
                "sums": In(1),
                "down": In(5),
                "rectify": In(1),
                "take": In(TAKE),
                "first": In(signed(CODE_BITS)),
                "argmax": In(TAP_BITS),
                "second": In(signed(CODE_BITS)),
                "a": In(signed(FACTOR_BITS)),
                "b": In(signed(OTHER_FACTOR_BITS)),
                "c": In(signed(OFFSET_BITS)),
                "winner": Out(TAP_BITS),
                "first_code": Out(signed(CODE_BITS)),
                "product": Out(signed(PRODUCT_BITS)),
                "accumulator": Out(signed(ACCUMULATOR_BITS)),
            }
        )

    @property
    def shape(self) -> int:
        """What tells it from other lanes: see `fixgrad.gateware.pe.sharing`."""
        return self.slices

    def elaborate(self, platform: object) -> Module:
        m = Module()
        window = self._combine(m)
        second = Signal(signed(CODE_BITS))
        factor = Mux(self.sums, self.first_code, self.b)[:OTHER_FACTOR_BITS].as_signed()
        by_first = [Signal(signed(FACTOR_BITS + WINDOW_BITS), name=f"by_first_{cycle}") for cycle in range(2)]
        by_second = [Signal(signed(OTHER_FACTOR_BITS + CODE_BITS), name=f"by_second_{cycle}") for cycle in range(2)]
        total, partly, shifted = Signal(signed(_TOTAL_BITS)), Signal(signed(_TOTAL_BITS + 1)), Signal(signed(_TOTAL_BITS + 1))
        m.d.sync += [
            second.eq(self.second),
            self.first_code.eq(self.first),
            by_first[0].eq(window * self.a),
            by_second[0].eq(second * factor),
            by_first[1].eq(by_first[0]),
            by_second[1].eq(by_second[0]),
            total.eq(by_first[1] + by_second[1] + self.c),
            # One place more than the result has, which decides the rounding.
            partly.eq(Cat(Const(0, 1), total).as_signed() >> self.down[:2]),
            shifted.eq(partly >> (self.down & 0b11100)),
        ]
        rounded = Signal(signed(_TOTAL_BITS + 1))
        m.d.comb += [rounded.eq((shifted + 1) >> 1), self.product.eq(by_second[1])]
        m.d.sync += self.accumulator.eq(Mux(self.rectify & rounded[-1], 0, saturate(rounded, ACCUMULATOR_BITS)))
        return m

    def _combine(self, m: Module) -> Signal:
        """The window so far, of each slice; returns that of the tap of the cycle before."""
        layout = data.StructLayout({"value": signed(WINDOW_BITS), "number": TAP_BITS, "found": 1})
        take, before, after, window = self.take, Signal(layout, name="before"), Signal(layout, name="after"), Signal(layout)
        so_far = self._kept(m, layout, after)
        m.d.comb += before.eq(Mux(take.begins, 0, so_far))
        is_larger = ~before.found | (self.first > before.value)
        with m.If(self.combine == MAXIMUM):
            m.d.comb += after.eq(before)
            with m.If(take.inside & is_larger):
                m.d.comb += [after.value.eq(self.first), after.number.eq(take.number), after.found.eq(1)]
        with m.Else():
            counts = take.inside & ((self.combine != ERRORS_OF_MAXIMA) | (self.argmax == take.number))
            m.d.comb += after.value.eq(before.value + Mux(counts, self.first, 0))
        m.d.sync += window.eq(after)
        m.d.comb += self.winner.eq(window.number)
        return window.value

    def _kept(self, m: Module, layout: data.StructLayout, after: data.View) -> data.View:
        """What has been kept of the slice at hand."""
        if self.slices == 1:
            kept = Signal(layout, name="kept")
            with m.If(self.take.valid):
                m.d.sync += kept.eq(after)
            return kept
        m.submodules.windows = windows = Memory(shape=layout, depth=self.slices, init=[])
        write, read = windows.write_port(), windows.read_port(domain="comb")
        m.d.comb += [
            read.addr.eq(self.take.slice),
            write.addr.eq(self.take.slice),
            write.en.eq(self.take.valid),
            Value.cast(write.data).eq(Value.cast(after)),
        ]
        return data.View(layout, read.data)
