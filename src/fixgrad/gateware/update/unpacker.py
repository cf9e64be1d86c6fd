"""Elements of one tensor out of words."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from fixgrad.gateware.axi.streams import Fifo
from fixgrad.gateware.update.shape import ELEMENT_BYTES, READ_WORDS, UpdateShape


class Unpacker(wiring.Component):
    """An element a cycle, at any byte. Every transfer begins in a word of its own.

    Members:
        word, word_valid: in; the words that may still come have room: see `may`.
        asked: in: so many words have been asked for. may: out: there is room for another block.
        begin, skip: in: a transfer begins, at this byte of its first word; not before the last element of that before is taken,
            but it may be in the same cycle.
        size: in: bytes of an element, steady from `begin` on.
        element, valid: out: the next one; bytes behind its size are any. take: in. last: in, with `take`: the transfer's last.
    """

    def __init__(self, shape: UpdateShape, words: int = READ_WORDS) -> None:
        self.word_bytes, self.block_words, self.words = shape.word_bytes, shape.block_words, max(words, 2 * shape.block_words)
        super().__init__(
            {
                "word": In(8 * self.word_bytes),
                "word_valid": In(1),
                "asked": In(range(self.block_words + 1)),
                "may": Out(1),
                "begin": In(1),
                "skip": In(range(self.word_bytes)),
                "size": In(range(ELEMENT_BYTES + 1)),
                "element": Out(8 * ELEMENT_BYTES),
                "valid": Out(1),
                "take": In(1),
                "last": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = Fifo(8 * self.word_bytes, self.words, patient=True)
        reserved = Signal(range(self.words + 1))
        word, full, at = Signal(8 * self.word_bytes), Signal(), Signal(range(self.word_bytes))
        after, crosses, pops, moves_on = Signal(range(self.word_bytes + ELEMENT_BYTES)), Signal(), Signal(), Signal()
        m.d.comb += [
            fifo.i.payload.eq(self.word),
            fifo.i.valid.eq(self.word_valid),
            fifo.o.ready.eq(pops),
            self.may.eq(reserved <= self.words - self.block_words),
            after.eq(at + self.size),
            crosses.eq(after > self.word_bytes),
            self.element.eq((Cat(word, fifo.o.payload) >> Cat(Const(0, 3), at))[: 8 * ELEMENT_BYTES]),
            self.valid.eq(full & (~crosses | fifo.o.valid)),
            # The word at hand is used up, or what is left of it is of no use.
            moves_on.eq(Mux(self.take, self.last | (after >= self.word_bytes), ~full)),
            pops.eq(moves_on & fifo.o.valid),
        ]
        m.d.sync += reserved.eq(reserved + self.asked - pops)
        with m.If(moves_on):
            # The last element may lie in two words: then the second one goes too.
            m.d.sync += [word.eq(fifo.o.payload), full.eq(fifo.o.valid & ~(self.take & self.last & crosses))]
        with m.If(self.begin):
            m.d.sync += at.eq(self.skip)
        with m.Elif(self.take):
            m.d.sync += at.eq(after)
        return m
