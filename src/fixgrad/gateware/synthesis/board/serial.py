"""A serial line: start bit, eight bits from the lowest on, stop bit."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

_DATA_BITS = 8


class Receiver(wiring.Component):
    """Bytes from a line. There is no flow control: a byte that nobody takes until the next one ends is lost.

    Args:
        divisor: cycles of a bit, at least 4.

    Members:
        line: in, of another clock; high at rest.
        o: the bytes.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = _checked(divisor)
        super().__init__({"line": In(1, init=1), "o": Out(stream.Signature(_DATA_BITS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Two registers for a line of another clock domain.
        first, line = Signal(init=1), Signal(init=1)
        bits, left = Signal(_DATA_BITS), Signal(range(_DATA_BITS + 2))
        timer = Signal(range(2 * self.divisor))
        m.d.sync += [first.eq(self.line), line.eq(first)]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If((left == 0) & line):
            m.d.sync += timer.eq(0)
        with m.Elif(left == 0):  # the middle of the first bit is a bit and a half away
            m.d.sync += [timer.eq(self.divisor + self.divisor // 2 - 2), left.eq(_DATA_BITS + 1)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self.divisor - 1), left.eq(left - 1), bits.eq(Cat(bits[1:], line))]
            with m.If(left == 1):  # the stop bit; a line that is low there was no byte
                m.d.sync += [bits.eq(bits), self.o.payload.eq(bits), self.o.valid.eq(line)]
        return m


class Sender(wiring.Component):
    """Bytes onto a line.

    Args:
        divisor: cycles of a bit, at least 4.

    Members:
        i: the bytes. line: out, high at rest.
    """

    def __init__(self, divisor: int) -> None:
        self.divisor = _checked(divisor)
        super().__init__({"i": In(stream.Signature(_DATA_BITS)), "line": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        frame = Signal(_DATA_BITS + 1, init=-1)  # stop bit and data; ones follow
        left = Signal(range(_DATA_BITS + 3))
        timer = Signal(range(self.divisor))
        m.d.comb += self.i.ready.eq(left == 0)
        with m.If((left == 0) & ~self.i.valid):
            m.d.sync += timer.eq(0)
        with m.Elif(left == 0):
            m.d.sync += [self.line.eq(0), frame.eq(Cat(self.i.payload, 1)), left.eq(_DATA_BITS + 2), timer.eq(self.divisor - 1)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [timer.eq(self.divisor - 1), left.eq(left - 1), self.line.eq(frame[0]), frame.eq(Cat(frame[1:], 1))]
        return m


def _checked(divisor: int) -> int:
    if divisor < 4:
        raise ValueError(f"divisor is {divisor}: a bit takes at least 4 cycles; choose a lower rate")
    return divisor
