"""The range registers: what POST, LOSS, UPDATE and COMPUTE measured, until STATISTICS takes it.

A report is one read and one write of a block memory, two cycles; there is one for each instruction. A mark for each register
says whether it has been written: so all of them begin at 0 with the unit's reset, and taking one out clears it for nothing.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.written_words import WrittenWords
from fixgrad.gateware.axi.streams import Arbiter
from fixgrad.gateware.post.post_processor import STATISTICS
from fixgrad.machine import Machine
from fixgrad.machine.encoding import layout

#: Bits of a register's number: those of the field `statistics`.
REGISTER_BITS = layout("POST")["statistics"].field.bits
#: What an instruction measured, for a register: `magnitudes` and `overflow` are ORed to it, `saturated` is added.
RANGE_REPORT = data.StructLayout({"register": REGISTER_BITS, **STATISTICS.members})


class RangeRegisters(wiring.Component):
    """All range registers of a machine. An instruction has completed only when its report has been accepted.

    Args:
        machine: as for every block; the number of registers is that of the instruction set.
        sources: who reports.

    Members:
        reports: in, array of streams of `RANGE_REPORT`, taken round robin.
        take: in, stream of registers to read and clear; they go before reports.
        taken: out, stream of their values (`STATISTICS`), in order.
    """

    def __init__(self, machine: Machine, sources: int) -> None:
        self.machine, self.sources = machine, sources
        super().__init__(
            {
                "reports": In(stream.Signature(RANGE_REPORT)).array(sources),
                "take": In(stream.Signature(REGISTER_BITS)),
                "taken": Out(stream.Signature(STATISTICS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.arbiter = arbiter = Arbiter(RANGE_REPORT, self.sources)
        m.submodules.marks = marks = WrittenWords(1 << REGISTER_BITS)
        m.submodules.registers = memory = Memory(shape=STATISTICS, depth=1 << REGISTER_BITS, init=[])
        read, write = memory.read_port(), memory.write_port()
        for source, i in zip(self.reports, arbiter.i, strict=True):
            m.d.comb += [i.payload.eq(source.payload), i.valid.eq(source.valid), source.ready.eq(i.ready)]

        report, takes, busy = Signal(RANGE_REPORT), Signal(), Signal()
        old, mark = Signal(STATISTICS), Signal()
        # A register that is taken waits for the one before to leave.
        m.d.comb += [
            self.take.ready.eq(~busy & (~self.taken.valid | self.taken.ready)),
            arbiter.o.ready.eq(~busy & ~self.take.valid),
            read.en.eq(1),
            read.addr.eq(Mux(self.take.valid, self.take.payload, arbiter.o.payload.register)),
            old.eq(Mux(marks.marked, read.data.as_value(), 0)),
            marks.address.eq(report.register),
            mark.eq(busy & ~takes),
            marks.mark.eq(mark),
            marks.unmark.eq(busy & takes),
            write.addr.eq(report.register),
            write.en.eq(mark),
            write.data.magnitudes.eq(old.magnitudes | report.magnitudes),
            write.data.saturated.eq(old.saturated + report.saturated),
            write.data.overflow.eq(old.overflow | report.overflow),
        ]
        takes_now = self.take.valid & self.take.ready
        m.d.sync += [busy.eq(takes_now | (arbiter.o.valid & arbiter.o.ready)), takes.eq(takes_now)]
        m.d.sync += report.eq(arbiter.o.payload)
        with m.If(self.take.valid):
            m.d.sync += report.register.eq(self.take.payload)
        with m.If(self.taken.ready):
            m.d.sync += self.taken.valid.eq(0)
        with m.If(busy & takes):
            m.d.sync += [self.taken.valid.eq(1), self.taken.payload.eq(old)]
        return m
