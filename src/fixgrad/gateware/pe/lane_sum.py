"""The adder tree over the lanes of a PE (WG): two registers deep."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import sum_of
from fixgrad.gateware.pe.shape import PeShape


class LaneSum(wiring.Component):
    """The sum of the lanes' registers modulo 2**sum_bits, every cycle.

    Members:
        values: in, an array of `lanes` registers, their low `sum_bits` bits.
        total: out, their sum two cycles later, unsigned modulo 2**sum_bits.
    """

    LATENCY = 2

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__({"values": In(shape.sum_bits).array(shape.lanes), "total": Out(shape.sum_bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = (self.shape.lanes - 1).bit_length()
        fan_in = 1 << bits // 2
        partial = []
        for start in range(0, self.shape.lanes, fan_in):
            part = Signal(self.shape.sum_bits, name=f"part_{start}")
            m.d.sync += part.eq(sum_of([self.values[lane] for lane in range(start, min(start + fan_in, self.shape.lanes))]))
            partial.append(part)
        m.d.sync += self.total.eq(sum_of(partial))
        return m
