"""Restoring division, a quotient bit a cycle."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Divider(wiring.Component):
    """floor(dividend / divisor) and the remainder, for unsigned numbers whose quotient fits `quotient_bits`.

    A divisor of 0 gives some quotient, in the same time.

    Members:
        begin: in, start; also in a cycle in which `done` is high.
        dividend: in, with `begin`, quotient_bits + divisor_bits wide. divisor: in, with `begin`.
        done: out, for one cycle, `latency` cycles after `begin`.
        quotient, remainder: out, from `done` until the next `begin`.
    """

    def __init__(self, quotient_bits: int, divisor_bits: int) -> None:
        self.quotient_bits, self.divisor_bits = quotient_bits, divisor_bits
        super().__init__(
            {
                "begin": In(1),
                "dividend": In(quotient_bits + divisor_bits),
                "divisor": In(divisor_bits),
                "done": Out(1),
                "quotient": Out(quotient_bits),
                "remainder": Out(divisor_bits),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from `begin` until `done`."""
        return self.quotient_bits + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        divisor, left = Signal(self.divisor_bits), Signal(range(self.quotient_bits + 1))
        # The quotient's register holds the dividend's lower bits until quotient bits replace them from below.
        tried = Signal(self.divisor_bits + 2)
        m.d.comb += tried.eq(Cat(self.quotient[-1], self.remainder) - divisor)
        m.d.sync += self.done.eq(left == 1)
        with m.If(self.begin):
            m.d.sync += [
                divisor.eq(self.divisor),
                Cat(self.quotient, self.remainder).eq(self.dividend),
                left.eq(self.quotient_bits),
            ]
        with m.Elif(left != 0):
            fits = ~tried[-1]
            m.d.sync += [self.quotient.eq(Cat(fits, self.quotient)), left.eq(left - 1)]
            with m.If(fits):
                m.d.sync += self.remainder.eq(tried)
            with m.Else():
                m.d.sync += self.remainder.eq(Cat(self.quotient[-1], self.remainder))
        return m
