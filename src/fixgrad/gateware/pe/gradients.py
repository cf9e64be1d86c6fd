"""The gradient memory of a PE (WG): adds the sum of a tap to its word, a tap a cycle, and is read by UPDATE meanwhile."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import wrap, wraps
from fixgrad.gateware.pe.shape import PeShape
from fixgrad.numbers import ACCUMULATOR_BITS


class GradientMemory(wiring.Component):
    """The lanes' registers run on from tap to tap, so a tap's sum is the difference of two totals, modulo 2**sum_bits.

    This is exact, as no tap's sum needs more bits, and saves a reset in each lane.

        cycle 0   `read_address` and `read_zero` are presented
        cycle 1   `total` is here; with `take` it becomes the total to subtract from the next, with `add` their difference
                  is added to the word
        cycle 2   the word is written to `write_address`

    Members:
        read_address, read_zero: in, word to read; it counts as 0 where `read_zero`.
        read_data: out, signed, one cycle later.
        total: in, sum of the lanes' registers.
        take, add: in, see above; `add` only with `take`.
        write_address: in, with `add`.
        overflow: out, at cycle 2: a word left 32 bits.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "read_address": In(shape.gradient_bits),
                "read_zero": In(1),
                "read_data": Out(ACCUMULATOR_BITS),
                "total": In(shape.sum_bits),
                "take": In(1),
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

        before = Signal(self.shape.sum_bits)
        with m.If(self.take):
            m.d.sync += before.eq(self.total)
        sum_of_tap = wrap(self.total - before, self.shape.sum_bits)
        word = self.read_data.as_signed() + sum_of_tap
        result = Signal(word.shape())
        m.d.sync += [result.eq(word), write.en.eq(self.add), write.addr.eq(self.write_address)]
        m.d.comb += [write.data.eq(result[:ACCUMULATOR_BITS]), self.overflow.eq(write.en & wraps(result))]
        return m
