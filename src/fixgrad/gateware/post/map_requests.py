"""Asks for the runs of mask and places that the walk's items need, of each post-processor."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Fifo, connect_payload
from fixgrad.gateware.post.map_reader import Runs, map_run_layout, run_layout
from fixgrad.gateware.post.plan import lane_shift, offset_bits, plan_layout, times
from fixgrad.gateware.post.walk import item_layout
from fixgrad.machine import Machine
from fixgrad.machine.instructions import ADDRESS_BITS

#: Runs that wait for the readers.
_RUNS = 4


class MapRequests(wiring.Component):
    """Between the walk and the items that wait for their data.

    Members:
        plan: in, of the items that come; begin: in, a pulse, a cycle after it changed, before the first of its items. busy: out,
            runs of this plan have still to be asked for.
        of: in, a bit that tells the instruction of the items.
        i, o: in and out, streams of items: each goes through when its words are, or will be, asked for.
        run: out, for each post-processor: see `MapReader`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        items = stream.Signature(item_layout(machine))
        super().__init__(
            {
                "plan": In(plan_layout(machine)),
                "begin": In(1),
                "busy": Out(1),
                "of": In(1),
                "i": In(items),
                "o": Out(items),
                "run": Out(stream.Signature(map_run_layout())).array(machine.post_processors),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        plan, item, number = self.plan, self.i.payload, self.machine.post_processors
        m.submodules.runs = runs = Runs(self.machine)
        m.submodules.queue = queue = Fifo(run_layout(self.machine), _RUNS)
        connect_payload(m, runs.o, queue.i)
        wanted = (plan.uses_mask | plan.uses_places) & ~item.empty
        m.d.comb += [
            self.o.payload.eq(item),
            self.o.valid.eq(self.i.valid & (~wanted | runs.i.ready)),
            self.i.ready.eq(self.o.ready & (~wanted | runs.i.ready)),
            runs.i.valid.eq(self.i.valid & wanted & self.o.ready),
            runs.i.payload.offset.eq(item.map_offset),
            runs.i.payload.active.eq(item.active),
            runs.i.payload.of.eq(self.of),
            runs.i.payload.ends.eq(item.ends),
            self.busy.eq(runs.o.valid | queue.o.valid),
        ]
        # One run after the other, of each the mask and then the places; all readers take it before the next.
        run, is_places, taken = queue.o.payload, Signal(), Signal(number)
        asked, skips = Signal(number), Signal()
        m.d.comb += skips.eq(Mux(is_places, ~plan.uses_places, ~plan.uses_mask))
        shift, width = lane_shift(self.machine), offset_bits(self.machine)
        for index, port in enumerate(self.run):
            base = Signal(ADDRESS_BITS, name=f"base_{index}")
            skipped = times(plan.map_post_words, index, width) if index else 0
            m.d.comb += base.eq(Mux(is_places, plan.places, plan.mask) + (self._registered(m, skipped, index) << shift))
            m.d.comb += [
                port.valid.eq(queue.o.valid & ~skips & run.active[index] & ~taken[index]),
                port.payload.address.eq(base + (run.offset << shift)),
                port.payload.count.eq(run.count),
                port.payload.places.eq(is_places),
                port.payload.of.eq(run.of),
                asked[index].eq(taken[index] | ~run.active[index] | (port.valid & port.ready)),
            ]
        ends = queue.o.valid & (skips | asked.all())
        m.d.comb += queue.o.ready.eq(ends & is_places)
        m.d.sync += taken.eq(Mux(ends, 0, taken | Cat(port.valid & port.ready for port in self.run)))
        with m.If(ends):
            m.d.sync += is_places.eq(~is_places)
        return m

    def _registered(self, m: Module, value: object, index: int) -> Signal:
        """Of the plan, when it begins."""
        register = Signal(offset_bits(self.machine), name=f"skipped_{index}")
        with m.If(self.begin):
            m.d.sync += register.eq(value)
        return register
