"""Executes STATISTICS: range registers to memory, 16 bytes each, and clears them."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.control.layouts import body, issued_layout
from fixgrad.gateware.post.narrow_engines import LENGTH_BITS, TRANSFER
from fixgrad.gateware.post.post_processor import STATISTICS
from fixgrad.gateware.post.range_registers import REGISTER_BITS
from fixgrad.machine import Machine
from fixgrad.machine.instructions import Unit

#: 32-bit words of a register: magnitudes, saturated, overflow, 0.
WORDS = 4


class StatisticsSequencer(wiring.Component):
    """One STATISTICS at a time.

    Members:
        instruction: in, stream of STATISTICS, taken while not `busy` (out). ended: out, for one cycle: all registers have been
            handed on.
        take, taken: see `RangeRegisters`. writes, elements: see `NarrowEngines`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        super().__init__(
            {
                "instruction": In(stream.Signature(issued_layout(Unit.POST, machine))),
                "busy": Out(1),
                "ended": Out(1),
                "take": Out(stream.Signature(REGISTER_BITS)),
                "taken": In(stream.Signature(STATISTICS)),
                "writes": Out(stream.Signature(TRANSFER)),
                "elements": Out(stream.Signature(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = issued_layout(Unit.POST, self.machine)
        issued, commanded, asked, given = Signal(shape), Signal(), Signal(REGISTER_BITS + 1), Signal(range(WORDS))
        statistics, taken = body(issued, "STATISTICS"), Signal(REGISTER_BITS + 1)
        # The fields of a register in whole words of 32 bits, as they lie in memory.
        register = self.taken.payload
        fields = Cat(register.magnitudes, register.saturated, register.overflow, Const(0, 63))
        value = data.View(data.ArrayLayout(32, WORDS), fields)
        m.d.comb += [
            self.instruction.ready.eq(~self.busy),
            self.writes.valid.eq(self.busy & ~commanded),
            self.writes.payload.address.eq(statistics.target),
            self.writes.payload.length.eq((statistics.count * (4 * WORDS))[:LENGTH_BITS]),
            self.take.valid.eq(self.busy & (asked != statistics.count)),
            self.take.payload.eq(asked),
            self.elements.valid.eq(self.taken.valid),
            self.elements.payload.eq(value[given]),
            self.taken.ready.eq(self.elements.ready & (given == WORDS - 1)),
            self.ended.eq(self.busy & commanded & (taken == statistics.count)),
        ]
        with m.If(self.instruction.valid & ~self.busy):
            m.d.sync += [issued.eq(self.instruction.payload), self.busy.eq(1), commanded.eq(0), asked.eq(0), taken.eq(0)]
        with m.Elif(self.ended):
            m.d.sync += self.busy.eq(0)
        with m.If(self.writes.valid & self.writes.ready):
            m.d.sync += commanded.eq(1)
        with m.If(self.take.valid & self.take.ready):
            m.d.sync += asked.eq(asked + 1)
        with m.If(self.elements.valid & self.elements.ready):
            m.d.sync += given.eq(given + 1)
        with m.If(self.taken.valid & self.taken.ready):
            m.d.sync += taken.eq(taken + 1)
        return m
