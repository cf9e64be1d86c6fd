"""Results of a lane into words, and what they say to the range registers."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.fixed_point import absolute
from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.post.range_registers import RANGE_REPORT
from fixgrad.gateware.update.packer import Packer
from fixgrad.gateware.update.parameter_walk import RESULTS
from fixgrad.gateware.update.shape import COUNT_BITS, GRADIENT, MOMENTUM, OPERAND, STORED, TENSORS, UpdateShape
from fixgrad.gateware.update.update_unit import PARAMETER, STORED_BITS


class ResultPacking(wiring.Component):
    """A parameter a cycle; one more where the last one of an UPDATE spills into another word.

    Members:
        packings: in, stream: UPDATEs in order.
        updated, updated_valid: in: a result; whoever sends has counted that there is room. taken: out: one has left.
        report: out, stream: OR of |stored| and overflow of an UPDATE. reported: out, for one cycle: it was accepted.
        may: out, a bit for each tensor: the words of a block are here. cut: in, likewise: one was given out.
        words: out, array, the oldest word of each tensor. pop: in, a bit for each.
        works: out: an UPDATE or a report is at hand.
    """

    def __init__(self, shape: UpdateShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "packings": In(stream.Signature(shape.packing())),
                "updated": In(PARAMETER),
                "updated_valid": In(1),
                "taken": Out(1),
                "report": Out(stream.Signature(RANGE_REPORT)),
                "reported": Out(1),
                "may": Out(TENSORS),
                "cut": In(TENSORS),
                "words": Out(8 * shape.word_bytes).array(TENSORS),
                "pop": In(TENSORS),
                "works": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.results = results = Fifo(PARAMETER, RESULTS, patient=True)
        now, following = Signal(self.shape.packing()), self.packings.payload
        active, left, is_last = Signal(), Signal(COUNT_BITS), Signal()
        loads, can_report, result = Signal(), Signal(), results.o.payload
        packers = self._packers(m, now, loads, is_last, result)
        m.d.comb += [
            Value.cast(results.i.payload).eq(Value.cast(self.updated)),
            results.i.valid.eq(self.updated_valid),
            is_last.eq(left == 1),
            results.o.ready.eq(active & (~is_last | can_report)),
            self.taken.eq(results.o.valid & results.o.ready),
            self.packings.ready.eq(~active | (self.taken & is_last)),
            loads.eq(self.packings.valid & self.packings.ready),
            can_report.eq(~self.report.valid | self.report.ready),
            self.works.eq(active | self.report.valid),
        ]
        for packer in packers:
            with m.If(~packer.ready):
                m.d.comb += results.o.ready.eq(0)
        with m.If(loads):
            m.d.sync += [now.eq(following), left.eq(following.count), active.eq(following.count != 0)]
        with m.Elif(self.taken):
            m.d.sync += [left.eq(left - 1), active.eq(~is_last)]
        self._report(m, now, loads, is_last, result)
        return m

    def _packers(self, m: Module, now: Value, loads: Value, is_last: Value, result: Value) -> list[Packer]:
        sources = {
            STORED: (result.stored, now.stored_bytes, 1),
            MOMENTUM: (result.momentum, now.momentum_bytes, 1),
            OPERAND: (result.operand, 1, now.operands),
            GRADIENT: (0, 4, now.from_memory),
        }
        packers = []
        for tensor, (element, size, is_wanted) in sources.items():
            m.submodules[f"packer_{tensor}"] = packer = Packer(self.shape, with_data=tensor != GRADIENT)
            m.d.comb += [
                packer.begin.eq(loads),
                packer.place.eq(self.packings.payload.places[tensor]),
                packer.size.eq(size),
                packer.element.eq(Value.cast(element)),
                packer.take.eq(self.taken & Value.cast(is_wanted)[0]),
                packer.last.eq(is_last),
                self.may[tensor].eq(packer.may),
                packer.cut.eq(self.cut[tensor]),
                self.words[tensor].eq(packer.word),
                packer.pop.eq(self.pop[tensor]),
            ]
            packers.append(packer)
        return packers

    def _report(self, m: Module, now: Value, loads: Value, is_last: Value, result: Value) -> None:
        magnitudes, overflow = Signal(STORED_BITS), Signal()
        all_magnitudes, all_overflow = magnitudes | absolute(result.stored), overflow | result.overflow
        m.d.comb += self.reported.eq(self.report.valid & self.report.ready)
        with m.If(self.report.ready):
            m.d.sync += self.report.valid.eq(0)
        with m.If(self.taken):
            m.d.sync += [magnitudes.eq(Mux(is_last, 0, all_magnitudes)), overflow.eq(Mux(is_last, 0, all_overflow))]
            with m.If(is_last):
                report = self.report.payload
                m.d.sync += [self.report.valid.eq(1), report.register.eq(now.statistics), report.saturated.eq(0)]
                m.d.sync += [report.magnitudes.eq(all_magnitudes), report.overflow.eq(all_overflow)]
