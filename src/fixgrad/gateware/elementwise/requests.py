"""Hands the walk's taps to the lanes, and asks for the words that they need."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import BlockFifo
from fixgrad.gateware.elementwise.engine import OPERANDS, issue_layout
from fixgrad.gateware.elementwise.plan import plan_layout
from fixgrad.gateware.elementwise.walk import tap_layout
from fixgrad.gateware.post.plan import offset_bits
from fixgrad.machine import Machine

#: Taps between the walk and the lanes: a memory's latency, and runs that wait for their ends.
_TAPS = 256


class Requests(wiring.Component):
    """Between the walk and the lanes.

    Members:
        plan: in, steady. walking: in, taps are still to come.
        i: in, stream of `tap_layout`. o: out, stream of `issue_layout`.
        offsets: out, for each of `OPERANDS` a stream of words to read. starved: in, a bit for each: the lanes wait for its word.
        flush: out, a bit for each, see `OperandReader`: no further tap can come before the word that the lanes wait for.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, count = machine, len(OPERANDS)
        super().__init__(
            {
                "plan": In(plan_layout(machine)),
                "walking": In(1),
                "i": In(stream.Signature(tap_layout(machine))),
                "o": Out(stream.Signature(issue_layout(machine))),
                "offsets": Out(stream.Signature(offset_bits(machine))).array(count),
                "starved": In(count),
                "flush": Out(count),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        plan, tap = self.plan, self.i.payload
        m.submodules.queue = queue = BlockFifo(issue_layout(self.machine), _TAPS)
        wanted = {
            "first": (tap.inside, tap.first),
            "argmax": (tap.inside & plan.uses_argmax, tap.first),
            "second": (tap.ends & plan.uses_second, Mux(plan.sums, tap.first, tap.second)),
            "mask": (tap.ends & plan.uses_mask, tap.mask),
        }
        ready = [~wants | offsets.ready for (wants, _), offsets in zip(wanted.values(), self.offsets, strict=True)]
        ready.append(queue.i.ready)
        for index, (wants, offset) in enumerate(wanted.values()):
            others = Cat(each for number, each in enumerate(ready) if number != index).all()
            m.d.comb += [self.offsets[index].valid.eq(self.i.valid & wants & others), self.offsets[index].payload.eq(offset)]
        blocked = Signal()
        m.d.comb += [
            self.i.ready.eq(Cat(ready).all()),
            queue.i.valid.eq(self.i.valid & Cat(ready[:-1]).all()),
            *(queue.i.payload[name].eq(tap[name]) for name, _ in queue.i.payload.shape()),
            self.o.payload.eq(queue.o.payload),
            self.o.valid.eq(queue.o.valid),
            queue.o.ready.eq(self.o.ready),
            blocked.eq(self.i.valid & ~self.i.ready),
            self.flush.eq(Mux(self.walking, Mux(blocked, self.starved, 0), (1 << len(OPERANDS)) - 1)),
        ]
        return m
