"""Elements of one tensor into words."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from fixgrad.gateware.axi.streams import Fifo
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
        """A byte of an element goes to the byte of a word where it belongs, whether in this word or in the next. Bytes of a word
        that no element has set are any."""
        m.submodules.fifo = fifo = Fifo(8 * self.word_bytes, self.words)
        held, turned = Signal(8 * self.word_bytes), Signal(8 * ELEMENT_BYTES)
        m.d.comb += [
            fifo.i.valid.eq(pushes),
            self.ready.eq(~spills & fifo.i.ready & (fifo.level != self.words - 1)),
            self.word.eq(fifo.o.payload),
            fifo.o.ready.eq(self.pop),
        ]
        with m.Switch(at[: ceil_log2(ELEMENT_BYTES)]):
            for turn in range(ELEMENT_BYTES):
                with m.Case(turn):
                    m.d.comb += turned.eq(self.element.rotate_left(8 * turn))
        for index in range(self.word_bytes):
            mine, is_set, distance = slice(8 * index, 8 * index + 8), Signal(name=f"sets_{index}"), Signal.like(at)
            new = turned.word_select(index % ELEMENT_BYTES, 8)
            m.d.comb += [
                distance.eq(index - at),
                is_set.eq(distance < self.size),
                # Those in front of the element's first byte belong to the next word.
                fifo.i.payload[mine].eq(Mux(is_set & (at <= index) & ~spills, new, held[mine])),
            ]
            with m.If(self.take & is_set):
                m.d.sync += held[mine].eq(new)
