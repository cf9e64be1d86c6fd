"""Division and integer root of single wide numbers, as fast as the numbers are short."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


def bit_length(m: Module, value: Value, name: str) -> Signal:
    """Bits of an unsigned value: 0 for 0. Combinational."""
    found = Signal(range(len(value) + 1), name=name)
    groups = [(low, value[low : low + 8]) for low in range(0, len(value), 8)]
    for low, group in groups:
        with m.If(group.any()):
            of_group: Value = Const(1)
            for place in range(1, len(group)):
                of_group = Mux(group[place], place + 1, of_group)
            m.d.comb += found.eq(low + of_group)
    return found


class ShortDivider(wiring.Component):
    """floor(dividend / divisor) of unsigned numbers, two quotient bits a cycle, and only as many as the quotient can have.

    A divisor of 0 gives some quotient.

    Members:
        begin: in, start. dividend, divisor: in, with `begin`.
        done: out, for one cycle; at most 3 + bits / 2 cycles after `begin`. quotient: out, from `done` until the next `begin`.
    """

    def __init__(self, dividend_bits: int, divisor_bits: int) -> None:
        self.dividend_bits, self.divisor_bits = dividend_bits, divisor_bits
        super().__init__(
            {
                "begin": In(1),
                "dividend": In(dividend_bits),
                "divisor": In(divisor_bits),
                "done": Out(1),
                "quotient": Out(dividend_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = self.dividend_bits
        rest, divisor, aligns, left = Signal(bits), Signal(bits + 1), Signal(), Signal(range(bits // 2 + 2))
        lengths = bit_length(m, rest, "rest_bits"), bit_length(m, divisor[: self.divisor_bits], "divisor_bits")
        # The quotient has one bit more than the lengths differ by; an odd number of bits gets a leading 0.
        distance = Signal(range(bits + 1))
        m.d.comb += distance.eq(Mux(lengths[0] > lengths[1], lengths[0] - lengths[1], 0) | 1)
        m.d.sync += self.done.eq(left == 1)
        with m.If(self.begin):
            m.d.sync += [rest.eq(self.dividend), divisor.eq(self.divisor), aligns.eq(1), left.eq(0), self.quotient.eq(0)]
        with m.Elif(aligns):
            m.d.sync += [aligns.eq(0), divisor.eq(_shifted(divisor, distance, bits + 1)), left.eq((distance >> 1) + 1)]
        with m.Elif(left != 0):
            now: Value = rest
            found = []
            for step in range(2):
                tried, after = Signal(bits + 2, name=f"tried_{step}"), Signal(bits, name=f"rest_{step}")
                fits = ~tried[-1]
                m.d.comb += [tried.eq(now - divisor[step:]), after.eq(Mux(fits, tried, now))]
                found.append(fits)
                now = after
            m.d.sync += [
                rest.eq(now),
                divisor.eq(divisor >> 2),
                self.quotient.eq(Cat(found[1], found[0], self.quotient)),
                left.eq(left - 1),
            ]
        return m


class SquareRoot(wiring.Component):
    """floor(sqrt(value)) of an unsigned number, a bit a cycle.

    Args:
        bits: of the value, even.

    Members:
        begin: in, start. value: in, with it. done: out, for one cycle, bits / 2 + 1 cycles later. root: out, from then on.
    """

    def __init__(self, bits: int) -> None:
        if bits % 2:
            raise ValueError(f"bits is {bits}: choose an even number")
        self.bits = bits
        super().__init__({"begin": In(1), "value": In(bits), "done": Out(1), "root": Out(bits // 2)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        half = self.bits // 2
        value, rest, left = Signal(self.bits), Signal(half + 2), Signal(range(half + 1))
        tried = Signal(half + 4)
        # The rest takes in two bits; 4 root + 1 is what the next bit of the root costs.
        m.d.comb += tried.eq(Cat(value[-2:], rest) - Cat(Const(1, 2), self.root))
        m.d.sync += self.done.eq(left == 1)
        with m.If(self.begin):
            m.d.sync += [value.eq(self.value), rest.eq(0), self.root.eq(0), left.eq(half)]
        with m.Elif(left != 0):
            fits = ~tried[-1]
            m.d.sync += [
                value.eq(Cat(Const(0, 2), value)),
                rest.eq(Mux(fits, tried, Cat(value[-2:], rest))),
                self.root.eq(Cat(fits, self.root)),
                left.eq(left - 1),
            ]
        return m


def _shifted(value: Value, amount: Value, width: int) -> Value:
    """value << amount modulo 2**width."""
    for stage, bit in enumerate(amount):
        places = min(1 << stage, width)
        value = Mux(bit, Cat(Const(0, places), value)[:width], value)
    return value
