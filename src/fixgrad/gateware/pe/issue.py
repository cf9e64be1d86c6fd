"""Lets steps go to the lanes, one a cycle, or holds them back; shares the read ports of the memories with POST and UPDATE."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.arithmetic.written_words import WrittenWords
from fixgrad.gateware.pe.addresses import access_layout
from fixgrad.gateware.pe.shape import Mode, PeShape

#: Cycle of a step in which its accumulator is read (FF, NG; an error in cycle 0), in which the accumulator is stored, and
#: in which a gradient is read (WG).
READ_CYCLE, STORE_CYCLE, GRADIENT_CYCLE = 2, 4, 5


def slot_layout(shape: PeShape) -> data.StructLayout:
    """What the cycles behind `Issue` know of a step; all flags are 0 where there is none.

    `valid`: a step. `inside`: its product counts. `first`: it takes the accumulator from memory. `store`: it stores it at
    `lane`. `gradient`, `add`: its tap's sum goes to this word. `place`: of the weight in its word.
    """
    flags = dict.fromkeys(("valid", "inside", "first", "store", "add"), 1)
    return data.StructLayout({"lane": shape.lane_bits, "gradient": shape.gradient_bits, "place": 4, **flags})


def read_layout(address_bits: int) -> data.StructLayout:
    """A word to read, and whether it counts as 0 because nothing was written to it."""
    return data.StructLayout({"address": address_bits, "zero": 1})


class Issue(wiring.Component):
    """The stage in front of cycle 0.

    Members:
        command: in, valid with `begin` and from then on. begin: in.
        accesses: in, stream of steps; none at `begin`.
        slot: out, the step that goes, at cycle 0.
        drain, drain_address: in, POST reads a word of the lane memories, `READ_CYCLE` cycles later.
        take_gradient, gradient_address: in, UPDATE reads a gradient, `GRADIENT_CYCLE` cycles later.
        lane_read, gradient_read: out, what to read in this cycle.
        error_address, error_written: in, an error is written in this cycle: its word does not count as accumulator.
            Not while `asking` (out).
        held_by_hazard, held_by_drain: out, a step is held back.
        gradient_wanted: out, UPDATE holds back a step of a COMPUTE some of whose steps read no gradient. One of which all do has
            fewer of them than UPDATE has parameters: so it is UPDATE that must not wait.
    """

    def __init__(self, shape: PeShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "command": In(shape.command()),
                "begin": In(1),
                "accesses": In(stream.Signature(access_layout(shape))),
                "slot": Out(slot_layout(shape)),
                "drain": In(1),
                "drain_address": In(shape.lane_bits),
                "take_gradient": In(1),
                "gradient_address": In(shape.gradient_bits),
                "lane_read": Out(read_layout(shape.lane_bits)),
                "gradient_read": Out(read_layout(shape.gradient_bits)),
                "error_address": In(shape.lane_bits),
                "error_written": In(1),
                "asking": Out(1),
                "held_by_hazard": Out(1),
                "held_by_drain": Out(1),
                "gradient_wanted": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        access, slot = self.accesses.payload, self.slot
        wg, fire, reads = Signal(), Signal(), Signal()
        m.d.comb += wg.eq(self.command.mode == Mode.WG)
        drains_now = self._lane_port(m, wg, reads)
        self._gradient_port(m, wg, fire)

        # Its accumulator comes from memory, unless the registers still hold it: kernels of one output channel and one pixel.
        recent, recent_valid = Signal(self.shape.lane_bits), Signal()
        m.d.comb += reads.eq(access.first & ~wg & ~(recent_valid & (recent == access.lane)))
        with m.If(self.begin):
            m.d.sync += recent_valid.eq(0)
        with m.Elif(fire & ~wg):
            m.d.sync += [recent.eq(access.lane), recent_valid.eq(1)]

        # Whether this COMPUTE has made a step that reads no gradient.
        has_others = Signal()
        with m.If(self.begin):
            m.d.sync += has_others.eq(0)
        with m.Elif(fire & ~access.last_pixel):
            m.d.sync += has_others.eq(1)

        # A word stored by the step before the last is written just when this one reads it. (The last step's is `recent`.)
        stored = [Signal(data.StructLayout({"lane": self.shape.lane_bits, "store": 1}), name=f"stored_{n}") for n in (1, 2)]
        m.d.sync += [stored[0].lane.eq(slot.lane), stored[0].store.eq(slot.store), stored[1].eq(stored[0])]
        valid = self.accesses.valid
        drained = Mux(wg, drains_now | (self.take_gradient & access.last_pixel), self.drain & reads)
        m.d.comb += [
            self.held_by_hazard.eq(valid & reads & stored[1].store & (stored[1].lane == access.lane)),
            self.held_by_drain.eq(valid & drained & ~self.held_by_hazard),
            self.gradient_wanted.eq(valid & wg & self.take_gradient & access.last_pixel & has_others),
            self.accesses.ready.eq(~self.held_by_hazard & ~self.held_by_drain),
            fire.eq(valid & self.accesses.ready),
            slot.valid.eq(fire),
            slot.lane.eq(access.lane),
            slot.gradient.eq(access.gradient),
            slot.place.eq(access.place),
            slot.inside.eq(access.inside),
            slot.first.eq(fire & reads),
            slot.store.eq(fire & access.last & ~wg),
            slot.add.eq(fire & access.last_pixel & wg),
        ]
        return m

    def _lane_port(self, m: Module, wg: Signal, reads: Signal) -> Value:
        """The read port of the lane memories; returns whether a drain has it in this cycle.

        Its marks have one port too: a drain holds back a step that would mark, and LOAD waits while anyone asks.
        """
        access, clear = self.accesses.payload, self.begin & self.command.clear & ~wg
        base = self.command.lane_base
        m.submodules.lane_words = words = WrittenWords(self.shape.lane_words)
        m.d.comb += [
            words.clear.eq(Cat(clear & ~base[-1], clear & base[-1])),
            self.asking.eq(self.slot.first | self.drain),
            words.mark.eq(self.slot.first),
            words.unmark.eq(self.error_written),
            words.address.eq(Mux(self.drain, self.drain_address, Mux(self.error_written, self.error_address, access.lane))),
        ]
        of_drain = data.StructLayout({"valid": 1, "read": read_layout(self.shape.lane_bits)})
        drains = [Signal(of_drain, name=f"drain_{cycle}") for cycle in range(READ_CYCLE + 1)]
        reading = [Signal(read_layout(self.shape.lane_bits), name=f"read_{cycle}") for cycle in range(READ_CYCLE + 1)]
        m.d.comb += [
            drains[0].valid.eq(self.drain),
            drains[0].read.address.eq(self.drain_address),
            drains[0].read.zero.eq(~words.marked),
            reading[0].address.eq(access.lane),
            reading[0].zero.eq(~words.marked & ~wg),
        ]
        for line in (drains, reading):
            for before, after in pairwise(line):
                m.d.sync += after.eq(before)
        step = Mux(wg, Value.cast(reading[0]), Value.cast(reading[-1]))
        m.d.comb += Value.cast(self.lane_read).eq(Mux(drains[-1].valid, Value.cast(drains[-1].read), step))
        return drains[-1].valid

    def _gradient_port(self, m: Module, wg: Signal, fire: Signal) -> None:
        """The read port of the gradient memory: a step's or UPDATE's, chosen now and read later."""
        access, clear = self.accesses.payload, self.begin & self.command.clear & wg
        base = self.command.gradient_base
        m.submodules.gradient_words = words = WrittenWords(self.shape.gradient_words)
        reading = [Signal.like(self.gradient_read, name=f"gradient_read_{cycle}") for cycle in range(GRADIENT_CYCLE + 1)]
        m.d.comb += [
            words.clear.eq(Cat(clear & ~base[-1], clear & base[-1])),
            words.address.eq(reading[0].address),
            words.mark.eq(self.slot.add),
            reading[0].address.eq(Mux(self.take_gradient, self.gradient_address, access.gradient)),
            reading[0].zero.eq(~words.marked),
            self.gradient_read.eq(reading[-1]),
        ]
        for before, after in pairwise(reading):
            m.d.sync += after.eq(before)
