"""The gradient memory of a PE (WG): adds the sum of a tap to its word, a tap a cycle, and is read by UPDATE meanwhile."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import wrap, wraps
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.numbers import ACCUMULATOR_BITS


class GradientMemory(wiring.Component):
    """The lanes' registers run on from pixel to pixel and from tap to tap, so the products of a cycle are the difference of two
    totals, modulo 2**sum_bits. This is exact, as their sum needs no more bits; it saves a reset in each lane, and an adder
    tree as wide as a tap's sum. The differences add up to the tap's sum here.

        cycle 0   `read_address` and `read_zero` are presented
        cycle 1   `total` is here with the tap's last pixel; with `add` its sum is added to the word
        cycle 2   the word is written to `write_address`

    Members:
        begin: in: what was summed so far counts no more.
        read_address, read_zero: in, word to read; it counts as 0 where `read_zero`.
        read_data: out, one cycle later.
        total: in, sum of the lanes' registers.
        add: in, see above. write_address: in, with `add`.
        overflow: out, at cycle 2: a word left 32 bits.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "begin": In(1),
                "read_address": In(shape.gradient_bits),
                "read_zero": In(1),
                "read_data": Out(ACCUMULATOR_BITS),
                "total": In(shape.sum_bits),
                "add": In(1),
                "write_address": In(shape.gradient_bits),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=ACCUMULATOR_BITS, depth=self.shape.gradient_words, init=[])
        read, write = memory.read_port(), memory.write_port()
        zero = Signal()
        m.d.sync += zero.eq(self.read_zero)
        m.d.comb += [read.addr.eq(self.read_address), read.en.eq(1), self.read_data.eq(Mux(zero, 0, read.data))]

        before, tap_before = Signal(self.shape.sum_bits), Signal(signed(self.shape.tap_sum_bits))
        tap = tap_before + wrap(self.total - before, self.shape.sum_bits)
        word = self.read_data.as_signed() + tap
        result = Signal(word.shape())
        m.d.sync += [
            before.eq(self.total),
            tap_before.eq(Mux(self.begin | self.add, 0, tap)),
            result.eq(word),
            write.en.eq(self.add),
            write.addr.eq(self.write_address),
        ]
        m.d.comb += [write.data.eq(result[:ACCUMULATOR_BITS]), self.overflow.eq(write.en & wraps(result))]
        return m
