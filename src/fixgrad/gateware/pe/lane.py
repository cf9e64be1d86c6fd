"""A lane: an 8x8 multiplier, an accumulate register, and a memory of 32-bit words. One image of the batch.

    cycle 0   the PE reads the input buffer and the kernel queue (WG: and presents `read_address`)
    cycle 1   `x` and `weight` come (WG: the error from the lane's own memory)
    cycle 2   operands are registered (FF, NG: the PE presents `read_address`)
    cycle 3   the product is registered; the accumulator read from memory is here
    cycle 4   accumulator <= (first ? from memory : accumulator) + product is registered; the PE may store it

Written so that multiplier, its registers and the accumulator become one DSP48E2, and the memory one half block memory.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import wrap, wraps
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.numbers import ACCUMULATOR_BITS

#: Cycles from the read of the input buffer until the operands are registered, and until the accumulator holds the product.
OPERAND_CYCLE, ACCUMULATE_CYCLE = 2, 4


class Lane(wiring.Component):
    """One lane.

    Members:
        x: in, code from the input buffer, at cycle 1.
        weight: in, at cycle 1. 0 for a tap in the zero padding.
        use_error: in, at cycle 1: multiply by the low 8 bits of the memory's word instead of `weight` (WG).
        accumulate: in, at cycle 3: take the product.
        first: in, at cycle 3, with `accumulate`: add to the word from memory instead of the register.
        read_address: in; `read_data` (out) is the word one cycle later.
        read_zero: in, with `read_address`: the word counts as 0.
        write_address: in, with one of
        store: in: writes the accumulator's low 32 bits.
        store_error: in: writes the 8 bits of `error`; the other 24 bits of the word are of no use afterwards.
        accumulator: out, signed, wider than 32 bits.
        overflow: out, the accumulator does not fit 32 bits.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "x": In(signed(8)),
                "weight": In(signed(8)),
                "use_error": In(1),
                "accumulate": In(1),
                "first": In(1),
                "read_address": In(shape.lane_bits),
                "read_zero": In(1),
                "read_data": Out(signed(ACCUMULATOR_BITS)),
                "write_address": In(shape.lane_bits),
                "store": In(1),
                "store_error": In(1),
                "error": In(8),
                "accumulator": Out(signed(shape.accumulator_bits)),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=ACCUMULATOR_BITS, depth=self.shape.lane_words, init=[])
        # A port without a clock and a register with a reset are one synchronous port of a block memory, whose output
        # register the reset clears: zeros for words that were not written cost no logic.
        read, write = memory.read_port(domain="comb"), memory.write_port()
        m.d.comb += read.addr.eq(self.read_address)
        word = Signal(signed(ACCUMULATOR_BITS), reset_less=True)
        m.d.comb += self.read_data.eq(word)
        with m.If(self.read_zero):
            m.d.sync += word.eq(0)
        with m.Else():
            m.d.sync += word.eq(read.data)

        # Weight or error: two registers, one of which is held at 0, and the adder in front of a DSP48E2's multiplier. A choice
        # in front of one register would take 8 LUTs. What flows through needs no reset.
        a, d, b = (Signal(signed(8), name=name, reset_less=True) for name in ("a", "d", "b"))
        product = Signal(signed(16), reset_less=True)
        m.d.sync += [a.eq(self.weight), d.eq(wrap(self.read_data, 8)), b.eq(self.x), product.eq((a + d) * b)]
        with m.If(self.use_error):
            m.d.sync += a.eq(0)
        with m.Else():
            m.d.sync += d.eq(0)
        with m.If(self.accumulate):
            m.d.sync += self.accumulator.eq(Mux(self.first, self.read_data, self.accumulator) + product)

        low = Mux(self.store_error, self.error, self.accumulator[:8])
        m.d.comb += [
            self.overflow.eq(wraps(self.accumulator)),
            write.addr.eq(self.write_address),
            write.data.eq(Cat(low, self.accumulator[8:ACCUMULATOR_BITS])),
            write.en.eq(self.store | self.store_error),
        ]
        return m
