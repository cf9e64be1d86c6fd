"""Elements of streams: FIFOs, skid buffer, round-robin arbiter.

All keep Amaranth's rules of a stream: once `valid` is high, it and the payload stay until `ready`; `valid` never waits for
`ready`. None has a combinational path from its input to its output or back, so that any number may be chained at full clock.
"""

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from fixgrad.machine.memory_blocks import is_queue_in_blocks

#: Attribute of a memory, known to Yosys: what is read while the same word is written is not used. See
#: `fixgrad.gateware.synthesis.collisions`.
NO_COLLISION = "no_rw_check"


class Fifo(wiring.Component):
    """A queue in a memory that is read without a clock (LUT RAM): a payload pushed in one cycle may leave in the next.

    Args:
        shape: of the payload.
        depth: payloads that it holds; at least 1.
        patient: nothing but `o.valid` tells that a payload is there, so it may come a cycle later. On a chip whose LUT RAM is
            dear (see `fixgrad.machine.memory_blocks.is_queue_in_blocks`) such a queue is in block RAM.

    Members:
        i, o: input and output stream.
        level: payloads that it holds.
    """

    def __init__(self, shape: ShapeLike, depth: int, *, patient: bool = False) -> None:
        if depth < 1:
            raise ValueError(f"depth is {depth}: a FIFO holds at least 1")
        self.shape, self.depth, self.patient = shape, depth, patient
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.shape, depth=self.depth, init=[])
        write, head, push, pop = memory.write_port(), Signal(range(max(self.depth, 2))), Signal(), Signal()
        following = Mux(pop, Mux(head == self.depth - 1, 0, head + 1), head)
        kind = getattr(platform, "block_kind", None)
        if self.patient and kind and is_queue_in_blocks(len(Value.cast(self.i.payload)), self.depth, kind):
            # Else synthesis takes LUTs for a wide and shallow one, since that wastes no bits.
            memory.attrs["ram_style"] = "block"
            memory.attrs[NO_COLLISION] = "1"
            read = memory.read_port()
            m.d.comb += read.addr.eq(following)
            # What is written in this cycle is not read in it.
            m.d.sync += self.o.valid.eq(self.level != pop)
        else:
            read = memory.read_port(domain="comb")
            m.d.comb += [read.addr.eq(head), self.o.valid.eq(self.level != 0)]
        m.d.comb += [
            self.i.ready.eq(self.level != self.depth),
            push.eq(self.i.valid & self.i.ready),
            pop.eq(self.o.valid & self.o.ready),
            Value.cast(write.data).eq(Value.cast(self.i.payload)),
            write.en.eq(push),
            Value.cast(self.o.payload).eq(Value.cast(read.data)),
        ]
        m.d.sync += [self.level.eq(self.level + push - pop), head.eq(following)]
        with m.If(push):
            m.d.sync += write.addr.eq(Mux(write.addr == self.depth - 1, 0, write.addr + 1))
        return m


class BlockFifo(wiring.Component):
    """A queue in block RAM, for wide and deep ones: as `Fifo`, but a payload leaves two cycles after it came at the earliest.

    Args:
        shape: of the payload.
        depth: payloads that it holds at least, a power of two.

    Members:
        i, o: input and output stream.
    """

    def __init__(self, shape: ShapeLike, depth: int) -> None:
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth is {depth}: choose a power of two from 2 on")
        self.shape, self.depth = shape, depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # One payload is in the output register; the others fill the memory.
        queue = SyncFIFOBuffered(width=len(Value.cast(self.i.payload)), depth=self.depth + 1)
        m.submodules.queue = inner = queue.elaborate(platform)
        queue._MustUse__used = True  # Amaranth sees only its own elaborations, and would warn
        # Else synthesis takes LUTs for a wide and shallow one, since that wastes no bits.
        inner.submodules.storage.attrs["ram_style"] = "block"
        inner.submodules.storage.attrs[NO_COLLISION] = "1"
        m.d.comb += [
            queue.w_data.eq(Value.cast(self.i.payload)),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            Value.cast(self.o.payload).eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        return m


class SkidBuffer(wiring.Component):
    """Registers both directions of a stream: two payloads deep, a payload a cycle, one cycle of latency."""

    def __init__(self, shape: ShapeLike) -> None:
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        skid, skid_full = Signal(self.shape), Signal()
        m.d.comb += self.i.ready.eq(~skid_full)
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [
                Value.cast(self.o.payload).eq(Mux(skid_full, Value.cast(skid), Value.cast(self.i.payload))),
                self.o.valid.eq(skid_full | self.i.valid),
                skid_full.eq(0),
            ]
        with m.Elif(self.i.valid & self.i.ready):
            m.d.sync += [Value.cast(skid).eq(Value.cast(self.i.payload)), skid_full.eq(1)]
        return m


def connect_payload(m: Module, source: stream.Interface, sink: stream.Interface) -> None:
    """Connects two streams whose payloads have the same bits."""
    m.d.comb += [
        Value.cast(sink.payload).eq(Value.cast(source.payload)),
        sink.valid.eq(source.valid),
        source.ready.eq(sink.ready),
    ]


class RoundRobin(wiring.Component):
    """Chooses one of several requests, the one after the last that was taken first (no request waits for more than all others).

    Members:
        requests: a bit for each requester.
        take: the choice was used; the next search begins behind it.
        choice: the requester chosen; 0 where none asks.
        any: one asks.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__({"requests": In(count), "take": In(1), "choice": Out(range(max(count, 2))), "any": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        last = Signal.like(self.choice)
        later = Signal(self.count)
        m.d.comb += [
            self.any.eq(self.requests.any()),
            later.eq(self.requests & Cat(*((last < index) for index in range(self.count)))),
            self.choice.eq(Mux(later.any(), _lowest(later), _lowest(self.requests))),
        ]
        with m.If(self.take):
            m.d.sync += last.eq(self.choice)
        return m


def _lowest(bits: Value) -> Value:
    """Index of the lowest bit that is set; 0 where none is."""
    index: Value = Value.cast(0)
    for position in reversed(range(len(bits))):
        index = Mux(bits[position], position, index)
    return index


class Arbiter(wiring.Component):
    """Merges streams round robin, a payload at a time, and says where each came from.

    A choice stands until it is accepted, so the output keeps the rules of a stream.

    Members:
        i: the input streams.
        o: the output stream.
        source: the input that the output's payload comes from.
    """

    def __init__(self, shape: ShapeLike, count: int) -> None:
        self.shape, self.count = shape, count
        super().__init__(
            {
                "i": In(stream.Signature(shape)).array(count),
                "o": Out(stream.Signature(shape)),
                "source": Out(range(max(count, 2))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.choice = choice = RoundRobin(self.count)
        held, holding = Signal.like(self.source), Signal()
        m.d.comb += [
            choice.requests.eq(Cat(*(i.valid for i in self.i))),
            self.source.eq(Mux(holding, held, choice.choice)),
            self.o.valid.eq(holding | choice.any),
            choice.take.eq(~holding & choice.any),
        ]
        m.d.sync += [held.eq(self.source), holding.eq(self.o.valid & ~self.o.ready)]
        with m.Switch(self.source):
            for index, i in enumerate(self.i):
                with m.Case(index):
                    m.d.comb += [Value.cast(self.o.payload).eq(Value.cast(i.payload)), i.ready.eq(self.o.valid & self.o.ready)]
        return m
