"""Elements of one tensor into words."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.axi.window import byte_mask
from fixgrad.gateware.update.shape import ELEMENT_BYTES, WRITTEN_WORDS, UpdateShape


class Packer(wiring.Component):
    """An element a cycle, at any byte, and a cycle more where the last one spills into another word.

    Args:
        with_data: without, all elements are 0 and no word is kept: it only tells when blocks are complete.

    Members:
        begin, place: in: a transfer begins, at this byte of its block; at the earliest in the cycle of the last element of that
            before.
        size: in: bytes of an element, steady from `begin` on.
        element, take: in. last: in, with `take`: the transfer's last. ready: out: `take` is possible.
        may: out: the words of a block are here. cut: in: one was given out.
        word: out: the oldest word. pop: in.
    """

    def __init__(self, shape: UpdateShape, *, with_data: bool = True) -> None:
        self.word_bytes, self.block_bytes, self.with_data = shape.word_bytes, shape.block_bytes, with_data
        self.words = max(WRITTEN_WORDS, 2 * shape.block_words)
        super().__init__(
            {
                "begin": In(1),
                "place": In(range(self.block_bytes)),
                "size": In(range(ELEMENT_BYTES + 1)),
                "element": In(8 * ELEMENT_BYTES),
                "take": In(1),
                "last": In(1),
                "ready": Out(1),
                "may": Out(1),
                "cut": In(1),
                "word": Out(8 * self.word_bytes),
                "pop": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        low = ceil_log2(self.word_bytes)
        at, position = Signal(low), Signal(range(self.block_bytes // self.word_bytes))
        after, spills = Signal(range(self.word_bytes + ELEMENT_BYTES)), Signal()
        crosses, pushes, ends = Signal(), Signal(), Signal()
        blocks = Signal(range(self.words + 1))
        m.d.comb += [
            after.eq(at + self.size),
            crosses.eq(after > self.word_bytes),
            pushes.eq(spills | (self.take & (self.last | (after >= self.word_bytes)))),
            ends.eq(spills | (self.take & self.last & ~crosses) | position.all()),
            self.may.eq(blocks != 0),
        ]
        m.d.sync += [spills.eq(self.take & self.last & crosses), blocks.eq(blocks + (pushes & ends) - self.cut)]
        with m.If(self.begin):
            m.d.sync += [at.eq(self.place[:low]), position.eq(self.place[low:])]
        with m.Else():
            with m.If(self.take):
                m.d.sync += at.eq(after)
            with m.If(pushes & ~spills):
                m.d.sync += position.eq(position + 1)
        if self.with_data:
            self._collect(m, at, pushes, spills)
        else:
            m.d.comb += self.ready.eq(~spills & (blocks < self.words - 1))
        return m

    def _collect(self, m: Module, at: Value, pushes: Value, spills: Value) -> None:
        m.submodules.fifo = fifo = Fifo(8 * self.word_bytes, self.words)
        bits = 8 * self.word_bytes
        held, keep, shifted = Signal(bits), Signal(ELEMENT_BYTES), Signal(bits + 8 * ELEMENT_BYTES)
        m.d.comb += keep.eq(byte_mask(self.size, ELEMENT_BYTES))
        element = self.element & Cat(*(keep[index].replicate(8) for index in range(ELEMENT_BYTES)))
        m.d.comb += [
            shifted.eq(element << Cat(Const(0, 3), at)),
            fifo.i.payload.eq(held | Mux(spills, 0, shifted[:bits])),
            fifo.i.valid.eq(pushes),
            self.ready.eq(~spills & fifo.i.ready & (fifo.level != self.words - 1)),
            self.word.eq(fifo.o.payload),
            fifo.o.ready.eq(self.pop),
        ]
        with m.If(spills):
            m.d.sync += held.eq(0)
        with m.Elif(self.take):
            m.d.sync += held.eq(Mux(pushes, shifted[bits:], held | shifted[:bits]))
