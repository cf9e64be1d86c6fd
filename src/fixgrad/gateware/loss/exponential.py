"""exp(-distance) of fixed-point numbers as a power of two: a product, a table of 256 entries, a shift."""

from dataclasses import dataclass
from math import e, log2

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import shift_nearest

#: Cycles from a distance to its power.
EXPONENTIAL_LATENCY = 5
#: Bits of a logit, of a distance between two, and of a power: 0 to 2**16.
LOGIT_BITS = 16
POWER_BITS = 17
#: Bits of the table's index.
_INDEX_BITS = 8


@dataclass(frozen=True, slots=True)
class ExponentialTable:
    """The constants of the definition (`fixgrad.network.softmax`), which this room cannot import.

    Attributes:
        log2_e: log2(e) with `log2_e_frac` fractional bits, less than 2**15.
        powers: 2**(-i / 256) with 16 fractional bits, i from 0 to 255.
        deepest: 2**-deepest and below are zero.
    """

    log2_e: int
    log2_e_frac: int
    powers: tuple[int, ...]
    deepest: int

    def __post_init__(self) -> None:
        if len(self.powers) != 1 << _INDEX_BITS or not all(0 <= power < 1 << POWER_BITS for power in self.powers):
            raise ValueError(f"the table has {len(self.powers)} powers: give 256 of {POWER_BITS} bits")
        if not 0 < self.log2_e < 1 << 15:
            raise ValueError(f"log2_e is {self.log2_e}: give 15 bits")


#: The table of the definition: log2(e) with 14 fractional bits; powers below 2**-24 are zero.
EXPONENTIAL_TABLE = ExponentialTable(
    log2_e=round(log2(e) * (1 << 14)),
    log2_e_frac=14,
    powers=tuple(round(2.0 ** (POWER_BITS - 1 - index / (1 << _INDEX_BITS))) for index in range(1 << _INDEX_BITS)),
    deepest=24,
)


class Exponential(wiring.Component):
    """A power a cycle.

    Members:
        distance: in, unsigned, with `frac` (in) fractional bits, which stays as it is.
        power: out, exp(-distance) with 16 fractional bits, `EXPONENTIAL_LATENCY` cycles later.
    """

    def __init__(self, table: ExponentialTable) -> None:
        self.table = table
        super().__init__({"distance": In(LOGIT_BITS), "frac": In(signed(8)), "power": Out(POWER_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        table = self.table
        # A product has 31 bits: a right shift by 32 leaves 0. Without a right shift any distance above 0 is too deep, as with
        # a left shift, so that is not needed.
        cut = Signal(signed(10))
        shift = Signal(range(33))
        m.d.comb += cut.eq(self.frac + (table.log2_e_frac - _INDEX_BITS))
        m.d.sync += shift.eq(Mux(cut < 0, 0, Mux(cut > 32, 32, cut)))

        distance = Signal(LOGIT_BITS)
        product, power = Signal(signed(LOGIT_BITS + 16)), Signal(LOGIT_BITS + 16)
        m.d.sync += [
            distance.eq(self.distance),
            product.eq(distance * table.log2_e),
            power.eq(shift_nearest(product, shift)),
        ]
        m.submodules.powers = memory = Memory(shape=POWER_BITS, depth=1 << _INDEX_BITS, init=table.powers)
        read = memory.read_port()
        whole, zero = Signal(range(table.deepest)), Signal()
        m.d.comb += [read.addr.eq(power[:_INDEX_BITS]), read.en.eq(1)]
        m.d.sync += [
            whole.eq(power[_INDEX_BITS:]),
            zero.eq(power[_INDEX_BITS:] >= table.deepest),
            self.power.eq(Mux(zero, 0, read.data >> whole)),
        ]
        return m
