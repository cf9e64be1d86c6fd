"""Many wide counters in one memory: each adds up a few bits by itself, and takes its turn at the one wide adder."""

from collections.abc import Mapping

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import NO_COLLISION

COUNTER_BITS = 64


class CounterBank(wiring.Component):
    """Counters of 64 bits. Registers and adders of their own would take 64 of each for every counter, and reading them a wide
    choice: here they are words of a memory, one of which is read, added to and written in each cycle, in turn.

    Args:
        most: of each counter, by its name, what is added to it in a cycle at most.

    Members:
        clear: all counters are 0 from the next cycle on; what is added in this one is forgotten.
        add_NAME: what is added in this cycle.
        turn, value: a counter, by its place in `most`, and its value two cycles ago. Every counter has its turn as often as there
            are counters.
    """

    def __init__(self, most: Mapping[str, int]) -> None:
        self.most = dict(most)
        members = {f"add_{name}": In(range(limit + 1)) for name, limit in self.most.items()}
        super().__init__({"clear": In(1), "turn": Out(range(len(most))), "value": Out(COUNTER_BITS), **members})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = len(self.most)
        m.submodules.memory = memory = Memory(shape=COUNTER_BITS, depth=count, init=[])
        # What is read was written a round ago.
        memory.attrs[NO_COLLISION] = "1"
        read, write = memory.read_port(), memory.write_port()
        now, following, is_known = Signal(range(count)), Signal(range(count)), Signal(count)
        m.d.comb += [following.eq(Mux(now == count - 1, 0, now + 1)), read.addr.eq(following)]
        m.d.sync += now.eq(following)
        waiting = self._waiting(m, now)
        before, more = Signal(COUNTER_BITS), Signal.like(waiting)
        m.d.sync += [
            before.eq(Mux(is_known.bit_select(now, 1) & ~self.clear, read.data, 0)),
            more.eq(Mux(self.clear, 0, waiting)),
            self.turn.eq(now),
        ]
        m.d.comb += [
            self.value.eq(before + more),
            write.addr.eq(self.turn),
            write.data.eq(self.value),
            write.en.eq(1),
        ]
        # A counter that has not had its turn since the clear is 0, whatever the memory holds.
        m.d.sync += is_known.eq(Mux(self.clear, 0, is_known | (1 << now)))
        return m

    def _waiting(self, m: Module, now: Signal) -> Signal:
        """What has been added to the counter `now` since its last turn, which is forgotten as its turn is now."""
        count = len(self.most)
        waiting = []
        for place, (name, limit) in enumerate(self.most.items()):
            # From the cycle of a turn until the one before the next.
            each, adds = Signal(range(count * limit + 1), name=f"waiting_{name}"), getattr(self, f"add_{name}")
            m.d.sync += each.eq(Mux(self.clear, 0, Mux(now == place, 0, each) + adds))
            waiting.append(each)
        found = Signal(max(len(each) for each in waiting))
        m.d.comb += found.eq(Array(waiting)[now])
        return found
