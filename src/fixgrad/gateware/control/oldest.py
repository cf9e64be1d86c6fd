"""Finds the oldest instruction that has not completed, to blame where nothing moves."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.control.layouts import INDEX_BITS


class Oldest(wiring.Component):
    """Looks at one queue a cycle: right when nothing has moved for two rounds.

    Members:
        present: for each queue, whether it holds an instruction or its unit executes one.
        indices: that instruction's place in the program.
        index: the least of them, 0 where there is none.
    """

    def __init__(self, queues: int) -> None:
        self.queues = queues
        super().__init__({"present": In(queues), "indices": In(INDEX_BITS).array(queues), "index": Out(INDEX_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        turn, least, found = Signal(range(max(self.queues, 2))), Signal(INDEX_BITS), Signal()
        index, is_less, is_last = Signal(INDEX_BITS), Signal(), Signal()
        m.d.comb += [
            index.eq(Array(self.indices)[turn]),
            is_less.eq(self.present.bit_select(turn, 1) & (~found | (index < least))),
            is_last.eq(turn == self.queues - 1),
        ]
        m.d.sync += turn.eq(Mux(is_last, 0, turn + 1))
        with m.If(is_last):
            m.d.sync += [found.eq(0), self.index.eq(Mux(is_less, index, Mux(found, least, 0)))]
        with m.Elif(is_less):
            m.d.sync += [found.eq(1), least.eq(index)]
        return m
