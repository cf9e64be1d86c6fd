"""Stream elements, the burst splitter and the control port's handshakes, by a model checker."""

from collections.abc import Callable

import pytest
from amaranth.hdl import Assert, Assume, Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi import Axi4LiteSignature, MemoryPorts
from fixgrad.gateware.axi.burst import BurstSplitter, burst_layout, transfer_layout
from fixgrad.gateware.axi.lite import LiteSlave
from fixgrad.gateware.axi.streams import Arbiter, Fifo, SkidBuffer, connect_payload
from fixgrad.gateware.simulation import ToolError
from fixgrad.gateware.simulation.prove import prove

#: Bits of a payload: the elements do not look at them.
WIDTH = 2


def keeps_rules(m: Module, end: stream.Interface, claim: Callable[[Value], object]) -> None:
    """A payload that waits stays valid and the same; `claim` is Assert for an output, Assume for an input."""
    waited, before = Signal(), Signal(len(Value.cast(end.payload)))
    m.d.sync += [waited.eq(end.valid & ~end.ready), before.eq(Value.cast(end.payload))]
    with m.If(waited):
        m.d.comb += claim(end.valid & (Value.cast(end.payload) == before))


class Queue(wiring.Component):
    """A queue with properties: the rules of a stream, how much it holds, and that any payload leaves in its turn."""

    def __init__(self, queue: wiring.Component, capacity: int, *, in_turn: bool) -> None:
        self.queue, self.capacity, self.in_turn = queue, capacity, in_turn
        super().__init__({"i": In(stream.Signature(WIDTH)), "o": Out(stream.Signature(WIDTH)), "pick": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = self.queue
        connect_payload(m, self.i, self.queue.i)
        connect_payload(m, self.queue.o, self.o)
        keeps_rules(m, self.o, Assert)
        inside = Signal(range(self.capacity + 1))
        push, pop = self.i.valid & self.i.ready, self.o.valid & self.o.ready
        m.d.sync += inside.eq(inside + push - pop)
        if not self.in_turn:
            return m
        m.d.comb += [Assert(self.o.valid == (inside != 0)), Assert((inside != self.capacity) | ~self.i.ready)]
        picked, payload, ahead = Signal(), Signal(WIDTH), Signal(range(self.capacity + 1))
        with m.If(push & self.pick & ~picked):
            m.d.sync += [picked.eq(1), payload.eq(self.i.payload), ahead.eq(inside - pop)]
        with m.Elif(picked & pop):
            with m.If(ahead == 0):
                m.d.comb += Assert(self.o.payload == payload)
                m.d.sync += picked.eq(0)
            with m.Else():
                m.d.sync += ahead.eq(ahead - 1)
        return m


@pytest.mark.parametrize(("make", "capacity"), [(lambda: Fifo(WIDTH, 3), 3), (lambda: SkidBuffer(WIDTH), 2)], ids=["fifo", "skid"])
class TestQueues:
    def test_keeps_the_rules_of_a_stream(self, make: Callable[[], wiring.Component], capacity: int) -> None:
        prove(Queue(make(), capacity, in_turn=False), 8, bounded=True)

    @pytest.mark.slow
    def test_gives_every_payload_in_its_turn(self, make: Callable[[], wiring.Component], capacity: int) -> None:
        prove(Queue(make(), capacity, in_turn=True), 8, bounded=True)


class ArbiterRules(wiring.Component):
    """An arbiter of three whose inputs keep the rules."""

    COUNT = 3

    def __init__(self) -> None:
        super().__init__({"i": In(stream.Signature(WIDTH)).array(self.COUNT), "o": Out(stream.Signature(WIDTH))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.arbiter = arbiter = Arbiter(WIDTH, self.COUNT)
        connect_payload(m, arbiter.o, self.o)
        keeps_rules(m, self.o, Assert)
        moves = self.o.valid & self.o.ready
        m.d.comb += Assert(self.o.valid == Cat(*(i.valid for i in self.i)).any())
        for index, i in enumerate(self.i):
            connect_payload(m, i, arbiter.i[index])
            keeps_rules(m, i, Assume)
            is_source = arbiter.source == index
            m.d.comb += [Assert(i.ready == (moves & is_source))]
            with m.If(self.o.valid & is_source):
                m.d.comb += [Assert(i.valid), Assert(self.o.payload == i.payload)]
            # Each other input goes first once at most.
            passed = Signal(range(self.COUNT + 1), name=f"passed_{index}")
            m.d.sync += passed.eq(Mux(i.valid & ~i.ready, passed + (moves & ~is_source), 0))
            m.d.comb += Assert(passed < self.COUNT)
        return m


def test_the_arbiter_is_fair_and_holds_its_choice() -> None:
    prove(ArbiterRules(), 12, bounded=True)


class SplitterRules(wiring.Component):
    """A splitter on a memory of 8 KB with beats of 4 bytes and bursts of 16, and any memory window."""

    PORTS = MemoryPorts(4, 1, 4096, 4, address_bits=13)
    LENGTH_BITS = 6

    def __init__(self) -> None:
        super().__init__(
            {
                "i": In(stream.Signature(transfer_layout(self.PORTS, self.LENGTH_BITS))),
                "o": Out(stream.Signature(burst_layout(self.PORTS))),
                "base": In(13),
                "limit": In(14),
                "stop": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.splitter = splitter = BurstSplitter(self.PORTS, self.LENGTH_BITS)
        connect_payload(m, self.i, splitter.i)
        connect_payload(m, splitter.o, self.o)
        m.d.comb += [splitter.base.eq(self.base), splitter.limit.eq(self.limit), splitter.stop.eq(self.stop)]
        held = Signal(27)
        started = Signal()
        m.d.sync += [held.eq(Cat(self.base, self.limit)), started.eq(1)]
        with m.If(started):
            m.d.comb += Assume(held == Cat(self.base, self.limit))
        transfer, burst = self.i.payload, self.o.payload
        next_byte, left, active = Signal(14), Signal(self.LENGTH_BITS), Signal()
        end = transfer.address + transfer.length
        is_inside = (transfer.address >= self.base) & (end <= self.limit) & (end <= 1 << 13)
        with m.If(self.i.valid & self.i.ready):
            m.d.comb += Assert(splitter.fault.valid == ((transfer.length != 0) & ~is_inside))
            m.d.sync += [
                next_byte.eq(transfer.address),
                left.eq(transfer.length),
                active.eq((transfer.length != 0) & is_inside),
            ]
        with m.Else():
            m.d.comb += Assert(~splitter.fault.valid)
        m.d.comb += Assert(self.o.valid == (active & ~self.stop))
        taken, first, behind = Signal(8), Signal(14), Signal(15)
        m.d.comb += [
            first.eq(burst.address & ~3),
            behind.eq(first + 4 * (burst.beats + 1)),
            taken.eq(Mux(burst.last, left, behind - burst.address)),
        ]
        with m.If(self.o.valid):
            m.d.comb += [
                Assert(burst.address == next_byte),
                Assert(burst.beats < 4),
                Assert(first[12:] == (behind - 1)[12:]),
                Assert((taken <= left) & (taken != 0)),
                Assert(burst.last == (taken == left)),
                Assert((burst.address >= self.base) & (burst.address + taken <= self.limit)),
                Assert((behind - burst.address >= taken) & (behind - burst.address - taken < 4)),
            ]
            with m.If(self.o.ready):
                m.d.sync += [next_byte.eq(next_byte + taken), left.eq(left - taken), active.eq(~burst.last)]
        return m


@pytest.mark.slow
def test_bursts_cover_the_transfer_and_stay_in_their_window_and_page() -> None:
    prove(SplitterRules(), 10, bounded=True)


class LiteRules(wiring.Component):
    """A master that keeps the rules of AXI4-Lite."""

    def __init__(self) -> None:
        super().__init__({"bus": In(Axi4LiteSignature(address_bits=4)), "data": In(32), "errors": In(2), "wait": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slave = slave = LiteSlave(4)
        wiring.connect(m, wiring.flipped(self.bus), slave.bus)
        m.d.comb += [slave.read_data.eq(self.data), slave.read_wait.eq(self.wait)]
        m.d.comb += [slave.write_error.eq(self.errors[0]), slave.read_error.eq(self.errors[1])]
        bus = slave.bus
        for end, claim in ((bus.aw, Assume), (bus.w, Assume), (bus.ar, Assume), (bus.b, Assert), (bus.r, Assert)):
            keeps_rules(m, end, claim)
        waiting = {name: Signal(range(4), name=f"waiting_{name}") for name in ("aw", "w", "ar")}
        answers = {"aw": bus.b, "w": bus.b, "ar": bus.r}
        for name, count in waiting.items():
            end, answer = getattr(bus, name), answers[name]
            m.d.sync += count.eq(count + (end.valid & end.ready) - (answer.valid & answer.ready))
            # No answer without its access, and never more accesses than there is room for.
            m.d.comb += [Assert(~answer.valid | (count != 0)), Assert(count <= (2 if name == "w" else 1))]
        m.d.comb += Assert(~(slave.write & slave.read))
        return m


def test_every_access_has_one_answer() -> None:
    prove(LiteRules(), 12, bounded=True)


def test_the_checker_finds_what_is_wrong() -> None:
    """A claim that does not hold: a FIFO of two that never fills."""

    class Wrong(Queue):
        def elaborate(self, platform: object) -> Module:
            m = super().elaborate(platform)
            m.d.comb += Assert(self.i.ready)
            return m

    with pytest.raises(ToolError, match="FAIL"):
        prove(Wrong(Fifo(WIDTH, 2), 2, in_turn=False), 6, bounded=True)
